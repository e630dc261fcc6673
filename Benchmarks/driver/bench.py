"""One backend, one load generator at a time, and how a round becomes figures."""
import json
import subprocess
import time

from . import measure, procs
from .procs import Failure
from .workloads import idle_command, target


class Bench:
    """The load's side of the machine. `inside` are words before the load generator and the backend: another network namespace."""

    def __init__(self, tools, host, relay_cpus, load_cpus, inside_client=(), inside_server=()):
        self.tools, self.host, self.relay_cpus, self.load_cpus = tools, host, relay_cpus, load_cpus
        self.inside_client, self.inside_server = list(inside_client), list(inside_server)
        # A core that the load uses too has a softirq thread that works for both: it is nobody's.
        self.softirqds = [d for d in map(measure.softirq_daemon, sorted(relay_cpus - load_cpus)) if d]
        self.ports = set()
        self.backend = None

    def address(self):
        return self.address_of(procs.free_port(self.host, self.ports))

    def address_of(self, port):
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    def start_backend(self, doors, ports=1):
        """`doors`: {address: what PROXY header it expects}; one each relay, so that none meets another's TIME_WAIT. `ports`: how many each
        is, from that one on."""
        command = [*self.inside_server, self.tools / "backend", *(f"{address}+{ports}={proxy}" for address, proxy in doors.items())]
        self.backend = procs.start(command, self.load_cpus, stdin=subprocess.DEVNULL)
        for address in doors:
            host, first = procs.split(address)
            procs.wait_until_listening(f"{host}:{first + ports - 1}", self.backend, "the backend")

    def load_command(self, target, arguments, proxied=True):
        return [*self.inside_client, self.tools / "loadgen", *arguments, "--target", target, *(["--proxied"] if proxied else [])]

    def load(self, target, arguments, proxied=True):
        """Runs the load generator; returns its report. Raises Failure if any connection failed or any answer was wrong."""
        process = procs.start(self.load_command(target, arguments, proxied), self.load_cpus, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, errors = process.communicate(timeout=180)
        except subprocess.TimeoutExpired:
            raise Failure(f"{arguments[0]}: not over after 180 s") from None
        finally:
            procs.stop(process)
        if process.returncode != 0:
            said = "; ".join(errors.strip().splitlines()[:4]) or "no message"
            report = json.loads(out) if out.startswith("{") else {}
            failures = f"{report['failures']} failures: " if "failures" in report else ""
            raise Failure(f"{arguments[0]}: {failures}{said}")
        return json.loads(out)

    def relay_cpu_ns(self, relay):
        """The relay's CPU and, since nothing else runs on its core, that of the core's softirq thread. 0 for no relay at all."""
        if relay.pid is None:
            return 0
        return measure.cpu_ns(relay.pid) + sum(map(measure.cpu_ns, self.softirqds))

    def round(self, relay, workload):
        """One timed round: {figure: value}."""
        read = lambda: self.relay_cpu_ns(relay)
        cores = self.relay_cpus | self.load_cpus
        before, backend_before = measure.settled_cpu_ns(read), measure.cpu_ns(self.backend.pid)
        begin, busy_before = time.monotonic(), measure.busy_ns(cores)
        report = self.load(target(relay, workload), workload.arguments, relay.is_proxied)
        wall, busy = time.monotonic() - begin, measure.busy_ns(cores) - busy_before
        used = measure.settled_cpu_ns(read) - before
        backend_used = measure.cpu_ns(self.backend.pid) - backend_before
        others = max(busy / 1e9 - used / 1e9 - report["own_cpu_s"] - backend_used / 1e9, 0) / wall
        count = report["bytes"] / 1024 if workload.unit == "KiB" else report["operations"]
        return {
            "cpu_ns": used / count, "load_cpu_ns": report["own_cpu_s"] * 1e9 / count, "backend_cpu_ns": backend_used / count,
            "others": others, "busy": used / 1e9 / report["seconds"], "rate": report["operations"] / report["seconds"],
            "throughput": report["bytes"] / report["seconds"] / 1e9, "p50": report["p50_us"], "p99": report["p99_us"],
        }

    def idle_memory(self, relay, connections):
        """Bytes for each of `connections` that are open and silent, over a warmed-up relay: user-space memory of the relay, and kernel
        objects of everybody (the load generator's and the backend's sockets too: all that there is without a relay)."""
        self.load(relay.listen, ["short", "--connections", "500", "--concurrent", "16"], relay.is_proxied)
        before, slab = measure.memory(relay.pid), measure.slab()
        holder = procs.start(self.load_command(relay.listen, idle_command(connections), relay.is_proxied), self.load_cpus,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            ready = holder.stdout.readline()
            if ready != f"ready {connections}\n":
                _, errors = holder.communicate(input="", timeout=30)
                raise Failure(f"idle: {ready.strip() or 'no answer'}, expected ready {connections}: {errors.strip()}")
            during, slab_during = measure.memory(relay.pid), measure.slab()
            out, errors = holder.communicate(input="", timeout=30)
            if holder.returncode != 0:
                raise Failure(f"idle: {errors.strip()}")
        finally:
            procs.stop(holder)
        return {"private": (during["private"] - before["private"]) / connections,
                "pss": (during["pss"] - before["pss"]) / connections, "base": before["private"], "slab": (slab_during - slab) / connections}
