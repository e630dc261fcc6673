"""What quiet clients get beside greedy ones: one greedy source, or one greedy tenant of many sources, and nineteen who take little. Every relay
has the limits that its own documents advise. All of it over IPv4, where a source is a network of its own. The greedy run when the quiet leave
the load generator's CPU to them: elsewhere they would have one of their own, and what the quiet wait for is to be the relay."""
import json
import socket
import subprocess

from . import procs, relays
from .bench import Bench
from .procs import Failure

QUIET, GREEDY_SOURCE, GREEDY_TENANT = "127.1.0.1+19", "127.9.9.9", "127.20.0.1+200"
# kind: (connections at once, the server name that the greedy ask for)
FLOODS = {
    "silent": (10_000, "greedy"), "slow": (5_000, "greedy"), "short": (64, "greedy"), "garbage": (64, "greedy"),
    "slow-readers": (2_000, "greedy"), "stalled-uploads": (2_000, "greedy"), "tiny": (64, "greedy"), "dead": (500, "dead"),
}
SECONDS, RATE = 4, 400
TEMPLATES = {"haproxy": "haproxy-overload.cfg", "pipelined": "pipelined-overload.pipeline", "nginx": "nginx-overload.conf"}


class Silent:
    """A backend that answers no SYN: its queue is full."""

    def __init__(self, host):
        self._listener = socket.socket()
        self._listener.bind((host, 0))
        self._listener.listen(0)
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._waiting = []
        for _ in range(3):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(self._listener.getsockname())
            self._waiting.append(waiting)

    def close(self):
        for one in [*self._waiting, self._listener]:
            one.close()


def measure_overload(run):
    bench = Bench(run.tools, "127.0.0.1", {run.options.relay_cpu}, run.options.load_cpus)
    silent = Silent("127.0.0.1")
    templates = {**TEMPLATES, **{name: TEMPLATES["pipelined"] for name, _ in run.options.node}}
    chosen = [relay.with_template(templates[relay.name]) for relay in run.relays if relay.name in templates]
    places = {r.name: {"listen": bench.address(), "listen_bulk": bench.address(), "backend": bench.address_of(15_000 + 2 * number),
                       "greedy_backend": bench.address_of(15_001 + 2 * number), "dead_backend": silent.address, "directory": run.directory}
              for number, r in enumerate(chosen)}
    bench.start_backend({places[r.name]["backend"]: r.proxy for r in chosen}, 2)
    try:
        for who, source in (("nobody", None), ("source", GREEDY_SOURCE), ("tenant", GREEDY_TENANT)):
            for kind in run.options.floods if source else ["-"]:
                measure_row(run, bench, chosen, places, f"{who}: {kind}" if source else "nobody", kind, source)
    finally:
        procs.stop(bench.backend)
        silent.close()
    print(*table(run.overload, [r.name for r in chosen]), sep="\n", end="\n\n", flush=True)


def measure_row(run, bench, chosen, places, row, kind, source):
    """Rounds in turn; each time a relay that has just been started, so that no flood feels the one before."""
    results = run.overload.setdefault(row, {})
    for number in range(min(run.options.rounds, 3)):
        for relay in [*chosen[number % len(chosen):], *chosen[:number % len(chosen)]]:
            figures = run.attempt(f"{relay.name}, quiet beside {row}", lambda: once(bench, relay, places[relay.name], kind, source))
            if figures:
                results.setdefault(relay.name, []).append(figures)


def once(bench, relay, place, kind, source):
    running = relay.start(place, bench.relay_cpus)
    flood = None
    try:
        if source:
            connections, name = FLOODS[kind]
            flood = start(bench, ["short" if kind == "dead" else kind, "--connections", str(connections), "--source", source,
                                  "--sni", f"{name}.example.com"], running, idle=True, stdin=subprocess.PIPE)
            flood.stdout.readline()
        quiet = start(bench, ["quiet", "--seconds", str(SECONDS), "--rate", str(RATE), "--source", QUIET], running, stdin=subprocess.DEVNULL)
        out, errors = quiet.communicate(timeout=60)
        if quiet.returncode != 0:
            raise Failure(f"quiet: {errors.strip()}")
        if running.process.poll() is not None:
            raise Failure(f"it ended with status {running.process.returncode}")
        return json.loads(out)
    finally:
        if flood:
            procs.stop(flood)
        running.stop()


def start(bench, words, running, **options):
    return procs.start([bench.tools / "flood", *words, "--target", running.listen], bench.load_cpus, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True, **options)


def median(rounds, value):
    return sorted(map(value, rounds))[len(rounds) // 2]


def figures(rounds):
    """Of the rounds of one relay: share of good connects, p99 in ms, and streams that were refused or reset."""
    return (median(rounds, lambda r: 100 * r["good"] / r["tried"]), median(rounds, lambda r: r["p99_us"] / 1000),
            median(rounds, lambda r: r["streams_refused"] + r["streams_reset"]))


def table(rows, names):
    yield f"{'19 quiet sources beside':28}" + "".join(f"{n:>34}" for n in names)
    for row, results in rows.items():
        cells = (f"{'%.1f %%, p99 %.1f ms, %d streams' % figures(results[n]) if n in results else 'failed':>34}" for n in names)
        yield f"{row:28}" + "".join(cells)
