"""Figures for people: medians with their range, and ratios to HAProxy."""
from statistics import median

REFERENCE = "haproxy"
NO_RELAY = "direct"

FIGURES = {
    # figure: (title, unit and scale for "operation", for "KiB", digits, what a smaller value is)
    "cpu_ns": ("CPU", ("µs", 1e-3, 1), ("ns/KiB", 1, 0)),
    "rate": ("rate", ("/s", 1, 0), None),
    "p50": ("p50", ("µs", 1, 0), None),
    "p99": ("p99", ("µs", 1, 0), None),
    "throughput": ("throughput", None, ("GB/s", 1, 2)),
}


def spread(values, scale=1.0, digits=1):
    """'median (least-most)'"""
    low, mid, high = (f"{v * scale:,.{digits}f}" for v in (min(values), median(values), max(values)))
    return f"{mid} ({low}-{high})"


def table(header, rows):
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    line = lambda row: "  ".join(str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, rows)])


def column(rounds, figure):
    return [r[figure] for r in rounds]


def cell(rounds, figure, unit):
    _, scale, digits = FIGURES[figure][2 if unit == "KiB" else 1]
    return spread(column(rounds, figure), scale, digits)


def workload_table(workload, results, names, reference=REFERENCE):
    """One row a relay; `results`: {relay: [round]}."""
    shown = ["cpu_ns", *workload.figures]
    header = [workload.title]
    for figure in shown:
        title, operation, kib = FIGURES[figure]
        header.append(f"{title} {(kib if workload.unit == 'KiB' else operation)[0]}")
    header += [f"of {'HAProxy' if reference == REFERENCE else reference}", "core busy", "load CPU", "backend CPU"]
    rows = []
    for name in names:
        rounds = results.get(name)
        if not rounds:
            rows.append([name, "failed", *[""] * (len(header) - 2)])
            continue
        _, scale, digits = FIGURES["cpu_ns"][2 if workload.unit == "KiB" else 1]
        own = [cell(rounds, figure, workload.unit) for figure in shown]
        around = [f"{median(column(rounds, f)) * scale:.{digits}f}" for f in ("load_cpu_ns", "backend_cpu_ns")]
        if name == NO_RELAY:
            rows.append([name, "-", *own[1:], "-", "-", *around])
        else:
            busy = f"{median(column(rounds, 'busy')) * 100:.0f}%"
            rows.append([name, *own, ratio_text(results, name, reference), busy, *around])
    return table(header, rows)


def disturbance(results):
    """A line that says so if others used much of the two cores during a relay's rounds."""
    others = {name: median(column(rounds, "others")) for name, rounds in results.items() if rounds}
    worst = max(others.values(), default=0)
    return [f"note: something else used {worst * 100:.0f}% of a core during these rounds"] if worst > 0.15 else []


def paired_ratios(results, name, reference=REFERENCE):
    """The relay's CPU by the other's of the same round: what slows the machine for a moment mostly slows both."""
    return paired(results, name, reference, "cpu_ns")


def paired(results, name, reference, figure):
    pairs = zip(results.get(name) or [], results.get(reference) or [])
    return [a[figure] / b[figure] for a, b in pairs if a[figure] and b[figure]]


def ratio_text(results, name, reference=REFERENCE):
    ratios = paired_ratios(results, name, reference)
    return spread(ratios, digits=2) if ratios else "-"


def idle_table(connections, results, names):
    header = [f"{connections:,} idle connections", "private B", "Pss B", "of HAProxy", "kernel B", "process before, MiB"]
    rows = []
    reference = results.get(REFERENCE)
    for name in [n for n in names if n != NO_RELAY]:
        rounds = results.get(name)
        if not rounds:
            rows.append([name, "failed", "", "", "", ""])
            continue
        share = median(column(rounds, "private")) / median(column(reference, "private")) if reference else None
        rows.append([name, spread(column(rounds, "private"), digits=0), spread(column(rounds, "pss"), digits=0),
                     f"{share:.2f}" if share is not None else "-", kernel_text(results, name), f"{median(column(rounds, 'base')) / 2**20:.1f}"])
    return table(header, rows)


def kernel_text(results, name):
    """Kernel objects of the relay alone: what all sides have, less what they have without a relay."""
    rounds, without = results.get(name), results.get(NO_RELAY)
    if not rounds or not without:
        return "-"
    return f"{median(column(rounds, 'slab')) - median(column(without, 'slab')):,.0f}"


def is_retain(name):
    return "retain" in name or "release" in name


def counts_table(counts, names):
    """Calls for each operation: {relay: {workload: {"syscalls": {...}, "switches": {...}, "allocations": {...}, "how": …}}}"""
    shown = ("syscalls", "sleeps", "preempted", "allocations", "retain+release")
    header = ["calls for each", *(f"short: {shown[0]}", *shown[1:]), *(f"round trip: {shown[0]}", *shown[1:])]
    rows = []
    for name in names:
        row = [name]
        for workload in ("short", "rtt"):
            one = counts[name].get(workload, {})
            calls, switches = one.get("allocations"), one.get("switches") or {}
            row += [number(total(one.get("syscalls"))), number(switches.get("slept")), number(switches.get("preempted")),
                    number(total(calls, lambda k: not is_retain(k))),
                    number(total(calls, is_retain)) if calls and "swift_retain" in calls else "-"]
        rows.append(row)
    return table(header, rows)


def worker_lines(title, results, cores):
    """How much two workers do of what one does, and what the machine allows at most: the load generator and the backend need
    cores too."""
    lines = []
    for name in ("haproxy", "pipelined"):
        one, two = results.get(f"{name} 1"), results.get(f"{name} 2")
        if one and two:
            scaling, bound, cost = worker_scaling(one, two, len(cores))
            lines.append(f"{title}: {name} with two workers does {scaling:.2f} of one's rate, at {cost:.2f} of its CPU for each; "
                         f"{len(cores)} cores for relay, load and backend allow at most {bound:.2f}")
    return lines


def worker_scaling(one, two, cores):
    """(rate of two workers by that of one; the same at most, with all `cores` busy all of the time; CPU for each by one's)"""
    rate, cost = median(column(one, "rate")), median(column(one, "cpu_ns"))
    each = median([r["cpu_ns"] + r["load_cpu_ns"] + r["backend_cpu_ns"] for r in two])
    capacity = max(rate, 1e9 / cost)  # of one worker that has its core to itself
    return median(column(two, "rate")) / rate, min(2.0, cores * 1e9 / each / capacity), median(column(two, "cpu_ns")) / cost


def total(calls, wanted=lambda _: True):
    return None if calls is None else sum(v for k, v in calls.items() if wanted(k))


def number(value):
    return "n/a" if value is None else f"{value:.2f}"


def syscall_lines(counts, names, workload="short"):
    """Which calls they are, for those that one connection makes at least once in a hundred."""
    lines = []
    for name in names:
        calls = counts.get(name, {}).get(workload, {}).get("syscalls")
        if calls:
            listed = sorted(((v, k) for k, v in calls.items() if v >= 0.01), reverse=True)
            lines.append(f"  {name}: " + ", ".join(f"{k} {v:.2f}" for v, k in listed))
    return lines
