"""Charts of a run as SVG, by hand: grouped bars of CPU by HAProxy's with their spread, and latencies. No dependency, and no script in
them; they follow the reader's light or dark mode."""
import math
from html import escape
from statistics import median

from .report import NO_RELAY, REFERENCE, column, paired_ratios

# Fills for light and for dark, by relay; what is not named here takes the last ones in turn.
COLOURS = {"pipelined": ("#0b6bcb", "#58a6ff"), "haproxy": ("#6e7781", "#8b949e"), "nginx": ("#2da44e", "#3fb950"),
           "envoy": ("#bf3989", "#db61a2"), "floor": ("#bc8c00", "#d29922"), "stages": ("#54aeff", "#1f6feb"),
           "direct": ("#8250df", "#a371f7"), "egress-plain": ("#54aeff", "#1f6feb"), "egress-account": ("#0b6bcb", "#58a6ff"),
           "egress-full": ("#033d8b", "#a5d6ff")}
OTHERS = [("#cf222e", "#f85149"), ("#9a6700", "#e3b341"), ("#1b7c83", "#39c5cf")]
WIDTH, LEFT, RIGHT, TOP, PLOT, BOTTOM = 1080, 72, 16, 72, 280, 74
RATIO_ROWS = [("short", "short, RST"), ("fin", "short, FIN"), ("paced", "3,000/s"), ("rtt-1-64", "rtt 1"), ("rtt-64-64", "rtt 64"),
              ("rtt-1000-64", "rtt 1,000"), ("rtt-64-4096", "rtt 64, 4 KiB"), ("download-4.bbr", "down 4, BBR"),
              ("upload-4.bbr", "up 4, BBR"), ("download-4.cubic", "down 4, CUBIC"), ("upload-4.cubic", "up 4, CUBIC")]
EGRESS_ROWS = [("short", "short, RST"), ("rtt-64-64", "round trip"), ("download-4", "bulk down"), ("upload-4", "bulk up")]
LATENCY_ROWS = [("paced", "short at 3,000/s"), ("rtt-1-64", "round trip, 1"), ("rtt-64-64", "round trip, 64"), ("rtt-1000-64", "round trip, 1,000")]


def write(results, folder):
    """Writes what there are figures for; returns the paths."""
    drawn = {
        "cpu.svg": ratios("CPU of each relay, by HAProxy's (less is better)", results["timed"], RATIO_ROWS, ()),
        "latency.svg": latencies("Latency: p50 as bars, p99 as lines above, µs, logarithmic", results["timed"], LATENCY_ROWS),
        "egress.svg": ratios("Intercepted connections: CPU by transparent HAProxy's", results["egress"], EGRESS_ROWS, ()),
    }
    paths = []
    for name, text in drawn.items():
        if text:
            paths.append(folder / name)
            paths[-1].write_text(text)
    return paths


def ratios(title, section, rows, without):
    """Grouped bars: the median ratio of each relay in each row, with a whisker from the least to the most."""
    groups = []
    for row, label in rows:
        bars = []
        for name in section.get(row, {}):
            values = [] if name in (NO_RELAY, *without) else paired_ratios(section[row], name)
            if values:
                bars.append((name, median(values), min(values), max(values)))
        if bars:
            groups.append((label, bars))
    if not groups:
        return None
    top = min(max(high for _, bars in groups for *_, high in bars), 2.5)
    top = math.ceil(top * 4) / 4
    scale = lambda value: min(value / top, 1)
    ticks = [(value, f"{value:g}") for value in (n * 0.25 for n in range(int(top * 4) + 1))]
    return chart(title, groups, scale, ticks, lambda value: f"{value:.2f}", top, strong=1.0)


