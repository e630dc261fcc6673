#!/usr/bin/env python3
"""What a load takes of a node, and what bounds it first: docs/SCALING.md's functions, with the coefficients of a benchmark's run.

    Benchmarks/scaling/node.py --connections 20000 --messages 100000 --gbit 10 --held 200000 --backends 50

Without a run's figures (.build/bench/latest.json, or --figures) it takes the round ones below, and says so.
"""
import argparse
import json
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent.parent
NODE = "pipelined"
# ns for each connection, message relayed there and back, KiB; bytes for each connection held. Of one 2-core machine, on loopback.
ROUND = {"connection": 50_000, "message": 13_000, "kib": 230, "user": 485, "kernel": 8_000}
ROWS = {"connection": "short", "message": "rtt-64-64", "kib": "download-4.bbr"}
# Of a worker's core, at most: a queue grows without bound near 1, and p99 long before.
BUSY = 0.7
PORTS, BACKLOG = 28_232, 4_096
DESCRIPTORS, SLOTS = 1_048_576, 65_536


def coefficients(path):
    """(figures, where they are from)"""
    try:
        results = json.loads(path.read_text())
    except OSError:
        return dict(ROUND), "round figures"
    found = dict(ROUND)
    for name, row in ROWS.items():
        rounds = results["timed"].get(row, {}).get(NODE)
        if rounds:
            found[name] = median(r["cpu_ns"] for r in rounds)
    held = results["idle"].get("8000", {})
    if held.get(NODE):
        found["user"] = median(r["private"] for r in held[NODE])
        if held.get("direct"):
            found["kernel"] = median(r["slab"] for r in held[NODE]) - median(r["slab"] for r in held["direct"])
    return found, f"{path.name} of {results['machine']['date'][:10]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=float, default=20_000, help="new ones a second (20000)")
    parser.add_argument("--messages", type=float, default=100_000, help="small messages with an answer, a second (100000)")
    parser.add_argument("--gbit", type=float, default=10, help="bulk, both ways together (10)")
    parser.add_argument("--held", type=float, default=200_000, help="connections at once (200000)")
    parser.add_argument("--backends", type=int, default=50, help="addresses and ports that they are spread over (50)")
    parser.add_argument("--figures", type=Path, default=ROOT / ".build/bench/latest.json")
    load = parser.parse_args()
    each, source = coefficients(load.figures)
    parts = {"connections": load.connections * each["connection"], "messages": load.messages * each["message"],
             "bulk": load.gbit * 1e9 / 8 / 1024 * each["kib"]}
    cores = sum(parts.values()) / 1e9
    workers = max(1, -(-cores // BUSY), -(-load.held // SLOTS))
    memory = load.held * (each["user"] + each["kernel"])
    print(f"coefficients: {source}: {each['connection'] / 1e3:.1f} µs a connection, {each['message'] / 1e3:.1f} µs a message, "
          f"{each['kib']:.0f} ns/KiB, {each['user']:.0f} + {each['kernel']:.0f} B a connection held")
    print("cores:       " + " + ".join(f"{v / 1e9:.2f} {k}" for k, v in parts.items()) + f" = {cores:.2f}; {workers:.0f} workers at most {BUSY:.0%} busy")
    print(f"memory:      {memory / 2**30:.2f} GiB for {load.held:,.0f} silent connections; what is in flight comes on top")
    print(f"descriptors: {2 * load.held / workers:,.0f} of {DESCRIPTORS:,} for each worker")
    print(f"ports:       {load.held / load.backends:,.0f} for each backend, of {PORTS:,} ({load.held / load.backends / PORTS:.0%}; its search is cheap, on Linux before 6.3 below 50%)")
    print(f"accept:      a worker may stand still for {BACKLOG / (load.connections / workers) * 1e3:,.0f} ms before its queue of {BACKLOG:,} is full")
    print(f"conntrack:   {2 * load.held:,.0f} entries, if it is not told to leave these ports alone")


if __name__ == "__main__":
    main()
