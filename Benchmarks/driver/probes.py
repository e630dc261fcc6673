"""Calls of the C allocator and of the Swift runtime that a running relay makes, by uprobes: without a preloaded library, so that static
programs are no exception. Set through tracefs and not by `perf probe`, which wants debug information."""
import os
import re
import struct
import subprocess
from pathlib import Path

from . import measure

GROUP = "pipelined_bench"
ALLOCATORS = ("malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign")
SWIFT_RUNTIME = ("swift_retain", "swift_release", "swift_allocObject")
EVENTS = [Path(root) / "uprobe_events" for root in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")]


class AllocationProbes:
    """Probes on the C library that `pid` has mapped and on the Swift runtime, wherever that is: in its own library, or linked into the
    program (which must not be stripped)."""

    def __init__(self, pid):
        self.events = []
        for path in objects(pid):
            addresses, segments = symbols(path), code_segments(path)
            probed = set()
            for name in ALLOCATORS if re.search(r"/libc[.-]", path) else SWIFT_RUNTIME:
                address = addresses.get(name)
                if address is None or address in probed:  # two names of one function count once
                    continue
                probed.add(address)
                offset = next((address - start + at for start, end, at in segments if start <= address < end), None)
                if offset is not None and write_event(f"p:{GROUP}/{name} {path}:{offset:#x}"):
                    self.events.append(f"{GROUP}:{name}")

    def count(self, pid, command, cpus):
        """{function: calls} while `command` runs; None if probes aren't allowed here."""
        counts = measure.perf_counts(self.events, pid, command, cpus) if self.events else None
        return counts and {name.rpartition(":")[2]: count for name, count in counts.items()}

    @staticmethod
    def remove():
        for name in (*ALLOCATORS, *SWIFT_RUNTIME):
            write_event(f"-:{GROUP}/{name}")


def write_event(line):
    for events in EVENTS:
        try:
            fd = os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            os.write(fd, f"{line}\n".encode())
            return True
        except OSError:
            continue
        finally:
            os.close(fd)
    return False


def objects(pid):
    """Paths of the C library, the Swift library and the program itself."""
    paths = []
    program = os.readlink(f"/proc/{pid}/exe")
    with open(f"/proc/{pid}/maps") as f:
        for line in f:
            fields = line.split(None, 5)
            if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/"):
                path = fields[5].strip()
                if (re.search(r"/(libc|libswiftCore)[.-]", path) or path == program) and path not in paths:
                    paths.append(path)
    return paths


def symbols(path):
    """{name: address} of what `path` defines."""
    found = {}
    for table in ("-D", "-a"):
        try:
            done = subprocess.run(["nm", table, "--defined-only", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:  # no binutils: nothing to probe by name
            return found
        for line in done.stdout.splitlines():
            address, _, rest = line.partition(" ")
            name = rest.split()[-1].split("@")[0]
            if name in ALLOCATORS or name in SWIFT_RUNTIME:
                found[name] = int(address, 16)
    return found


def code_segments(path):
    """[(first address, end, offset in the file)] of what can be executed: a 64-bit ELF's program headers."""
    with open(path, "rb") as f:
        head = f.read(64)
        if head[:5] != b"\x7fELF\x02":
            return []
        at, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
        f.seek(at)
        table = f.read(size * count)
    segments = []
    for number in range(count):
        kind, flags, offset, address, _, length, _, _ = struct.unpack_from("<IIQQQQQQ", table, number * size)
        if kind == 1 and flags & 1:  # PT_LOAD, PF_X
            segments.append((address, address + length, offset))
    return segments
