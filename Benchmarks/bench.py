#!/usr/bin/env python3
"""Compares the node with HAProxy, nginx and a bare C relay: one worker on one core, the same route, interleaved rounds.

docs/BENCHMARKS.md says what each figure means. Needs the tools that Benchmarks/run builds; Python's standard library only.
"""
import argparse
import fcntl
import json
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from driver import measure, procs, relays, report
from driver.procs import Failure
from driver.workloads import Bench, target, workloads

ROOT = Path(__file__).resolve().parent.parent
INSIDE = "PIPELINED_BENCH_INSIDE"  # set in the process that has its own network namespace


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="Example: Benchmarks/run --quick --only haproxy,pipelined --workloads short,idle")
    parser.add_argument("--quick", action="store_true", help="three small rounds instead of five: a first look, not a result")
    parser.add_argument("--rounds", type=int, help="rounds of each workload (5; with --quick 3)")
    parser.add_argument("--size", type=float, help="how much each round does (1; with --quick 0.25)")
    parser.add_argument("--only", help="relays, separated by commas: haproxy,pipelined,stages,nginx,floor")
    parser.add_argument("--workloads", help="separated by commas: short,fin,paced,rtt,download,upload,idle,counts")
    parser.add_argument("--family", choices=("4", "6"), default="6", help="IP version of both sides (6)")
    parser.add_argument("--congestion", help="TCP congestion control for all sockets (the system's)")
    parser.add_argument("--idle", type=int, default=2000, help="connections held open for the memory figure (2000)")
    parser.add_argument("--relay-cpu", type=int, default=0, help="core of the relay (0)")
    parser.add_argument("--load-cpus", default="1", help="cores of load generator and backend, separated by commas (1)")
    parser.add_argument("--pipelined", type=Path, default=ROOT / ".build/release/pipelined", help="the node's binary")
    parser.add_argument("--json", type=Path, default=ROOT / ".build/bench/latest.json", help="where the figures go")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if the node misses a target")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.size = options.size or (0.25 if options.quick else 1.0)
    options.load_cpus = {int(c) for c in options.load_cpus.split(",")}
    return options


def enter_own_network():
    """Starts over in a network namespace of its own, where there is only loopback, no firewall rule and no one else's
    connection. Where that isn't allowed, goes on in this one and says so."""
    if INSIDE in os.environ:
        return
    for flags in (["--net"], ["--user", "--map-root-user", "--net"]):
        command = ["unshare", *flags]
        if shutil.which("unshare") and subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode == 0:
            os.environ[INSIDE] = "namespace"
            os.execvp("unshare", [*command, sys.executable, *sys.argv])
    print("note: no network namespace allowed here; measuring on this machine's own loopback", file=sys.stderr)
    os.environ[INSIDE] = "host"


def loopback_up():
    with socket.socket() as s:
        request = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(s, 0x8914, request)  # SIOCSIFFLAGS


def congestion(wanted):
    """Sets (only in our own namespace) and returns the congestion control in force."""
    path = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    if wanted:
        if os.environ[INSIDE] != "namespace":
            raise Failure("--congestion needs a network namespace of its own, so that the machine's setting stays: run as root")
        try:
            path.write_text(wanted)
        except OSError as error:
            raise Failure(f"--congestion {wanted}: the kernel refuses it in a network namespace ({error.strerror}); "
                          "it must be in `sysctl net.ipv4.tcp_allowed_congestion_control`") from error
    return path.read_text().strip()


