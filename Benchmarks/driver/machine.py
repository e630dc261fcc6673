"""The machine of a run: its own network namespace, congestion control, cores, and what else runs on it."""
import fcntl
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from . import measure, procs
from .procs import Failure

INSIDE = "PIPELINED_BENCH_INSIDE"  # set in the process that has its own network namespace
CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")
# A busier machine than this, before the run has begun, and its times are not worth keeping.
QUIET_SHARE = 0.10


def enter_own_network():
    """Starts over in a network namespace of its own, where there is only loopback, no firewall rule and no one else's
    connection. Where that isn't allowed, goes on in this one and says so."""
    if INSIDE in os.environ:
        return
    for flags in (["--net"], ["--user", "--map-root-user", "--net"]):
        command = ["unshare", *flags]
        if shutil.which("unshare") and subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode == 0:
            os.environ[INSIDE] = "namespace"
            os.execvp("unshare", [*command, sys.executable, *sys.argv])
    print("note: no network namespace allowed here; measuring on this machine's own loopback", file=sys.stderr)
    os.environ[INSIDE] = "host"


def is_own_network():
    return os.environ[INSIDE] == "namespace"


def loopback_up():
    with socket.socket() as s:
        request = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(s, 0x8914, request)  # SIOCSIFFLAGS


def congestion():
    return CONGESTION.read_text().strip()


def set_congestion(wanted):
    """For every socket that is opened or accepted from now on. Only in a namespace of our own, so that the machine's stays."""
    if wanted == congestion():
        return
    if not is_own_network():
        raise Failure("--congestion needs a network namespace of its own, so that the machine's setting stays: run as root")
    try:
        CONGESTION.write_text(wanted)
    except OSError as error:
        raise Failure(f"--congestion {wanted}: the kernel refuses it in a network namespace ({error.strerror}); "
                      "it must be in `sysctl net.ipv4.tcp_allowed_congestion_control`") from error


def congestions(wanted):
    """The congestion controls that the bulk rows run under, by the value of `--congestion`."""
    if not wanted:
        return [congestion()]
    if wanted != "both":
        set_congestion(wanted)
        return [wanted]
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
    both = [name for name in ("bbr", "cubic") if name in allowed]
    missing = {"bbr", "cubic"} - set(both)
    if missing or not is_own_network():
        why = f"the kernel has no {', '.join(sorted(missing))} for users" if missing else "there is no network namespace of our own"
        print(f"note: bulk rows run under {congestion()} alone: {why}")
        return [congestion()]
    return both


def facts(options, algorithms):
    model = procs.first_line(["cat", "/proc/cpuinfo"], r"(?<=model name\t: ).*") or platform.machine()
    return {
        "kernel": platform.release(), "cpu": model, "cores": os.cpu_count(), "congestion": congestion(), "bulk_congestion": algorithms,
        "ip_version": options.family, "network": os.environ[INSIDE], "relay_cpu": options.relay_cpu, "load_cpus": sorted(options.load_cpus),
        "rounds": options.rounds, "size": options.size, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_average": [round(x, 2) for x in os.getloadavg()], "busy_at_start": round(busy_share(), 3),
    }


def busy_share(seconds=1.0):
    """How much of all cores others used in the last second, before anything of ours ran: 0 to 1."""
    cpus = set(range(os.cpu_count()))
    before, begin = measure.busy_ns(cpus), time.monotonic()
    time.sleep(seconds)
    return (measure.busy_ns(cpus) - before) / 1e9 / (time.monotonic() - begin) / len(cpus)


def warning(about):
    """A line for people, or None: others are running, so the times of this run say little."""
    if about["busy_at_start"] <= QUIET_SHARE:
        return None
    return (f"WARNING: something else used {about['busy_at_start'] * 100:.0f}% of the cores before the run began (load average "
            f"{about['load_average'][0]}): its times are noise; run it on a quiet machine")
