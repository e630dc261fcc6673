"""Which rounds of a row a slowed machine has spoiled. The load generator and the backend do the same work for each operation whatever the
relay's figure is, so what they take for it is a yardstick of the machine that the relay's own CPU has no part in."""
from dataclasses import dataclass

# Over a relay's least. A neighbour on the host makes everything cost a quarter more or so, for a second or a few; undisturbed rounds of
# connections and messages lie within a tenth.
SLOWED = 1.12
# How many bytes a call moves changes from round to round by itself.
SLOWED_BULK = 1.20
# How often a relay's turn is taken again at once, if it fell on a slowed machine.
MOST_AGAIN = 2
# Fewer rounds than these say too little for any to be left out.
LEAST_KEPT = 3


@dataclass(frozen=True)
class Sifted:
    kept: dict      # {relay: [round]}
    left_out: dict  # the same
    about: dict     # {"measured", "slowed": [numbers, from 1], "left_out": how many, "again": turns that were taken again}


def limit(workload):
    return SLOWED_BULK if workload.unit == "KiB" else SLOWED


def around(figures):
    return figures["load_cpu_ns"] + figures["backend_cpu_ns"]


def everything(figures):
    return around(figures) + figures["cpu_ns"]


def above_least(rounds, figure, limit):
    """Numbers of the rounds, from 0, in which `figure` is more than `limit` of the least of them."""
    values = [figure(r) for r in rounds]
    return {number for number, value in enumerate(values) if value > limit * min(values)}


def is_slowed(figures, earlier, limit):
    """Whether one relay's turn fell on a slowed machine, by its own earlier ones."""
    return bool(earlier) and all(f(figures) > limit * min(f(r) for r in earlier) for f in (around, everything))


def slowed(results, limit):
    """Numbers of the rounds, from 0, in which some relay met a slowed machine.

    On loopback who sends does some of the receiver's work, and bulk may go by fewer and larger calls on one side: work then moves between the
    relay and the load, and the load's part is high where the relay's is low. That is no slowed machine, and rounds chosen by it would be chosen
    by the relay's figure. So all of them together must have taken more too: the relay's figure can keep a round, and never condemn one."""
    return {n for rounds in results.values() for n in above_least(rounds, around, limit) & above_least(rounds, everything, limit)}


def wants_more(results, measured, wanted, limit):
    """Whether another round is due: one of those wanted, or one for a slowed one, as long as these are no more than the wanted."""
    return measured < wanted or (measured < 2 * wanted and measured - len(slowed(results, limit)) < wanted)


def fewest(wanted):
    return min(wanted, max(LEAST_KEPT, (wanted + 1) // 2))


def sift(results, measured, wanted, limit, again=None):
    """Leaves the slowed rounds out, for all relays alike so that those of one round stay together; or none, if too few would remain.
    `again`, {relay: [figures]}: of turns that were taken again, and are left out as well."""
    found = slowed(results, limit)
    out = found if measured - len(found) >= fewest(wanted) else set()
    pick = lambda is_wanted: {name: [r for n, r in enumerate(rounds) if is_wanted(n)] for name, rounds in results.items()}
    again = again or {}
    about = {"measured": measured, "slowed": sorted(n + 1 for n in found), "left_out": len(out), "again": sum(map(len, again.values()))}
    left_out = {name: rounds + again.get(name, []) for name, rounds in pick(lambda n: n in out).items()}
    return Sifted(pick(lambda n: n not in out), left_out if out or about["again"] else {}, about)


def was_never(about):
    return len(about["slowed"]) > about["left_out"]


def text(about):
    again = about.get("again", 0)
    rounds = f"{about['measured']} rounds measured" + (f", {again} turn(s) in them taken again on a quieter machine" if again else "")
    if was_never(about):
        return f"{rounds}, {len(about['slowed'])} of them on a slowed machine, which was never quiet: all are kept"
    return f"{rounds}, {about['left_out']} left out" + (" because the machine was slowed" if about["left_out"] else "")
