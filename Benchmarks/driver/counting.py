"""What one connection and one round trip take, in counts that a busy machine doesn't change: system calls, context switches,
allocations, retains and releases. Each in a run of its own, since counting slows what is counted."""
import shutil
from pathlib import Path

from . import measure, report
from .probes import AllocationProbes
from .session import progress

LOADS = {"short": (["short", "--connections", "4000", "--concurrent", "64"], 4000),
         "rtt": (["rtt", "--connections", "64", "--amount", "20000"], 20000)}


def count(run, running):
    for name, relay in running.items():
        if relay.pid is None:
            continue
        progress(f"counts: {name}")
        run.attempt(f"{name}, counting", lambda: count_one(run, name, relay))
        AllocationProbes.remove()
    progress("")
    names = [n for n in running if n in run.counts]
    print(report.counts_table(run.counts, names))
    for workload, what in (("short", "short connection"), ("rtt", "round trip")):
        print(f"of these, for one {what}:", *report.syscall_lines(run.counts, names, workload), sep="\n")
    print(flush=True)


def count_one(run, name, relay):
    cpus = run.bench.load_cpus
    run.bench.load(relay.listen, LOADS["short"][0], relay.is_proxied)  # past the first growth of pools and tables
    probes = AllocationProbes(relay.pid) if shutil.which("perf") and not relay.relay.own_allocator else None
    for workload, (load, operations) in LOADS.items():
        command = run.bench.load_command(relay.listen, load, relay.is_proxied)
        switches = measure.context_switches(relay.pid)
        run.bench.load(relay.listen, load, relay.is_proxied)
        switched = {k: v - switches[k] for k, v in measure.context_switches(relay.pid).items()}
        how, calls = measure.syscalls(relay.pid, command, cpus)
        allocations = probes.count(relay.pid, command, cpus) if probes else None
        allocated_how = "uprobes" if allocations is not None else "preload"
        if allocations is None and not relay.relay.own_allocator:
            allocations = preloaded(run, name, load)
        each = lambda counts: None if counts is None else {k: v / operations for k, v in counts.items()}
        run.counts.setdefault(name, {})[workload] = {
            "syscalls": each(calls) if how else None, "syscalls_how": how, "switches": each(switched),
            "allocations": each(allocations), "allocations_how": allocations and allocated_how}


def preloaded(run, name, load):
    """The second way to count allocations: another instance of the relay, with the counting library preloaded."""
    relay = next(r for r in run.relays if r.name == name)
    counts = Path(run.directory) / f"counts-{name}"
    counts.unlink(missing_ok=True)
    environment = {"LD_PRELOAD": str(run.tools / "malloccount.so"), measure.PRELOAD_ENVIRONMENT: str(counts)}
    running = relay.start(run.own_place(relay), run.bench.relay_cpus, environment)
    try:
        run.bench.load(running.listen, load, running.is_proxied)
        before = measure.preload_counts(counts)
        run.bench.load(running.listen, load, running.is_proxied)
        after = measure.preload_counts(counts)
    finally:
        running.stop()
    return after and before and {k: after[k] - before[k] for k in after}
