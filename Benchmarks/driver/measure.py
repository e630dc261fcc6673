"""What a relay used: CPU, memory, and (in separate runs that nobody times) system calls and context switches."""
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import procs
from .procs import Failure

# What a relay may call. Each tracepoint takes the kernel tens of milliseconds to attach and detach, so not all 360 of
# them: the rest is "others".
EXPECTED_SYSCALLS = (
    "accept", "accept4", "bind", "clock_gettime", "close", "connect", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "fcntl", "futex", "getpeername", "getsockname", "getsockopt", "io_uring_enter", "ioctl", "mmap", "munmap", "read", "readv",
    "recvfrom", "recvmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socket", "splice", "write", "writev")


def cpu_ns(pid):
    """Nanoseconds that all threads of `pid` and of its children have run, in user and kernel, with the softirq work that
    ran on top of them. Threads that have ended are not in it; a relay's workers don't end."""
    total = 0
    for member in procs.tree(pid):
        try:
            for task in os.listdir(f"/proc/{member}/task"):
                with open(f"/proc/{member}/task/{task}/schedstat") as f:
                    total += int(f.read().split()[0])
        except OSError:
            continue
    return total


def context_switches(pid):
    """How often the threads of `pid` and its children have given up their core: by going to sleep, or because another one got it."""
    total = {"slept": 0, "preempted": 0}
    fields = {"voluntary_ctxt_switches": "slept", "nonvoluntary_ctxt_switches": "preempted"}
    for member in procs.tree(pid):
        for task in os.listdir(f"/proc/{member}/task"):
            with open(f"/proc/{member}/task/{task}/status") as f:
                for line in f:
                    name, _, value = line.partition(":")
                    if name in fields:
                        total[fields[name]] += int(value)
    return total


def busy_ns(cpus):
    """Nanoseconds that `cpus` have not been idle, whoever ran on them; in steps of a clock tick."""
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    total = 0
    with open("/proc/stat") as f:
        for line in f:
            fields = line.split()
            if fields[0].startswith("cpu") and fields[0][3:].isdigit() and int(fields[0][3:]) in cpus:
                user, nice, system, _, _, irq, softirq, steal = map(int, fields[1:9])
                total += (user + nice + system + irq + softirq + steal) * tick
    return total


def softirq_daemon(cpu):
    """The pid of the kernel's softirq thread of `cpu`, or None where a container hides it."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/comm") as f:
                    if f.read().strip() == f"ksoftirqd/{cpu}":
                        return int(name)
            except OSError:
                continue
    return None


def settled_cpu_ns(read, patience=1.0):
    """`read()` once it has stopped growing: the last closes are still being worked on when the load ends."""
    deadline = time.monotonic() + patience
    before = read()
    while time.monotonic() < deadline:
        time.sleep(0.03)
        now = read()
        if now - before < 20_000:
            return now
        before = now
    return before


def memory(pid):
    """User-space bytes of `pid` and its children: private pages, and Pss. Kernel memory (sockets, epoll) is not in it."""
    sums = {"Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for member in procs.tree(pid) if pid else ():
        with open(f"/proc/{member}/smaps_rollup") as f:
            for line in f:
                name, _, rest = line.partition(":")
                if name in sums:
                    sums[name] += int(rest.split()[0]) * 1024
    return {"private": sums["Private_Clean"] + sums["Private_Dirty"], "pss": sums["Pss"]}


def slab():
    """Bytes of the kernel's own objects, of the whole machine: sockets, their files, epoll's entries."""
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("Slab:"))


def _workers(pid):
    """The node's worker threads, by their names: what its other threads do once a second is no connection's. Of other relays: none."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/comm"):
        if task.read_text().startswith("worker-"):
            found.append(task.parent.name)
    return found


def perf_counts(events, pid, command, cpus):
    """Counts of `events` in `pid`'s tree while `command` runs, or None where perf may not."""
    workers = _workers(pid)
    whom = ["-t", ",".join(workers)] if workers else ["-p", ",".join(map(str, procs.tree(pid)))]
    status, text = _run(["perf", "stat", "-x", ",", "-e", ",".join(events), *whom, "--", *command], cpus)
    counts = {}
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[0].isdigit():
            counts[fields[2]] = int(fields[0])
    if counts and status != 0:
        raise Failure("counting calls: " + "; ".join(line for line in text.splitlines() if "," not in line)[:300])
    return counts or None


def _run(command, cpus):
    """(exit status, what it wrote to stderr); its group is gone afterwards, whatever happens."""
    process = procs.start(command, cpus, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        text = process.communicate(timeout=120)[1]
    except subprocess.TimeoutExpired:
        raise Failure(f"{command[0]}: not over after 120 s") from None
    finally:
        procs.stop(process)
    return process.returncode, text


def _strace_counts(pid, command, cpus):
    tracer = procs.start(["strace", "-c", "-f", *sum((["-p", str(p)] for p in procs.tree(pid)), [])], cpus,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        line = tracer.stderr.readline()
        if "attached" not in line:
            return None
        status, errors = _run(command, cpus)
        if status != 0:
            raise Failure(f"counting calls: {errors.strip()}")
        tracer.send_signal(signal.SIGINT)
        text = tracer.communicate(timeout=20)[1]
    finally:
        procs.stop(tracer)
    counts = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 5 and re.fullmatch(r"[\d.]+", fields[0]) and fields[3].isdigit() and fields[-1] != "total":
            counts[fields[-1]] = int(fields[3])
    return counts or None


def syscalls(pid, command, cpus):
    """(how it was counted, {call: count}) while `command` runs; (None, {}) if neither perf nor strace may."""
    if shutil.which("perf"):
        named = [f"syscalls:sys_enter_{name}" for name in EXPECTED_SYSCALLS]
        counts = perf_counts(["raw_syscalls:sys_enter", *named], pid, command, cpus)
        if counts:
            total = counts.pop("raw_syscalls:sys_enter", 0)
            calls = {k.rpartition("sys_enter_")[2]: v for k, v in counts.items() if v}
            return "perf", {**calls, "others": max(total - sum(calls.values()), 0)}
    if shutil.which("strace"):
        counts = _strace_counts(pid, command, cpus)
        if counts:
            return "strace", counts
    return None, {}


PRELOAD_ENVIRONMENT = "PIPELINED_BENCH_COUNTS"


def preload_counts(report):
    """{function: calls so far} of a relay that was started with the counting library preloaded; None if it wrote none."""
    try:
        with open(report, "rb") as f:
            raw = f.read(32)
    except OSError:
        return None
    names = ("malloc", "calloc", "realloc", "aligned")
    return {name: int.from_bytes(raw[i * 8:i * 8 + 8], "little") for i, name in enumerate(names)}
