"""What the relays are put through, and how a round becomes figures."""
import json
import subprocess
import time
from dataclasses import dataclass, field

from . import measure, procs
from .procs import Failure


@dataclass(frozen=True)
class Workload:
    """One kind of load. `unit` is what its CPU figure is per."""
    name: str
    title: str
    arguments: list
    unit: str             # "operation" or "KiB"
    figures: list = field(default_factory=list)  # names of what is reported, besides CPU


def workloads(size):
    """`size` scales how much is done; 1 takes 1 to 3 seconds a round on the machine that this was written on."""
    many = lambda n: str(max(int(n * size), 1000))
    stream = str(max(int(1_000_000_000 * size), 64_000_000))
    return [
        Workload("short", "short connection", ["short", "--connections", many(20_000), "--concurrent", "64"], "operation", ["rate"]),
        Workload("fin", "short connection, ended by FIN", ["short", "--fin", "--connections", many(10_000), "--concurrent", "64"], "operation", ["rate"]),
        Workload("paced", "short connection at 3,000/s", ["short", "--rate", "3000", "--connections", many(6_000)], "operation", ["p50", "p99"]),
        Workload("rtt", "64-byte round trip, 64 connections", ["rtt", "--connections", "64", "--amount", many(100_000)], "operation", ["p50", "p99"]),
        Workload("download", "bulk to the client, 4 streams", ["bulk", "--connections", "4", "--amount", stream], "KiB", ["throughput"]),
        Workload("upload", "bulk to the backend, 4 streams", ["bulk", "--upload", "--connections", "4", "--amount", stream], "KiB", ["throughput"]),
    ]


class Bench:
    """One backend, one load generator at a time, and the machine that they share with the relays."""

    def __init__(self, tools, host, relay_cpu, load_cpus):
        self.tools, self.host, self.relay_cpus, self.load_cpus = tools, host, {relay_cpu}, load_cpus
        self.softirqd = measure.softirq_daemon(relay_cpu)
        self.ports = set()
        self.backend = None

    def address(self):
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{procs.free_port(self.host, self.ports)}"

    def start_backend(self, doors):
        """`doors`: {address: what PROXY header it expects}; one each relay, so that none meets another's TIME_WAIT."""
        command = [self.tools / "backend", *(f"{address}={proxy}" for address, proxy in doors.items())]
        self.backend = procs.start(command, self.load_cpus, stdin=subprocess.DEVNULL)
        for address in doors:
            procs.wait_for_port(address, self.backend, "the backend")

    def load_command(self, target, arguments, proxied=True):
        return [self.tools / "loadgen", *arguments, "--target", target, *(["--proxied"] if proxied else [])]

    def load(self, target, arguments):
        """Runs the load generator; returns its report. Raises Failure if any connection failed or any answer was wrong."""
        process = procs.start(self.load_command(target, arguments), self.load_cpus, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, errors = process.communicate(timeout=180)
        except subprocess.TimeoutExpired:
            raise Failure(f"{arguments[0]}: not over after 180 s") from None
        finally:
            procs.stop(process)
        if process.returncode != 0:
            said = "; ".join(errors.strip().splitlines()[:4]) or "no message"
            report = json.loads(out) if out.startswith("{") else {}
            failures = f"{report['failures']} failures: " if "failures" in report else ""
            raise Failure(f"{arguments[0]}: {failures}{said}")
        return json.loads(out)

    def relay_cpu_ns(self, relay):
        """The relay's CPU and, since nothing else runs on its core, that of the core's softirq thread."""
        return measure.cpu_ns(relay.pid) + (measure.cpu_ns(self.softirqd) if self.softirqd else 0)

    def round(self, relay, workload):
        """One timed round: {figure: value}."""
        read = lambda: self.relay_cpu_ns(relay)
        before, backend_before = measure.settled_cpu_ns(read), measure.cpu_ns(self.backend.pid)
        cores, begin, busy_before = self.relay_cpus | self.load_cpus, time.monotonic(), measure.busy_ns(self.relay_cpus | self.load_cpus)
        report = self.load(relay.listen, workload.arguments)
        wall, busy = time.monotonic() - begin, measure.busy_ns(cores) - busy_before
        used = measure.settled_cpu_ns(read) - before
        backend_used = measure.cpu_ns(self.backend.pid) - backend_before
        others = max(busy / 1e9 - used / 1e9 - report["own_cpu_s"] - backend_used / 1e9, 0) / wall
        count = report["bytes"] / 1024 if workload.unit == "KiB" else report["operations"]
        return {
            "cpu_ns": used / count, "load_cpu_ns": report["own_cpu_s"] * 1e9 / count, "backend_cpu_ns": backend_used / count,
            "others": others, "busy": used / 1e9 / report["seconds"], "rate": report["operations"] / report["seconds"],
            "throughput": report["bytes"] / report["seconds"] / 1e9, "p50": report["p50_us"], "p99": report["p99_us"],
        }

    def idle_memory(self, relay, connections):
        """Bytes of user-space memory for each of `connections` that are open and silent, over a warmed-up relay."""
        self.load(relay.listen, ["short", "--connections", "500", "--concurrent", "16"])
        before = measure.memory(relay.pid)
        holder = procs.start(self.load_command(relay.listen, ["idle", "--connections", str(connections)]), self.load_cpus,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            ready = holder.stdout.readline()
            if ready != f"ready {connections}\n":
                _, errors = holder.communicate(input="", timeout=30)
                raise Failure(f"idle: {ready.strip() or 'no answer'}, expected ready {connections}: {errors.strip()}")
            during = measure.memory(relay.pid)
            out, errors = holder.communicate(input="", timeout=30)
            if holder.returncode != 0:
                raise Failure(f"idle: {errors.strip()}")
        finally:
            procs.stop(holder)
        return {"private": (during["private"] - before["private"]) / connections,
                "pss": (during["pss"] - before["pss"]) / connections, "base": before["private"]}
