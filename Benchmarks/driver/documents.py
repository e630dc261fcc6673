"""A run into the docs: docs/benchmarks/ has its charts, and docs/BENCHMARKS.md between two marks what they come to."""
from statistics import median

from . import charts, names, quiet
from .report import FIGURES, NO_RELAY, REFERENCE, column, is_retain, kernel_text, number, paired_ratios, total

BEGIN, END = "<!-- latest run: written by Benchmarks/run --write-docs -->", "<!-- end of the latest run -->"
ALT = {"cpu.svg": "CPU of each relay by HAProxy's", "latency.svg": "p50 and p99 of each relay",
       "egress.svg": "CPU of the egress node's variants by transparent HAProxy's"}


def write(results, root):
    """Returns the paths that were written. Raises OSError, or ValueError if the page has lost its marks."""
    folder, page = root / "docs/benchmarks", root / "docs/BENCHMARKS.md"
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: no lines '{BEGIN}' and '{END}' to write between")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = charts.write(results, folder)
    images = "\n\n".join(f"![{ALT[path.name]}](benchmarks/{path.name})" for path in drawn)
    body = "\n\n".join(part for part in (about(results), images, verdict_table(results), *tables(results)) if part)
    page.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")
    return [*drawn, page]


def about(results):
    m = results["machine"]
    versions = ", ".join(f"{n} {v.removeprefix('pipelined ').removeprefix('version ')}" for n, v in results["versions"].items() if v != "this repository")
    lines = [f"{m['date'][:10]}, Linux {m['kernel']}, {m['cores']} cores of {m['cpu']}, IPv{m['ip_version']}; relay on core {m['relay_cpu']}, load on "
             f"{', '.join(map(str, m['load_cpus']))}; {m['rounds']} rounds of size {m['size']:g}; congestion control {m['congestion']} where a row names "
             f"none; load average {m['load_average'][0]} at the start. {versions}."]
    lines += [f"**{note}**" for note in results["notes"] + results["failures"]]
    lines.append("Medians (least-most).")
    return "\n\n".join(lines)


def markdown(header, rows):
    line = lambda cells: "| " + " | ".join(str(c) for c in cells) + " |"
    return "\n".join([line(header), line(["---", *["--:"] * (len(header) - 1)]), *map(line, rows)])


def verdict_table(results):
    rows = [[v["target"], {True: "met", False: "**missed**", None: "unjudged"}[v["met"]], v["text"]] for v in results["verdicts"]]
    if not rows:
        return ""
    return "### Targets\n\n" + markdown(["target", "", "measured"], rows).replace("| --: | --: |", "| --- | --- |")


def tables(results):
    yield section("Ingress: CPU", "CPU for each connection, round trip or KiB; in brackets by HAProxy's", results, "timed", cpu)
    yield section("Ingress: p50 / p99, µs", None, results, "timed", latency)
    yield section("Ingress: throughput, GB/s", None, results, "timed", throughput)
    yield rounds(results, "Ingress", "timed")
    yield section("1,000 envs: CPU", "Short connections, each for one of 1,000 names with a backend of its own; the floor has one backend", results,
                  "envs", cpu)
    yield section("1,000 envs: p50 / p99, µs", None, results, "envs", latency)
    yield rounds(results, "1,000 envs", "envs")
    yield section("Egress: CPU", "HAProxy is in transparent mode here", results, "egress", cpu)
    yield rounds(results, "Egress", "egress")
    yield section("One and two workers: rate", None, results, "workers", rate)
    yield rounds(results, "Workers", "workers")
    yield section("Stages that never act: CPU", "In brackets by one stage's", results, "flatness",
                  lambda by, n, unit: cpu(by, n, unit, "1 stage"))
    yield rounds(results, "Stages", "flatness")
    yield idle(results)
    yield many_names(results)
    yield counts(results)
    yield instructions(results)


