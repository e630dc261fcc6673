"""The targets that the node must meet (issue "Ahead of every peer", and the design's table of numbers), and whether it did."""
from statistics import median

from .report import NO_RELAY, REFERENCE, column, is_retain, paired, paired_ratios, spread, total, worker_scaling

NODE = "pipelined"
# The node's CPU by HAProxy's, at most: by the distribution's, and by each that was given by path.
CPU = {"short": 0.80, "rtt-64-64": 0.95, "download-4.bbr": 0.50, "upload-4.bbr": 0.50, "download-4.cubic": 0.58, "upload-4.cubic": 0.58}
IDLE_BYTES = 512
# p99 by that of the best peer, at the same load.
TAIL, TAIL_ROWS = 1.0, ("paced", "rtt-64-64")
# What all stages may cost over the bare chain, and 16 stages that don't act over one.
STAGES, FLATNESS = 1.05, 1.05
SECOND_WORKER = 1.8
STATES = {True: "met", False: "MISSED", None: "unjudged"}
EGRESS_OF_HAPROXY, ACCOUNTING = 0.85, 1.03


def verdicts(results):
    """[{"target", "met": True, False or None (can't be judged on this machine), "text"}], in the order of the targets. What was not measured has none."""
    found = []
    add = lambda target, met, text: found.append({"target": target, "met": met if met is None else bool(met), "text": text})
    timed = results["timed"]
    for row, limit in CPU.items():
        for haproxy, by, whose in haproxies(results):
            compare(add, f"cpu: {row}{by}", f"of {whose}'s CPU", paired_ratios(timed.get(row, {}), NODE, haproxy), limit)
    behind(add, results)
    tails(add, timed)
    for row in timed:
        compare(add, f"all stages on: {row}", "of the bare chain's CPU", paired_ratios(timed[row], "stages", NODE), STAGES)
    for connections, by_relay in results["idle"].items():
        if by_relay.get(NODE):
            used = median(column(by_relay[NODE], "private"))
            add(f"idle: {connections} connections", used <= IDLE_BYTES, f"{used:,.0f} bytes each, at most {IDLE_BYTES}")
    for row, by_relay in results["flatness"].items():
        compare(add, f"flat in stages: {row}", "of one stage's CPU, with 16", paired_ratios(by_relay, "16 stages", "1 stage"), FLATNESS)
    workers(add, results)
    for row, by_relay in results["egress"].items():
        for haproxy, by, whose in haproxies(results):
            ratios = paired_ratios(by_relay, "egress-account", haproxy)
            compare(add, f"egress: {row}{by}", f"of transparent {whose}'s CPU, accounting on", ratios, EGRESS_OF_HAPROXY,
                    floor_of(by_relay, haproxy))
        compare(add, f"accounting: {row}", "of the CPU without", paired_ratios(by_relay, "egress-account", "egress-plain"), ACCOUNTING)
    counts(add, results["counts"].get(NODE, {}))
    return found


def haproxies(results):
    """Each that is judged by: its name, and how a target and its text name it."""
    for name in results.get("haproxies", [REFERENCE]):
        yield (name, "", "HAProxy") if name == REFERENCE else (name, f", by {name}", name)


def floor_of(by_relay, reference):
    """What the bare relay has, for those who wonder how much there is to be had."""
    ratios = paired_ratios(by_relay, "floor", reference)
    return f"; the floor has {median(ratios):.2f}" if ratios else ""


def compare(add, target, of_what, ratios, limit, more=""):
    if ratios:
        add(target, median(ratios) <= limit, f"{spread(ratios, digits=2)} {of_what}, at most {limit:.2f}{more}")


def peers(by_relay):
    return [name for name, rounds in by_relay.items() if rounds and name not in (NODE, "stages", "floor", NO_RELAY) and not name.startswith("egress-")]


def behind(add, results):
    """Every peer behind in every row, by CPU; a row in which one isn't is a miss of its own."""
    rows = {**results["timed"], **{f"egress {k}": v for k, v in results["egress"].items()}}
    ahead = 0
    for row, by_relay in rows.items():
        own = NODE if by_relay.get(NODE) else "egress-account"
        if not by_relay.get(own):
            continue
        for peer in peers(by_relay):
            ratios = paired_ratios(by_relay, own, peer)
            if ratios and median(ratios) > 1:
                add(f"ahead of {peer}: {row}", False, f"{spread(ratios, digits=2)} of its CPU")
            else:
                ahead += 1
    if ahead:
        add("ahead of the peers", True, f"less CPU in {ahead} comparisons; those in which it isn't are named above")


def tails(add, timed):
    for row in TAIL_ROWS:
        by_relay = timed.get(row, {})
        if not by_relay.get(NODE) or not peers(by_relay):
            continue
        best = min(peers(by_relay), key=lambda name: median(column(by_relay[name], "p99")))
        compare(add, f"p99: {row}", f"of {best}'s, the best peer", paired(by_relay, NODE, best, "p99"), TAIL)


def workers(add, results):
    cores = len(results["machine"].get("worker_cpus", [])) or 2
    for row, by_relay in results["workers"].items():
        one, two = by_relay.get(f"{NODE} 1"), by_relay.get(f"{NODE} 2")
        if not one or not two:
            continue
        scaling, bound, cost = worker_scaling(one, two, cores)
        # Where the load needs the second worker's core, the target can't be judged.
        if bound >= SECOND_WORKER:
            add(f"two workers: {row}", scaling >= SECOND_WORKER, f"{scaling:.2f} of one's rate, at least {SECOND_WORKER}")
        else:
            add(f"two workers: {row}", None,
                f"{scaling:.2f} of one's rate: relay and load together have {cores} cores, which leaves at most {bound:.2f}, so {SECOND_WORKER} "
                f"can't be seen here; each operation at {cost:.2f} of one's CPU, beside the load")


def counts(add, by_workload):
    for workload, what in (("short", "short connection"), ("rtt", "round trip")):
        calls = by_workload.get(workload, {}).get("allocations")
        if calls is None:
            continue
        made = total(calls, lambda k: not is_retain(k))
        add(f"allocations: {what}", made < 0.01, f"{made:.3f} for each, none")
        if "swift_retain" in calls:
            retains = total(calls, is_retain)
            add(f"retains and releases: {what}", retains < 0.05, f"{retains:.3f} for each, none")


def lines(found):
    width = max((len(v["target"]) for v in found), default=0)
    return [f"{STATES[v['met']].ljust(8)} {v['target'].ljust(width)}  {v['text']}" for v in found]
