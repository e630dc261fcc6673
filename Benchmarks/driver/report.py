"""Figures for people: medians with their range, and ratios to HAProxy; the targets that the node must meet."""
from statistics import median

REFERENCE = "haproxy"

# (workload, figure): what the node may use of what HAProxy uses, or in all.
TARGETS = {("short", "cpu_ns"): 0.95, ("download", "cpu_ns"): 0.70, ("upload", "cpu_ns"): 0.70}
IDLE_TARGET = 1024
# What all stages may cost over the bare chain, in CPU.
STAGES_TARGET = 1.05

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


def workload_table(workload, results, names):
    """One row a relay; `results`: {relay: [round]}."""
    shown = [f for f in ["cpu_ns", *workload.figures]]
    header = [workload.title]
    for figure in shown:
        title, operation, kib = FIGURES[figure]
        header.append(f"{title} {(kib if workload.unit == 'KiB' else operation)[0]}")
    header += ["of HAProxy", "core busy", "load CPU", "backend CPU"]
    rows = []
    for name in names:
        rounds = results.get(name)
        if not rounds:
            rows.append([name, "failed", *[""] * (len(header) - 2)])
            continue
        row = [name]
        for figure in shown:
            _, scale, digits = FIGURES[figure][2 if workload.unit == "KiB" else 1]
            row.append(spread(column(rounds, figure), scale, digits))
        row.append(ratio_text(results, name))
        row.append(f"{median(column(rounds, 'busy')) * 100:.0f}%")
        _, scale, digits = FIGURES["cpu_ns"][2 if workload.unit == "KiB" else 1]
        row += [f"{median(column(rounds, f)) * scale:.{digits}f}" for f in ("load_cpu_ns", "backend_cpu_ns")]
        rows.append(row)
    return table(header, rows)


def disturbance(results):
    """A line that says so if others used much of the two cores during a relay's rounds."""
    others = {name: median(column(rounds, "others")) for name, rounds in results.items() if rounds}
    worst = max(others.values(), default=0)
    return [f"note: something else used {worst * 100:.0f}% of a core during these rounds"] if worst > 0.15 else []


def paired_ratios(results, name, reference=REFERENCE):
    """The relay's CPU by the other's of the same round: what slows the machine for a moment mostly slows both."""
    return [a["cpu_ns"] / b["cpu_ns"] for a, b in zip(results.get(name) or [], results.get(reference) or []) if a and b]


def ratio_text(results, name):
    ratios = paired_ratios(results, name)
    return spread(ratios, digits=2) if ratios else "-"


def idle_table(results, names):
    header = ["idle connection", "private B", "Pss B", "of HAProxy", "process before, MiB"]
    rows = []
    reference = results.get(REFERENCE)
    for name in names:
        rounds = results.get(name)
        if not rounds:
            rows.append([name, "failed", "", "", ""])
            continue
        share = median(column(rounds, "private")) / median(column(reference, "private")) if reference else None
        rows.append([name, spread(column(rounds, "private"), digits=0), spread(column(rounds, "pss"), digits=0),
                     f"{share:.2f}" if share is not None else "-", f"{median(column(rounds, 'base')) / 2**20:.1f}"])
    return table(header, rows)


def counts_table(counts, names):
    """Calls for each operation: {relay: {workload: {"syscalls": {...}, "allocations": {...}, "how": …}}}"""
    header = ["calls for each", "short: syscalls", "allocations", "retain+release", "round trip: syscalls", "allocations", "retain+release"]
    rows = []
    for name in names:
        row = [name]
        for workload in ("short", "rtt"):
            one = counts.get(name, {}).get(workload, {})
            row.append(number(total(one.get("syscalls"))))
            calls = one.get("allocations")
            row.append(number(total(calls, lambda k: "retain" not in k and "release" not in k)))
            row.append(number(total(calls, lambda k: "retain" in k or "release" in k)) if calls and "swift_retain" in calls else "-")
        rows.append(row)
    return table(header, rows)


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


def verdicts(name, timed, idle, counts):
    """[(met, sentence)] of the node's targets."""
    result = []
    for (workload, figure), limit in TARGETS.items():
        ratios = paired_ratios(timed.get(workload, {}), name)
        if ratios:
            result.append((median(ratios) <= limit, f"{workload}: {median(ratios):.2f} of HAProxy's CPU, target at most {limit:.2f}"))
    for workload in timed:
        ratios = paired_ratios(timed[workload], "stages", name)
        if ratios:
            result.append((median(ratios) <= STAGES_TARGET,
                           f"{workload}: every stage on costs {median(ratios):.2f} of the bare chain, target at most {STAGES_TARGET:.2f}"))
    if idle.get(name):
        used = median(column(idle[name], "private"))
        result.append((used <= IDLE_TARGET, f"idle: {used:,.0f} bytes a connection, target at most {IDLE_TARGET:,}"))
    for workload in ("short", "rtt"):
        calls = counts.get(name, {}).get(workload, {}).get("allocations")
        if calls is not None:
            made = total(calls, lambda k: "release" not in k and "retain" not in k)
            result.append((made < 0.01, f"{workload}: {made:.2f} allocations for each, target none"))
    return result