def section(title, text, results, key, cell):
    """A row a workload, a column a relay; rows in which `cell` says nothing are left out."""
    names = list(dict.fromkeys(n for by in results.get(key, {}).values() for n in by))
    rows = []
    for workload, by_relay in results.get(key, {}).items():
        unit = "KiB" if workload.startswith(("download", "upload")) else "operation"
        cells = [cell(by_relay, name, unit) if by_relay.get(name) else "" for name in names]
        if any(cells):
            rows.append([results["titles"].get(workload, workload), *cells])
    if not rows:
        return ""
    used = [i for i in range(len(names)) if any(row[i + 1] for row in rows)]
    table = markdown(["", *(names[i] for i in used)], [[row[0], *(row[i + 1] for i in used)] for row in rows])
    return f"### {title}\n\n" + (f"{text}.\n\n" if text else "") + table


def rounds(results, what, key):
    """How many there were, row by row where it is not the same in all. Figures of an earlier run don't say."""
    by_text = {}
    for workload, about in results.get("rounds", {}).get(key, {}).items():
        by_text.setdefault(quiet.text(about), []).append(results["titles"].get(workload, workload))
    if len(by_text) == 1:
        return f"{what}, each row: {next(iter(by_text))}."
    return "\n".join([f"{what}:\n", *(f"- {'; '.join(rows)}: {text}" for text, rows in by_text.items())]) if by_text else ""


def cpu(by_relay, name, unit, reference=REFERENCE):
    if name == NO_RELAY:
        return ""
    text, scale, digits = FIGURES["cpu_ns"][2 if unit == "KiB" else 1]
    found = f"{median(column(by_relay[name], 'cpu_ns')) * scale:,.{digits}f} {text}"
    ratios = paired_ratios(by_relay, name, reference)
    return f"{found} ({median(ratios):.2f})" if ratios and name != reference else found


def latency(by_relay, name, unit):
    if unit == "KiB":
        return ""
    return " / ".join(f"{median(column(by_relay[name], f)):,.0f}" for f in ("p50", "p99"))


def throughput(by_relay, name, unit):
    return f"{median(column(by_relay[name], 'throughput')):.2f}" if unit == "KiB" else ""


def rate(by_relay, name, unit):
    return f"{median(column(by_relay[name], 'rate')):,.0f}/s"


def idle(results):
    names = list(dict.fromkeys(n for by in results["idle"].values() for n in by if n != NO_RELAY))
    rows = []
    for count, by in results["idle"].items():
        rows.append([f"{int(count):,} connections", *(f"{median(column(by[n], 'private')):,.0f}" if by.get(n) else "" for n in names)])
        rows.append([f"{int(count):,}, in the kernel", *(kernel_text(by, n) for n in names)])
    return "### Idle: bytes of memory for each\n\n" + markdown(["", *names], rows) if rows else ""


def many_names(results):
    """Figures of an earlier run don't have it."""
    rows = [names.row(name, found) for name, found in results.get("names", {}).items()]
    return f"### {names.COUNT:,} names\n\n" + markdown(names.HEADER, rows) if rows else ""


def counts(results):
    rows = []
    for name, by in results["counts"].items():
        row = [name]
        for workload in ("short", "rtt"):
            one = by.get(workload, {})
            calls = one.get("allocations")
            has_swift = calls and "swift_retain" in calls
            row += [number(total(one.get("syscalls"))), number((one.get("switches") or {}).get("slept")), number(total(calls, lambda k: not is_retain(k))),
                    number(total(calls, is_retain)) if has_swift else "-"]
        rows.append(row)
    header = ["", *(f"{kind}: {what}" for kind in ("short", "round trip") for what in ("system calls", "sleeps", "allocations", "retains and releases"))]
    return "### Calls for each\n\n" + markdown(header, rows) if rows else ""


def instructions(results):
    rows = [[name, f"{value:,.0f}"] for name, value in results["instructions"].items()]
    return "### Instructions for each, by callgrind\n\n" + markdown(["", "instructions"], rows) if rows else ""
