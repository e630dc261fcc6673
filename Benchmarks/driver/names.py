"""A start with very many names: until the first connection is served, in memory, and until one changed name is. The node goes on from its last
good state; HAProxy reads a map, nginx a `map` block. One relay after the other, each alone; the backend and the client are here."""
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from statistics import median

from . import procs, relays
from .procs import Failure

COUNT = 1_000_000
PATIENCE = 120
NAME = "app-{:07}.customer-{:05}.example.com"  # as Benchmarks/names writes them

NODE = """node bench {{
    workers  1
    log      off
    state    {directory}/state
    admin    unix:{directory}/admin.sock
}}
pipeline tls {{
    sni      timeout 3s, max 16KiB
    backend  round_robin
}}
listen {listen}  tls_passthrough  via tls
routes push
"""

HAPROXY = """global
    nbthread 1
    stats socket {directory}/haproxy.sock mode 600 level admin
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
frontend edge
    bind {listen}
    tcp-request inspect-delay 3s
    tcp-request content accept if {{ req.ssl_hello_type 1 }}
    use_backend %[req.ssl_sni,lower,map({directory}/haproxy.map)]
backend one
    server only {one}
backend other
    server only {other}
"""

NGINX = """{load}
worker_processes 1;
daemon off;
pid {directory}/nginx-names.pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
stream {{
    access_log off;
    map_hash_max_size 4194304;
    map_hash_bucket_size 128;
    map $ssl_preread_server_name $chosen {{ default ""; include {directory}/nginx.map; }}
    server {{ listen {listen}; ssl_preread on; preread_timeout 3s; proxy_pass $chosen; }}
}}
"""


class Backend:
    """Answers a ClientHello with a word, and closes."""

    def __init__(self, host, word):
        self.word = word
        self.socket = socket.create_server((host, 0), family=socket.AF_INET6, backlog=64)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    if connection.recv(4096):
                        connection.sendall(self.word)
                except OSError:
                    pass