def latencies(title, section, rows):
    """As bars up to the median p50, with a whisker up to the median p99."""
    groups = []
    for row, label in rows:
        bars = []
        for name, rounds in section.get(row, {}).items():
            if rounds:
                p50, p99 = (median(column(rounds, f)) for f in ("p50", "p99"))
                bars.append((name, p50, p50, p99))
        if bars:
            groups.append((label, bars))
    if not groups:
        return None
    low = 10 ** math.floor(math.log10(max(min(b[1] for _, bars in groups for b in bars), 1)))
    high = 10 ** math.ceil(math.log10(max(b[3] for _, bars in groups for b in bars)))
    scale = lambda value: min(max(math.log(max(value, low) / low) / math.log(high / low), 0), 1)
    powers = range(int(math.log10(low)), int(math.log10(high)) + 1)
    return chart(title, groups, scale, [(10 ** n, f"{10 ** n:,}") for n in powers], lambda value: f"{value:,.0f}", high)


def colour(name, names):
    unknown = [n for n in names if n not in COLOURS]
    return COLOURS.get(name) or OTHERS[unknown.index(name) % len(OTHERS)]


def chart(title, groups, scale, ticks, say, top, strong=None):
    """`groups`: [(label, [(relay, value, least, most)])]; `scale`: value to a share of the height; `strong`: a line to compare with."""
    names = list(dict.fromkeys(name for _, bars in groups for name, *_ in bars))
    y = lambda value: TOP + PLOT * (1 - scale(value))
    parts = [style(names), f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>', *legend(names)]
    for value, text in ticks:
        kind = "strong" if value == strong else "grid"
        parts.append(f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>')
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    for number, (label, bars) in enumerate(groups):
        start, width = LEFT + number * room + room * 0.09, room * 0.82 / len(bars)
        for place, bar in enumerate(bars):
            parts += draw(bar, names.index(bar[0]), start + place * width, width, y, say, bar[1] > top)
        parts.append(f'<text class="label" x="{LEFT + (number + 0.5) * room:.1f}" y="{TOP + PLOT + 20}" text-anchor="middle">{escape(label)}</text>')
    height = TOP + PLOT + BOTTOM - 40
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">\n'
            + "\n".join(parts) + "\n</svg>\n")


def draw(bar, number, x, width, y, say, is_cut):
    name, value, least, most = bar
    bottom, middle = TOP + PLOT, x + width / 2
    tip = f"{name}: {say(value)} ({say(least)}-{say(most)})"
    # What is higher than the chart says so; a whisker alone is cut.
    above = [f'<text class="tick" x="{middle:.1f}" y="{TOP - 4}" text-anchor="middle">{say(value)}</text>'] if is_cut else []
    return [
        *above,
        f'<rect class="s{number}" x="{x:.1f}" y="{y(value):.1f}" width="{max(width - 1.5, 1):.1f}" height="{bottom - y(value):.1f}">'
        f"<title>{escape(tip)}</title></rect>",
        f'<path class="whisker" d="M{middle:.1f} {y(least):.1f}V{y(most):.1f}M{middle - 2.5:.1f} {y(most):.1f}h5"/>']


def style(names):
    light = "".join(f".s{i}{{fill:{colour(n, names)[0]}}}" for i, n in enumerate(names))
    dark = "".join(f".s{i}{{fill:{colour(n, names)[1]}}}" for i, n in enumerate(names))
    return ("<style>text{font-family:system-ui,sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.label,.key{font-size:11px}"
            ".tick{font-size:11px;fill:#59636e}.grid{stroke:#d1d9e0;stroke-width:.6}.strong{stroke:#59636e;stroke-width:1.4}"
            f".whisker{{stroke:#1f2328;stroke-width:1;fill:none}}{light}"
            "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.tick{fill:#9198a1}.grid{stroke:#3d444d}.strong{stroke:#9198a1}"
            f".whisker{{stroke:#e6edf3}}{dark}}}</style>")


def legend(names):
    parts, x = [], LEFT
    for number, name in enumerate(names):
        parts.append(f'<rect class="s{number}" x="{x}" y="38" width="11" height="11"/>')
        parts.append(f'<text class="key" x="{x + 16}" y="48">{escape(name)}</text>')
        x += 34 + 7 * len(name)
    return parts
