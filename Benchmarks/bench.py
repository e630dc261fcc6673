#!/usr/bin/env python3
"""Compares the node with HAProxy, nginx, Envoy and a bare C relay: one worker on one core, the same route, interleaved rounds.

docs/BENCHMARKS.md says what each figure means. Needs the tools that Benchmarks/run builds; Python's standard library only.
"""
import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from driver import charts, counting, documents, egress, envoy, instructions, machine, names, overload, probes, procs, relays, sections, verdicts
from driver.procs import Failure
from driver.session import Run
from driver.workloads import GROUPS, workloads

ROOT = Path(__file__).resolve().parent.parent


TAKEN = [relay.name for relay in relays.all_relays(ROOT / ".build/bench", ROOT / ".build/release/pipelined")]


def named_path(text):
    name, _, path = text.partition("=")
    if not name or not os.access(path, os.X_OK):
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=PATH of a program that can be run")
    if name in TAKEN:
        raise argparse.ArgumentTypeError(f"{text}: {name} takes part by that name already; call it by its version")
    return name, path


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="Example: Benchmarks/run --quick --only haproxy,pipelined --workloads short,idle")
    parser.add_argument("--quick", action="store_true", help="three small rounds instead of nine: a first look, not a result")
    parser.add_argument("--rounds", type=int, help="rounds of each workload (9; with --quick 3), and as many again at most for those that a slowed machine spoils")
    parser.add_argument("--size", type=float, help="how much each round does (0.5; with --quick 0.25)")
    parser.add_argument("--only", help=f"relays, separated by commas: {','.join(TAKEN)}")
    parser.add_argument("--haproxy", type=named_path, action="append", default=[], metavar="NAME=PATH", help="another HAProxy; again for more")
    parser.add_argument("--node", type=named_path, action="append", default=[], metavar="NAME=PATH",
                        help="another build of the node, in the same rounds: before=/tmp/before/pipelined; again for more")
    parser.add_argument("--workloads", default="", help=f"groups or single rows, separated by commas: {','.join(GROUPS)}, rtt-64-64, "
                                                        "download-4.bbr, ...; main: those that have a target")
    parser.add_argument("--floods", default=",".join(overload.FLOODS), help=f"kinds of the row quiet, separated by commas ({','.join(overload.FLOODS)})")
    parser.add_argument("--family", choices=("4", "6"), default="6", help="IP version of both sides (6)")
    parser.add_argument("--congestion", help="TCP congestion control: a name for all rows, or `both`: bulk under bbr and cubic (both, "
                                             "where that is allowed)", default="both")
    parser.add_argument("--idle", default="1000,8000", help="connections held open for the memory figures (1000,8000)")
    parser.add_argument("--relay-cpu", type=int, default=0, help="core of the relay (0)")
    parser.add_argument("--load-cpus", default="1", help="cores of load generator and backend, separated by commas (1)")
    parser.add_argument("--pipelined", type=Path, default=ROOT / ".build/release/pipelined", help="the node's binary")
    parser.add_argument("--json", type=Path, default=ROOT / ".build/bench/latest.json", help="where the figures go; the charts go beside it")
    parser.add_argument("--write-docs", action="store_true", help="also into docs/benchmarks and docs/BENCHMARKS.md, as the latest run")
    parser.add_argument("--from-json", type=Path, help="no run: charts (and with --write-docs the docs) from the figures of one")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if the node misses a target")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 9)
    options.size = options.size or (0.25 if options.quick else 0.5)
    options.load_cpus = {int(c) for c in options.load_cpus.split(",")}
    options.idle = [int(n) for n in options.idle.split(",")]
    options.workloads = {name for name in options.workloads.split(",") if name}
    options.floods = options.floods.split(",")
    if unknown := set(options.floods) - set(overload.FLOODS):
        parser.error(f"--floods: no {', '.join(sorted(unknown))}")
    return options


def stop_on_signal(number, _):
    raise KeyboardInterrupt(number)