def hello(name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    out = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def ask(address, greeting):
    """What the backend says; nothing: it was not reached."""
    try:
        with socket.create_connection(procs.split(address), timeout=5) as client:
            client.sendall(greeting)
            return client.recv(64)
    except OSError:
        return b""


def wait_for(address, greeting, word, process):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if ask(address, greeting) == word:
            return
        if process.poll() is not None:
            raise Failure(f"ended with status {process.returncode}")
        time.sleep(0.002)
    raise Failure(f"no connection was served within {PATIENCE} s")


def memory(pid):
    """Megabytes of anonymous and of mapped pages, of all its processes."""
    sums = {"RssAnon": 0, "RssFile": 0}
    for member in procs.tree(pid):
        text = Path(f"/proc/{member}/status").read_text()
        for name in sums:
            found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
            sums[name] += int(found.group(1)) / 1000 if found else 0
    return sums


class Peak:
    """How many times the memory that it had before a process needs while something happens: resident pages of all kinds."""

    def __init__(self, pid):
        self.proc, self.times = Path(f"/proc/{pid}"), 0

    def of(self, name):
        return int(re.search(rf"^{name}:\s+(\d+)", (self.proc / "status").read_text(), re.MULTILINE).group(1))

    def __enter__(self):
        (self.proc / "clear_refs").write_text("5")
        self.before = self.of("VmRSS")
        return self

    def __exit__(self, *_):
        self.times = self.of("VmHWM") / self.before


class Contestant:
    """A relay with very many names: its files, its command, and how one name is given another backend."""

    def __init__(self, run, name, command, config):
        self.name, self.command = name, command
        self.directory = Path(run.directory) / f"names-{name}"
        self.directory.mkdir(mode=0o700)
        self.listen = run.bench.address()
        self.config = self.directory / "config"
        self.text = config

    def write(self, words):
        self.config.write_text(self.text.format(directory=self.directory, listen=self.listen, **words))

    def start(self, cpus):
        log = open(self.directory / "log", "ab")
        with log:
            return procs.start([*self.command, self.config], cpus, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


class Node(Contestant):
    def prepare(self, run, one, other):
        self.run, self.one = run, one
        self.write({})
        document = self.directory / "document.json"
        with open(document, "wb") as out:
            subprocess.run([run.names_tool, "document", str(COUNT), str(procs.split(self.listen)[1]), str(one)], stdout=out, check=True)
        process = self.start({run.options.relay_cpu})
        try:
            procs.wait_until_listening(self.listen, process, self.name)
            self.apply(document)
            self.wait_for_table()
        finally:
            procs.stop(process)

    def wait_for_table(self):
        """What its next start serves from is written by a thread of low priority."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as admin:
                admin.connect(str(self.directory / "admin.sock"))
                admin.sendall(b'{"command":"status"}\n')
                status = json.loads(b"".join(iter(lambda: admin.recv(1 << 16), b"")))
            if status["desired_state"]["has_table"]:
                return
            time.sleep(0.1)
        raise Failure(f"no table of its routes within {PATIENCE} s")

    def relist(self):
        """All of it again, with the one name as it was."""
        self.apply(self.directory / "document.json")

    def apply(self, path):
        done = subprocess.run([self.run.options.pipelined, "apply", path, "--admin", self.directory / "admin.sock"], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"apply: {(done.stderr or done.stdout).strip()[:400]}")

    def change(self, other, process):
        text = subprocess.run([self.run.names_tool, "change", "0", str(procs.split(self.listen)[1]), str(other)], capture_output=True, check=True).stdout
        path = self.directory / "change.json"
        path.write_bytes(text)
        begin = time.monotonic()
        self.apply(path)
        return begin


class HAProxy(Contestant):
    def prepare(self, run, one, other):
        self.write({"one": f"[::1]:{one}", "other": f"[::1]:{other}"})
        with open(self.directory / "haproxy.map", "w") as out:
            out.writelines(f"{NAME.format(n, n // 100)} one\n" for n in range(COUNT))

    def change(self, other, process):
        begin = time.monotonic()
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.directory / "haproxy.sock"))
            admin.sendall(f"set map {self.directory}/haproxy.map {NAME.format(0, 0)} other\n".encode())
            admin.recv(4096)
        return begin


class Nginx(Contestant):
    def prepare(self, run, one, other):
        load = f"load_module {relays.STREAM_MODULE};" if os.path.exists(relays.STREAM_MODULE) else ""
        self.write({"load": load})
        self.fill(one, one)

    def fill(self, first, rest):
        path = self.directory / "nginx.map"
        with open(f"{path}.new", "w") as out:
            out.writelines(f"{NAME.format(n, n // 100)} [::1]:{rest if n else first};\n" for n in range(COUNT))
        os.rename(f"{path}.new", path)

    def change(self, other, process):
        self.fill(other, self.port)
        begin = time.monotonic()
        process.send_signal(signal.SIGHUP)
        return begin


def contestants(run):
    made = {
        "pipelined": lambda: Node(run, "pipelined", [run.options.pipelined, "run"], NODE),
        "haproxy": lambda: HAProxy(run, "haproxy", [relays.find("haproxy"), "-db", "-f"], HAPROXY),
        "nginx": lambda: Nginx(run, "nginx", [relays.find("nginx"), "-c"], NGINX),
    }
    return [make() for name, make in made.items() if name in run.names]


def measure(run, root):
    run.names_tool = root / ".build/release/names"
    # Backends are on the overlay, which is IPv6.
    one, other = Backend("::1", b"one"), Backend("::1", b"other")
    greeting = hello(NAME.format(0, 0))
    rounds = min(run.options.rounds, 5)
    for relay in contestants(run):
        relay.port = one.port
        figures = run.attempt(f"{relay.name}, {COUNT:,} names", lambda: of(run, relay, one, other, greeting, rounds))
        if figures:
            run.many_names[relay.name] = figures
    print(table(run.many_names), end="\n\n", flush=True)


def of(run, relay, one, other, greeting, rounds):
    relay.prepare(run, one.port, other.port)
    found = []
    for number in range(rounds):
        begin = time.monotonic()
        process = relay.start({run.options.relay_cpu})
        try:
            wait_for(relay.listen, greeting, b"one", process)
            figures = {"start": time.monotonic() - begin, **memory(process.pid)}
            # What it does of its own accord after a start is part of neither.
            if number == rounds - 1:
                with Peak(process.pid) as peak:
                    figures["change"] = changed(relay, other, greeting, process)
                if hasattr(relay, "relist"):
                    figures["change_peak"] = peak.times
                    with Peak(process.pid) as peak:
                        relay.relist()
                        wait_for(relay.listen, greeting, b"one", process)
                    figures["relist_peak"] = peak.times
        finally:
            procs.stop(process)
        found.append(figures)
    return found


def changed(relay, other, greeting, process):
    begin = relay.change(other.port, process)
    wait_for(relay.listen, greeting, b"other", process)
    return time.monotonic() - begin


def row(name, rounds):
    of_all = lambda figure: median(r[figure] for r in rounds)
    last = next((r for r in rounds if "change" in r), {})
    change = last.get("change")
    peaks = [last.get(name) for name in ("change_peak", "relist_peak")]
    return [name, f"{of_all('start'):.2f} s", f"{of_all('RssAnon'):.0f} MB", f"{of_all('RssFile'):.0f} MB",
            "" if change is None else f"{change * 1000:.0f} ms", *("" if p is None else f"{p:.2f} x" for p in peaks)]


HEADER = ["", "start", "anonymous memory", "mapped", "one name changed", "its peak", "all again: peak"]


def table(found):
    lines = [f"{COUNT:,} names: start until the first connection is served, memory, one name changed until it is served"]
    widths = (12, 10, 18, 10, 18, 10, 18)
    for cells in [HEADER, *(row(name, rounds) for name, rounds in found.items())]:
        lines.append("  " + "".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip())
    return "\n".join(lines)