def machine(options, algorithm):
    model = procs.first_line(["cat", "/proc/cpuinfo"], r"(?<=model name\t: ).*") or platform.machine()
    return {
        "kernel": platform.release(), "cpu": model, "cores": os.cpu_count(), "congestion": algorithm, "ip_version": options.family,
        "network": os.environ[INSIDE], "relay_cpu": options.relay_cpu, "load_cpus": sorted(options.load_cpus),
        "rounds": options.rounds, "size": options.size, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


class Run:
    """One run of the benchmark, its relays and its results."""

    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.tools = ROOT / ".build/bench"
        self.bench = Bench(self.tools, "::1" if options.family == "6" else "127.0.0.1", options.relay_cpu, options.load_cpus)
        self.failures = []
        self.timed, self.idle, self.counts, self.versions = {}, {}, {}, {}
        self.relays = self._choose()
        self.places = {
            r.name: {"listen": self.bench.address(), "listen_bulk": self.bench.address(), "backend": self.bench.address(),
                     "directory": str(directory)} for r in self.relays
        }

    @property
    def names(self):
        return [r.name for r in self.relays]

    def _choose(self):
        known = relays.all_relays(self.tools, self.options.pipelined)
        only = self.options.only.split(",") if self.options.only else [r.name for r in known]
        unknown = set(only) - {r.name for r in known}
        if unknown:
            raise Failure(f"--only: no relay {', '.join(sorted(unknown))}; there are {', '.join(r.name for r in known)}")
        chosen = []
        for relay in known:
            if relay.name not in only:
                continue
            why = relay.missing()
            if why:
                hint = " (make build)" if relay.program == self.options.pipelined else " (make deps)"
                print(f"skipped: {relay.name}: {relay.program or relay.name} {why}{hint}")
                continue
            self.versions[relay.name] = relay.version()
            chosen.append(relay)
        if not chosen:
            raise Failure("nothing to compare: no relay is installed")
        return chosen

    def wants(self, name):
        return not self.options.workloads or name in self.options.workloads.split(",")

    def failed(self, name, failure):
        line = f"FAILED: {name}: {failure}"
        self.failures.append(line)
        print(line, flush=True)

    def attempt(self, name, action):
        """`action()`, or None and a failure on record: a broken relay must not look fast, nor stop the others."""
        try:
            return action()
        except Failure as failure:
            self.failed(name, failure)
            return None

    def start_all(self):
        self.bench.start_backend({self.places[r.name]["backend"]: r.proxy for r in self.relays})
        running = {}
        for relay in self.relays:
            started = self.attempt(relay.name, lambda: relay.start(self.places[relay.name], self.bench.relay_cpus))
            if started:
                running[relay.name] = started
        return running

    def time(self, running):
        """Every relay in turn, round after round; the first of a round changes, so that none always follows the same."""
        for workload in workloads(self.options.size):
            if not self.wants(workload.name):
                continue
            results = {name: [] for name in running}
            broken = {n for n, r in running.items() if self.attempt(n, lambda: self.warm(r, workload)) is None}
            for number in range(self.options.rounds):
                order = [n for n in running if n not in broken]
                for name in order[number % max(len(order), 1):] + order[:number % max(len(order), 1)]:
                    progress(f"{workload.name}, round {number + 1} of {self.options.rounds}: {name}")
                    figures = self.attempt(name, lambda: self.bench.round(running[name], workload))
                    if figures is None:
                        broken.add(name)
                        results[name] = []
                    elif name not in broken:
                        results[name].append(figures)
            progress("")
            self.timed[workload.name] = results
            print(report.workload_table(workload, results, list(running)), *report.disturbance(results), sep="\n", end="\n\n", flush=True)

    def warm(self, relay, workload):
        small = next(w for w in workloads(0.05) if w.name == workload.name)
        return self.bench.load(target(relay, small), small.arguments)

    def measure_idle(self):
        """Each time a relay that has just been started: memory that an earlier peak left would hide the growth."""
        for _ in range(min(self.options.rounds, 3)):
            for relay in self.relays:
                progress(f"idle: {relay.name}")
                figures = self.attempt(relay.name, lambda: self.idle_of(relay))
                if figures:
                    self.idle.setdefault(relay.name, []).append(figures)
        progress("")
        print(report.idle_table(self.idle, self.names), end="\n\n", flush=True)

    def own_place(self, relay):
        """A second address for a relay that is started beside the timed ones."""
        return {**self.places[relay.name], "listen": self.bench.address(), "listen_bulk": self.bench.address()}

    def idle_of(self, relay):
        running = relay.start(self.own_place(relay), self.bench.relay_cpus)
        try:
            return self.bench.idle_memory(running, self.options.idle)
        finally:
            running.stop()

    def count_calls(self, running):
        """System calls and allocations in the steady state, in runs of their own: counting slows what is counted."""
        loads = {"short": (["short", "--connections", "4000", "--concurrent", "64"], 4000),
                 "rtt": (["rtt", "--connections", "64", "--amount", "20000"], 20000)}
        cpus = self.bench.load_cpus
        for name, relay in running.items():
            progress(f"counts: {name}")
            self.attempt(name, lambda: self.count_calls_of(name, relay, loads, cpus))
            measure.AllocationProbes.remove()
        progress("")
        print(report.counts_table(self.counts, list(running)))
        print("\n".join(["of these, for one short connection:", *report.syscall_lines(self.counts, list(running))]), end="\n\n", flush=True)

    def count_calls_of(self, name, relay, loads, cpus):
        probes = measure.AllocationProbes(relay.pid) if shutil.which("perf") else None
        for workload, (load, operations) in loads.items():
            command = self.bench.load_command(relay.listen, load)
            how, calls = measure.syscalls(relay.pid, command, cpus)
            allocations = probes.count(relay.pid, command, cpus) if probes else None
            allocated_how = "uprobes" if allocations is not None else "preload"
            if allocations is None:
                allocations = self.preloaded_counts(name, load)
            each = lambda counts: None if counts is None else {k: v / operations for k, v in counts.items()}
            self.counts.setdefault(name, {})[workload] = {
                "syscalls": each(calls) if how else None, "syscalls_how": how,
                "allocations": each(allocations), "allocations_how": allocations and allocated_how}

    def preloaded_counts(self, name, load):
        """The second way to count allocations: another instance of the relay, with the counting library preloaded."""
        relay = next(r for r in self.relays if r.name == name)
        counts = Path(self.directory) / f"counts-{name}"
        counts.unlink(missing_ok=True)
        environment = {"LD_PRELOAD": str(self.tools / "malloccount.so"), measure.PRELOAD_ENVIRONMENT: str(counts)}
        running = relay.start(self.own_place(relay), self.bench.relay_cpus, environment)
        try:
            self.bench.load(running.listen, load)  # past the first growth of pools and tables
            before = measure.preload_counts(counts)
            self.bench.load(running.listen, load)
            after = measure.preload_counts(counts)
        finally:
            running.stop()
        return after and before and {k: after[k] - before[k] for k in after}

    def results(self, about):
        return {"machine": about, "versions": self.versions, "timed": self.timed, "idle": self.idle, "counts": self.counts,
                "failures": self.failures}


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def stop_on_signal(number, _):
    raise KeyboardInterrupt(number)


def run(options, directory):
    if os.environ[INSIDE] == "namespace":
        loopback_up()
    about = machine(options, congestion(options.congestion))
    usable = os.sched_getaffinity(0)
    if not ({options.relay_cpu} | options.load_cpus) <= usable or options.relay_cpu in options.load_cpus:
        raise Failure(f"needs core {options.relay_cpu} for the relay and others ({sorted(options.load_cpus)}) for the load; usable: {sorted(usable)}")
    os.sched_setaffinity(0, options.load_cpus)
    one = Run(options, directory)
    print(f"kernel {about['kernel']}, {about['cores']} cores, {about['cpu']}; congestion control {about['congestion']}; IPv{options.family}; "
          f"{options.rounds} rounds; medians (least-most)")
    print("; ".join(f"{n} {v}" for n, v in one.versions.items()), end="\n\n", flush=True)
    running = one.start_all()
    one.time(running)
    if one.wants("counts"):
        one.count_calls(running)
    for relay in running.values():
        relay.stop()
    if one.wants("idle"):
        one.measure_idle()
    missed = []
    for met, sentence in report.verdicts("pipelined", one.timed, one.idle, one.counts):
        print(f"{'met   ' if met else 'MISSED'}  {sentence}")
        missed += [] if met else [sentence]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(one.results(about), indent=1) + "\n")
    print(f"figures: {os.path.relpath(options.json)}")
    if one.failures:
        print(f"{len(one.failures)} failures, named above")
    return 1 if one.failures or (options.check and missed) else 0


def main():
    options = arguments()
    enter_own_network()
    signal.signal(signal.SIGTERM, stop_on_signal)
    signal.signal(signal.SIGHUP, stop_on_signal)
    with tempfile.TemporaryDirectory(prefix="pipelined-bench-") as directory:
        try:
            return run(options, directory)
        except Failure as failure:
            print(f"bench: {failure}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nbench: stopped", file=sys.stderr)
            return 130
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            procs.stop_all()
            measure.AllocationProbes.remove()


if __name__ == "__main__":
    sys.exit(main())
