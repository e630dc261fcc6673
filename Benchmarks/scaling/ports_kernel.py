#!/usr/bin/env python3
"""What this kernel's `connect` costs as the source ports towards one address and port fill up: the real thing beside ports.py's model.
Goes into a network namespace of its own (needs root), with some 18,000 connections over loopback; a few seconds.

    Benchmarks/scaling/ports_kernel.py
    Benchmarks/scaling/ports_kernel.py --own-range     # each socket brings the range by IP_LOCAL_PORT_RANGE (Linux 6.3)
"""
import argparse
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time

INSIDE = "PIPELINED_PORTS_INSIDE"
IP_LOCAL_PORT_RANGE = 51
SERVER = ("127.0.0.1", 9999)
MARKS = (0.10, 0.25, 0.40, 0.48, 0.51, 0.55, 0.60, 0.65)


def serve(listener):
    held = []
    while True:
        held.append(listener.accept()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--own-range", action="store_true")
    own = parser.parse_args().own_range
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        low, high = map(int, f.read().split())
    ports = high - low + 1
    listener = socket.socket()
    listener.bind(SERVER)
    listener.listen(4096)
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        serve(listener)
    held, times, marks = [], [], {int(share * ports): share for share in MARKS}
    try:
        while len(held) < max(marks):
            s = socket.socket()
            if own:
                s.setsockopt(socket.SOL_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", high << 16 | low))
            begin = time.perf_counter_ns()
            s.connect(SERVER)
            times.append(time.perf_counter_ns() - begin)
            held.append(s)
            if len(held) in marks:
                print(f"{marks[len(held)]:.0%} of {ports} in use: {statistics.median(times[-200:]) / 1000:.0f} µs a connect")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