def check_names(options, rows):
    known = {*GROUPS, "main", *(w.name for w in rows), *(w.name.partition(".")[0] for w in rows)}
    unknown = options.workloads - known
    if unknown:
        raise Failure(f"--workloads: no {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")


def prepare(options):
    """Cores and network; returns the facts about the machine and the rows."""
    if machine.is_own_network():
        machine.loopback_up()
    algorithms = machine.congestions(options.congestion)
    rows = workloads(options.size, algorithms)
    check_names(options, rows)
    usable = os.sched_getaffinity(0)
    if not ({options.relay_cpu} | options.load_cpus) <= usable or options.relay_cpu in options.load_cpus:
        raise Failure(f"needs core {options.relay_cpu} for the relay and others ({sorted(options.load_cpus)}) for the load; usable: {sorted(usable)}")
    about = machine.facts(options, algorithms)
    os.sched_setaffinity(0, options.load_cpus)
    return about, rows, algorithms


def measure_all(run, rows, algorithms):
    wanted = run.options.workloads
    rows = [w for w in rows if w.is_wanted(wanted)]
    usual = machine.congestion()
    if rows or run.wants("counts"):
        running = run.start_all()
        run.time("timed", run.bench, running, rows, workloads(0.05, algorithms))
        if machine.congestion() != usual:
            machine.set_congestion(usual)
        if run.wants_targets("counts"):
            counting.count(run, running)
        for relay in running.values():
            relay.stop()
    else:
        run.start_all()
    if run.wants_targets("idle"):
        for connections in run.options.idle:
            run.measure_idle(connections)
    if run.wants("workers"):
        sections.measure_workers(run)
    if run.wants_targets("flatness") and "pipelined" in run.names:
        sections.measure_flatness(run)
    if run.wants("envs") and (wanted or not run.options.quick):
        sections.measure_envs(run)
    if run.wants("names") and (wanted or not run.options.quick):
        names.measure(run, ROOT)
    if run.wants("quiet") and (wanted or not run.options.quick):
        overload.measure_overload(run)
    if run.wants_targets("egress"):
        egress.measure_egress(run)
    if run.wants("instructions"):
        instructions.measure(run, ROOT)


def run(options, directory):
    about, rows, algorithms = prepare(options)
    one = Run(options, directory, ROOT)
    print(f"kernel {about['kernel']}, {about['cores']} cores, {about['cpu']}; congestion control {about['congestion']}; IPv{options.family}; "
          f"{options.rounds} rounds of size {options.size:g}; load average {about['load_average'][0]}; medians (least-most)")
    print("; ".join(f"{n} {v}" for n, v in one.versions.items()), flush=True)
    if machine.warning(about):
        one.note(machine.warning(about))
    print(flush=True)
    measure_all(one, rows, algorithms)
    return finish(options, one.results(about))


def finish(options, results):
    """Verdicts, JSON, charts, documents; the exit status."""
    results["verdicts"] = verdicts.verdicts(results)
    if results["verdicts"]:
        print(*verdicts.lines(results["verdicts"]), sep="\n", end="\n\n")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    drawn = charts.write(results, options.json.parent)
    print(f"figures: {options.json}; charts: {', '.join(p.name for p in drawn) or 'none'}")
    if options.write_docs:
        print("written: " + ", ".join(str(p.relative_to(ROOT)) for p in documents.write(results, ROOT)))
    if results["failures"]:
        print(f"{len(results['failures'])} failures, named above")
    missed = any(v["met"] is False for v in results["verdicts"])
    return 1 if results["failures"] or (options.check and missed) else 0


def main():
    options = arguments()
    if options.from_json:
        results = json.loads(options.from_json.read_text())
        return finish(options, results)
    if machine.INSIDE not in os.environ and (not options.only or "envoy" in options.only.split(",")):
        envoy.install(ROOT / ".build/bench")
    machine.enter_own_network()
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
            probes.AllocationProbes.remove()


if __name__ == "__main__":
    sys.exit(main())
