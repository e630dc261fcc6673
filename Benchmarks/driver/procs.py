"""Processes of a run: started pinned, each in its own group, and all gone at the end."""
import ctypes
import os
import re
import signal
import socket
import subprocess
import time

_libc = ctypes.CDLL(None)
_started = []


class Failure(Exception):
    """Something that makes the run fail, said so that a person knows what to do."""


def _on_start(cpus, idle):
    os.setsid()
    os.sched_setaffinity(0, cpus)
    if idle:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: not even a killed driver leaves it behind


def start(command, cpus, idle=False, **options):
    """`idle`: it runs only while nobody else on these CPUs wants to."""
    process = subprocess.Popen([str(c) for c in command], preexec_fn=lambda: _on_start(cpus, idle), **options)
    _started.append(process)
    return process


def stop(process):
    """Ends a process and its group, and waits until it is gone."""
    if process in _started:
        _started.remove(process)
    for kill, patience in ((signal.SIGTERM, 2), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, kill)
        except ProcessLookupError:
            pass
        try:
            process.wait(patience)
            break
        except subprocess.TimeoutExpired:
            continue
    try:
        os.killpg(process.pid, signal.SIGKILL)  # what the group's leader left behind
    except ProcessLookupError:
        pass


def stop_all():
    for process in list(_started):
        stop(process)


def is_listening(pid, port, family="4"):
    """Whether a socket listens on `port` in the network namespace of `pid`, at an address of that family or at every address. Nothing is
    sent: a transparent relay that is connected to directly would connect to itself."""
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}") as f:
                for line in f:
                    fields = line.split()
                    local, _, local_port = fields[1].rpartition(":")
                    is_there = (table == "tcp6") == (family == "6") or not local.strip("0")
                    if fields[3] == "0A" and int(local_port, 16) == port and is_there:
                        return True
        except (OSError, ValueError):
            continue
    return False


def wait_until_listening(address, process, name, patience=15):
    deadline = time.monotonic() + patience
    host, port = split(address)
    family = "6" if ":" in host else "4"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failure(f"{name} ended with status {process.returncode} before it listened on {address}")
        if is_listening(process.pid, port, family):
            return
        time.sleep(0.02)
    raise Failure(f"{name} did not listen on {address} within {patience} s")


def split(address):
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def free_port(host, taken, first=21000):
    """A port below the ephemeral range that nobody listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(first, 30000):
        if port in taken:
            continue
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        taken.add(port)
        return port
    raise Failure(f"no free port on {host} between {first} and 29999")


def tree(pid):
    """`pid` and all its descendants."""
    result = [pid]
    for parent in result:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as children:
                    result += [int(c) for c in children.read().split()]
        except OSError:
            continue
    return result


def first_line(command, pattern=".*"):
    """The first line of what `command` prints (to either stream) that has `pattern`, or None."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    for line in done.stdout.splitlines():
        found = re.search(pattern, line)
        if found:
            return found.group(0).strip()
    return None
