"""Rows that need relays of their own: two workers, and chains of many stages that never act."""
import os

from . import procs, relays, report, workloads
from .bench import Bench

STAGE_COUNTS = (1, 4, 16)


def rows_named(size, *names):
    return [w for w in workloads.workloads(size, []) if w.name in names]


def small(names):
    return rows_named(0.05, *names)


def measure_workers(run):
    """HAProxy and the node with one worker and with two. Four cores: two for the relay, two for the load. Two: the load competes with the
    second worker, and the table says what that leaves at most."""
    own = set(range(os.cpu_count())) - {run.options.relay_cpu}
    second = min(own - run.options.load_cpus, default=min(run.options.load_cpus))
    run.worker_cpus = sorted({run.options.relay_cpu, second} | run.options.load_cpus)
    chosen, places, benches = [], {}, {}
    for name, make in (("haproxy", lambda n, c: relays.haproxy(n, relays.find("haproxy"), words={"workers": c})),
                       ("pipelined", lambda n, c: relays.node(n, run.options.pipelined, "pipelined.pipeline", words={"workers": c}))):
        if name not in run.names:
            continue
        for count in (1, 2):
            relay = make(f"{name} {count}", count)
            chosen.append(relay)
            places[relay.name] = {**run.place(), "name": relay.name.replace(" ", "-")}
            benches[relay.name] = Bench(run.tools, run.host, {run.options.relay_cpu} | ({second} if count == 2 else set()), run.options.load_cpus)
    if not chosen:
        return
    shared = benches[chosen[0].name]
    shared.start_backend({places[r.name]["backend"]: r.proxy for r in chosen})
    running = {}
    for relay in chosen:
        benches[relay.name].backend = shared.backend
        started = run.attempt(relay.name, lambda: relay.start(places[relay.name], benches[relay.name].relay_cpus))
        if started:
            running[relay.name] = started
    names = ("short", "rtt-64-64")
    run.time("workers", Benches(benches), running, rows_named(run.options.size, *names), small(names), chosen[0].name)
    for workload, results in run.sections["workers"].items():
        for line in report.worker_lines(run.titles[workload], results, run.worker_cpus):
            print(line)
    print(flush=True)
    end(running, shared)


class Benches:
    """A bench for each relay, where they differ in their cores."""

    def __init__(self, benches):
        self.benches = benches

    def round(self, relay, workload):
        return self.benches[relay.name].round(relay, workload)

    def load(self, *arguments):
        return next(iter(self.benches.values())).load(*arguments)


def measure_flatness(run):
    """The node with 1, 4 and 16 stages before `sni` that look at each connection and let it pass."""
    bench = Bench(run.tools, run.host, {run.options.relay_cpu}, run.options.load_cpus)
    chosen = [relays.node(f"{n} stage{'s' if n > 1 else ''}", run.options.pipelined, "flatness.pipeline", words=idle_stages(n))
              for n in STAGE_COUNTS]
    places = {r.name: {**run.place(), "name": r.name.replace(" ", "-")} for r in chosen}
    bench.start_backend({places[r.name]["backend"]: r.proxy for r in chosen})
    running = run.start(chosen, places, bench)
    names = ("short", "rtt-64-64")
    run.time("flatness", bench, running, rows_named(run.options.size, *names), small(names), chosen[0].name)
    end(running, bench)


def measure_envs(run):
    """Short connections spread over many names, each of an env of its own with a backend of its own. The floor and no relay at all have one
    backend and look at no names, as ever."""
    bench = Bench(run.tools, run.host, {run.options.relay_cpu}, run.options.load_cpus)
    chosen = [many for many in (relay.of_many_envs() for relay in run.relays) if many]
    places = {r.name: {**run.place(), "envs": workloads.ENVS, "backend": bench.address_of(10_000 + number * workloads.ENVS)}
              for number, r in enumerate(chosen)}
    bench.start_backend({places[r.name]["backend"]: r.proxy for r in chosen}, workloads.ENVS)
    running = run.start(chosen, places, bench)
    row = lambda size: [workloads.envs_workload(size)]
    run.time("envs", bench, running, row(run.options.size), row(0.05))
    end(running, bench)


def idle_stages(count):
    """`address` stages with sets of documentation prefixes, which no client has. Half of them are of 64 prefixes."""
    sets, stages = [], []
    for number in range(count):
        prefixes = "  ".join(f"2001:db8:{number:x}:{n:x}::/64" for n in range(64 if number % 2 else 1))
        sets.append(f"set unused_{number} {{ {prefixes} }}")
        stages.append(f"    address   deny @unused_{number}")
    return {"count": count, "sets": "\n".join(sets), "stages": "\n".join(stages)}


def end(running, bench):
    for relay in running.values():
        relay.stop()
    procs.stop(bench.backend)
