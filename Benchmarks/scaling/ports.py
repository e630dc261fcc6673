#!/usr/bin/env python3
"""Source ports towards one backend address and port: when they run out, and what the kernel's search for a free one costs before they do.
docs/SCALING.md quotes it.

    Benchmarks/scaling/ports.py [--ports 28232]

Ports are held for as long as a connection lives, and, if this side closed first by FIN, 60 s more (TIME_WAIT). Arrivals are Poisson.
"""
import argparse
import random

TIME_WAIT_S = 60


def blocked(erlangs, ports):
    """Erlang's loss formula: the share of connects that find no port, if `erlangs` would be in use on average. It holds for any
    distribution of lifetimes with that mean."""
    inverse = 1.0
    for n in range(1, ports + 1):
        inverse = 1 + n / erlangs * inverse
        if inverse > 1e15:
            return 0.0
    return 1 / inverse


def largest_rate(hold_s, ports, most=1e-6):
    """Connections a second of which at most one in a million finds no port."""
    low, high = 0.0, 2 * ports / hold_s
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if blocked(max(middle * hold_s, 1e-9), ports) <= most else (low, middle)
    return low


def search(share, ports, tries=60_000):
    """The kernel's way (`__inet_hash_connect`): a start that is as good as random, then every second port, then the other half; while
    connections come and go so that `share` of all ports are in use. Returns mean and 99th percentile of ports looked at."""
    source = random.Random(7)
    used, owned = bytearray(ports), []
    wanted = int(share * ports)
    counts = []

    def take():
        start, looked = source.randrange(ports) & ~1, 0
        for half in (0, 1):
            port = (start + half) % ports
            for _ in range(ports // 2):
                looked += 1
                if not used[port]:
                    used[port] = 1
                    owned.append(port)
                    return looked
                port = (port + 2) % ports
        raise AssertionError("none is free")

    while len(owned) < wanted:
        take()
    for number in range(tries):
        place = source.randrange(len(owned))  # one ends
        owned[place], owned[-1] = owned[-1], owned[place]
        used[owned.pop()] = 0
        looked = take()
        if number > tries // 2:
            counts.append(looked)
    counts.sort()
    return sum(counts) / len(counts), counts[int(0.99 * len(counts))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ports", type=int, default=60999 - 32768 + 1, help="of net.ipv4.ip_local_port_range (28232)")
    ports = parser.parse_args().ports
    print(f"{ports} ports, one source address, one backend address and port\n")
    print("connections/s until one in a million finds no port, by how long a connection lives")
    print(f"{'lives':>8}{'ended by RST, or by the peer':>32}{'closed by us first':>22}")
    for hold in (0.1, 1, 10, 60, 600, 3600):
        print(f"{hold:>7}s{largest_rate(hold, ports):>32,.0f}{largest_rate(hold + TIME_WAIT_S, ports):>22,.0f}")
    print("\nports looked at by one connect, by the share that is in use")
    print(f"{'in use':>8}{'mean':>10}{'p99':>8}")
    for share in (0.25, 0.5, 0.75, 0.9, 0.95, 0.99):
        mean, p99 = search(share, ports)
        print(f"{share:>7.0%}{mean:>10.1f}{p99:>8}")


if __name__ == "__main__":
    main()
