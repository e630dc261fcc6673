"""Intercepted connections: the node against HAProxy in transparent mode, under the same TPROXY rules.

    client 2001:db8:1::2 ─ vm0 ─ this namespace, the relays ─ up0 ─ server 2001:db8:9::2

Client and server are network namespaces without names, held by a process each: when the run ends, however it ends, they are gone. Nothing
is forwarded: what gets through went through a relay. Each relay has two ports of the server's, and the rules bring those to it."""
import json
import os
import subprocess
import time
from pathlib import Path

from . import machine, procs, relays, sections, workloads
from .bench import Bench
from .procs import Failure

CLIENT, SERVER = "2001:db8:1::2", "2001:db8:9::2"
MARK, TABLE = 0x6265, 25189
RULES = """
table inet bench {{
    chain to_sockets {{
        type filter hook prerouting priority mangle; policy accept;
        meta l4proto != tcp return
        socket transparent 1 socket wildcard 0 meta mark set {mark} accept
        iifname != "vm0" return
        {doors}
    }}
}}
"""
VARIANTS = ("egress-plain", "egress-account", "egress-full")
# Ports of the server, two a relay: for connections and messages, and for bulk.
FIRST_DOOR = 8001


def obstacle():
    """Why there can be no egress rows here; None: there can."""
    if not machine.is_own_network():
        return "needs a network namespace of its own (root)"
    for program in ("ip", "nft", "nsenter", "unshare"):
        if not relays.find(program):
            return f"{program} is missing (make deps)"
    return None


class Lab:
    """The two namespaces beside ours, their links, and the rules. Raises Failure if the kernel gives any of it not."""

    def __init__(self, cpus):
        self.holders = [self._hold(cpus) for _ in range(2)]
        client, server = (h.pid for h in self.holders)
        self._do("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
        for link, pid, near, far in (("vm0", client, "2001:db8:1::1/64", f"{CLIENT}/64"), ("up0", server, "2001:db8:9::1/64", f"{SERVER}/64")):
            self._do("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            self._do("ip", "addr", "add", near, "dev", link, "nodad")
            self._do("ip", "link", "set", link, "up")
            for words in (("link", "set", "lo", "up"), ("addr", "add", far, "dev", "eth0", "nodad"), ("link", "set", "eth0", "up"),
                          ("-6", "route", "add", "default", "via", near.split("/")[0])):
                self._do(*self.inside(pid), "ip", *words)
        self.client, self.server = client, server

    def _hold(self, cpus):
        holder = procs.start(["unshare", "--net", "sleep", "infinity"], cpus, stdin=subprocess.DEVNULL)
        own = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 5
        while os.readlink(f"/proc/{holder.pid}/ns/net") == own:
            if holder.poll() is not None or time.monotonic() > deadline:
                raise Failure("egress: the kernel gives no network namespace")
            time.sleep(0.01)
        return holder

    @staticmethod
    def inside(pid):
        return ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]

    @staticmethod
    def _do(*words, text=None):
        done = subprocess.run(words, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Failure(f"egress: {' '.join(words)}: {done.stdout.strip()[:300]}")

    def intercept(self, doors):
        """`doors`: {port of the server: port of the relay that takes it}."""
        lines = "\n        ".join(f"meta nfproto ipv6 tcp dport {theirs} tproxy ip6 to :{ours} meta mark set {MARK} accept"
                                  for theirs, ours in doors.items())
        self._do("nft", "-f", "-", text=RULES.format(mark=MARK, doors=lines))
        self._do("ip", "-6", "rule", "add", "fwmark", str(MARK), "lookup", str(TABLE))
        self._do("ip", "-6", "route", "add", "local", "::/0", "dev", "lo", "table", str(TABLE))

    def remove(self):
        for words in (("nft", "delete", "table", "inet", "bench"), ("ip", "-6", "rule", "del", "fwmark", str(MARK)),
                      ("ip", "-6", "route", "flush", "table", str(TABLE)), ("ip", "link", "del", "vm0"), ("ip", "link", "del", "up0")):
            subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for holder in self.holders:
            procs.stop(holder)


def chosen_relays(run):
    chosen = []
    for relay in run.relays:
        if relay.name in run.haproxies:
            chosen.append(relays.haproxy(relay.name, relay.program, "haproxy-egress.cfg", "none"))
    if "pipelined" in run.names:
        chosen += [relays.node(name, run.options.pipelined, f"{name}.pipeline", "none") for name in VARIANTS]
    if "floor" in run.names:
        chosen.append(relays.floor(run.tools, "original", "none"))
    return chosen


def measure_egress(run):
    why = obstacle()
    if why:
        return run.note(f"skipped: egress: {why}")
    chosen = chosen_relays(run)
    lab = None
    try:
        lab = Lab(run.options.load_cpus)
        measure_in(run, lab, chosen)
    except Failure as failure:
        run.failed("egress", failure)
    finally:
        if lab:
            lab.remove()


def measure_in(run, lab, chosen):
    bench = Bench(run.tools, "::", {run.options.relay_cpu}, run.options.load_cpus, lab.inside(lab.client), lab.inside(lab.server))
    places, doors, taken = {}, {}, {}
    for number, relay in enumerate(chosen):
        place = {"listen": bench.address(), "listen_bulk": bench.address(), "backend": f"[{SERVER}]:{FIRST_DOOR}",
                 "directory": run.directory, "name": relay.name}
        bulk = place["listen_bulk"] if relay.bulk_apart else place["listen"]
        for offset, listen in ((0, place["listen"]), (1, bulk)):
            port = FIRST_DOOR + 2 * number + offset
            doors[f"[{SERVER}]:{port}"] = "none"
            taken[port] = procs.split(listen)[1]
        places[relay.name] = place
        Path(run.directory, f"{relay.name}-routes.json").write_text(json.dumps(state()))
    bench.start_backend(doors)
    lab.intercept(taken)
    running = run.start(chosen, places, bench)
    for number, relay in enumerate(chosen):
        if relay.name in running:  # the load generator goes to the server; the rules do the rest
            running[relay.name].listen = f"[{SERVER}]:{FIRST_DOOR + 2 * number}"
            running[relay.name].listen_bulk = f"[{SERVER}]:{FIRST_DOOR + 2 * number + 1}"
    rows = workloads.egress_workloads(run.options.size)
    run.time("egress", bench, running, rows, workloads.egress_workloads(0.05))
    sections.end(running, bench)


def state():
    """Desired state in which the client is an instance of this node."""
    return {"format": "pipelined.state/1", "revision": 1, "routes": [],
            "envs": [{"env_id": "env_bench", "app_id": "bench", "org_id": "bench"}],
            "instances": [{"instance_id": "i_bench", "env_id": "env_bench", "process_type": "w", "overlay_ipv6": CLIENT,
                           "node_id": "bench", "status": "ready"}]}
