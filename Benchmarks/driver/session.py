"""One run of the benchmark: its relays, their places, what came out, and the rounds in which they take turns."""
import sys

from . import envoy, machine, quiet, relays, report
from .bench import Bench
from .procs import Failure
from .workloads import target

FULL_ONLY_WHERE_MAIN = "stages"  # compared with `pipelined`, in the main rows


class Run:
    def __init__(self, options, directory, root):
        self.options, self.directory = options, str(directory)
        self.tools = root / ".build/bench"
        self.host = "::1" if options.family == "6" else "127.0.0.1"
        self.bench = Bench(self.tools, self.host, {options.relay_cpu}, options.load_cpus)
        self.failures, self.notes, self.versions = [], [], {}
        # {workload: {relay: [round]}}, by section; and what is no timed row.
        self.sections = {"timed": {}, "workers": {}, "egress": {}, "flatness": {}, "envs": {}}
        # By section and workload: rounds that a slowed machine spoiled, and how many there were.
        self.left_out, self.rounds_about = ({name: {} for name in self.sections} for _ in range(2))
        self.titles = {}
        self.worker_cpus = []
        self.idle, self.counts, self.instructions, self.overload, self.many_names = {}, {}, {}, {}, {}
        self.relays = self._choose()
        self.places = {r.name: self.place() for r in self.relays}

    @property
    def names(self):
        return [r.name for r in self.relays]

    @property
    def haproxies(self):
        return [n for n in self.names if n == report.REFERENCE or n in dict(self.options.haproxy)]

    def place(self):
        return {"listen": self.bench.address(), "listen_bulk": self.bench.address(), "backend": self.bench.address(),
                "directory": self.directory}

    def own_place(self, relay):
        """A second address for a relay that is started beside the timed ones."""
        return {**self.places[relay.name], "listen": self.bench.address(), "listen_bulk": self.bench.address()}

    def _choose(self):
        known = relays.all_relays(self.tools, self.options.pipelined, self.options.haproxy, self.options.node)
        only = self.options.only.split(",") if self.options.only else [r.name for r in known]
        unknown = set(only) - {r.name for r in known}
        if unknown:
            raise Failure(f"--only: no relay {', '.join(sorted(unknown))}; there are {', '.join(r.name for r in known)}")
        why_no_envoy = envoy.missing(self.tools) if "envoy" in only else None
        chosen = []
        for relay in known:
            if relay.name not in only and relay.name not in dict([*self.options.haproxy, *self.options.node]):
                continue
            why = why_no_envoy if relay.name == "envoy" and why_no_envoy else relay.missing()
            if why:
                hint = {self.options.pipelined: " (make build)"}.get(relay.program, "" if relay.name == "envoy" else " (make deps)")
                self.note(f"skipped: {relay.name}: {relay.program or relay.name} {why}{hint}")
                continue
            self.versions[relay.name] = relay.version()
            chosen.append(relay)
        if not chosen:
            raise Failure("nothing to compare: no relay is installed")
        return chosen

    def note(self, line):
        self.notes.append(line)
        print(line, flush=True)

    def wants(self, group):
        return not self.options.workloads or group in self.options.workloads

    def wants_targets(self, group):
        """Sections that have targets are also wanted by `--workloads main`."""
        return self.wants(group) or "main" in self.options.workloads

    def failed(self, name, failure):
        line = f"FAILED: {name}: {failure}"
        self.failures.append(line)
        print(line, flush=True)

    def attempt(self, name, action):
        """`action()`, or None and a failure on record: a broken relay must not look fast, nor stop the others."""
        try:
            return action()
        except Failure as failure:
            self.failed(name, failure)
            return None

    def start_all(self):
        self.bench.start_backend({self.places[r.name]["backend"]: r.proxy for r in self.relays})
        return self.start(self.relays, self.places, self.bench)

    def start(self, chosen, places, bench):
        """{name: a started relay}; those that don't start are failures."""
        running = {}
        for relay in chosen:
            started = self.attempt(relay.name, lambda: relay.start(places[relay.name], bench.relay_cpus))
            if started:
                running[relay.name] = started
        return running

    def time(self, section, bench, running, rows, small_rows, reference=report.REFERENCE):
        """Every relay in turn, round after round. `small_rows`: the same, tiny, to warm up with."""
        warm = {w.name: w for w in small_rows}
        for workload in rows:
            if workload.congestion:
                self.change_congestion(workload.congestion, bench, running)
            names = [n for n in running if n != FULL_ONLY_WHERE_MAIN or workload.is_main or section != "timed"]
            sifted = self.rounds(f"{section} {workload.name}", bench, {n: running[n] for n in names}, workload, warm[workload.name])
            self.sections[section][workload.name] = sifted.kept
            self.rounds_about[section][workload.name] = sifted.about
            if sifted.left_out:
                self.left_out[section][workload.name] = sifted.left_out
            self.titles[workload.name] = workload.title
            print(report.workload_table(workload, sifted.kept, names, reference), quiet.text(sifted.about), *report.disturbance(sifted.kept),
                  sep="\n", end="\n\n", flush=True)

    def change_congestion(self, wanted, bench, running):
        """Relays begin anew: sockets that they keep for later would have the congestion control of the rows before."""
        if wanted == machine.congestion():
            return
        machine.set_congestion(wanted)
        for relay in running.values():
            relay.stop()
        begun = self.start([relay.relay for relay in running.values()], self.places, bench)
        running.clear()
        running.update(begun)

    def rounds(self, label, bench, running, workload, warm):
        """Rounds until enough of them are quiet, and what is kept of them."""
        results, again = {name: [] for name in running}, {}
        first = lambda relay: bench.load(target(relay, warm), warm.arguments, relay.is_proxied)
        broken = {n for n, r in running.items() if self.attempt(n, lambda: first(r)) is None}
        wanted, limit, measured = self.options.rounds * workload.times, quiet.limit(workload), 0
        while quiet.wants_more(results, measured, wanted, limit):
            self.round(f"{label}, round {measured + 1} of {max(measured + 1, wanted)}", bench, running, workload, results, broken, measured, again)
            measured += 1
        progress("")
        return quiet.sift(results, measured, wanted, limit, again)

    def round(self, label, bench, running, workload, results, broken, number, again):
        """Adds a round to `results`, {name: [figures of a round]}. The first of a round changes, so that none always follows the same. What a
        slowed machine spoiled is measured again at once, and goes to `again`."""
        for name in turned([n for n in running if n not in broken], number):
            progress(f"{label}: {name}")
            take = lambda: self.attempt(f"{name}, {workload.title}", lambda: bench.round(running[name], workload))
            figures, times = take(), 0
            while figures and times < quiet.MOST_AGAIN and quiet.is_slowed(figures, results[name], quiet.limit(workload)):
                again.setdefault(name, []).append(figures)
                figures, times = take(), times + 1
            if figures is None:
                broken.add(name)
                results[name] = []
            else:
                results[name].append(figures)

    def measure_idle(self, connections):
        """Each time a relay that has just been started: memory that an earlier peak left would hide the growth."""
        results = self.idle.setdefault(str(connections), {})
        for number in range(min(self.options.rounds, 3)):
            for name in turned(self.names, number):
                progress(f"idle, {connections}: {name}")
                relay = next(r for r in self.relays if r.name == name)
                figures = self.attempt(f"{name}, {connections} idle connections", lambda: self.idle_of(relay, connections))
                if figures:
                    results.setdefault(name, []).append(figures)
        progress("")
        print(report.idle_table(connections, results, self.names), end="\n\n", flush=True)

    def idle_of(self, relay, connections):
        running = relay.start(self.own_place(relay), self.bench.relay_cpus)
        try:
            return self.bench.idle_memory(running, connections)
        finally:
            running.stop()

    def results(self, about):
        return {"machine": {**about, "worker_cpus": self.worker_cpus}, "versions": self.versions, "haproxies": self.haproxies, "notes": self.notes,
                "titles": self.titles, **self.sections, "rounds": self.rounds_about, "left_out": self.left_out,
                "idle": self.idle, "counts": self.counts, "instructions": self.instructions, "quiet": self.overload, "names": self.many_names, "failures": self.failures}


def turned(names, number):
    start = number % max(len(names), 1)
    return names[start:] + names[:start]


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
