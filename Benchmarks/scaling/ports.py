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


def search(share, ports, step):
    """The kernel's way (`__inet_hash_connect`): from a start that is as good as random, every `step`-th port. 2 is what it does with the
    system's range: all even ports first, then the odd ones, which it leaves to servers. 1 is what it does where the socket brings
    a range of its own (IP_LOCAL_PORT_RANGE). Connections come and go, `share` of all ports are in use.

    Returns mean and 99th percentile of the ports looked at."""
    source, tries = random.Random(7), 3000 if step == 2 else 60_000
    first = list(range(0, ports, 2)) if step == 2 else []
    second = list(range(1, ports, 2)) if step == 2 else list(range(ports))
    source.shuffle(first), source.shuffle(second)
    owned = (first + second)[:int(share * ports)]  # as it is after a while: what is searched first is full first
    used = bytearray(ports)
    for port in owned:
        used[port] = 1
    counts = []
    for _ in range(tries):
        place = source.randrange(len(owned))  # one ends
        owned[place], owned[-1] = owned[-1], owned[place]
        used[owned.pop()] = 0
        looked, port = find(used, source.randrange(ports), ports, step)
        used[port] = 1
        owned.append(port)
        counts.append(looked)
    counts = sorted(counts[tries // 3:])
    return sum(counts) / len(counts), counts[int(0.99 * len(counts))]


def find(used, start, ports, step):
    looked, start = 0, start - start % step
    for half in range(step):
        for number in range(ports // step):
            looked += 1
            port = (start + half + number * step) % ports
            if not used[port]:
                return looked, port
    raise AssertionError("none is free")


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
    print(f"{'in use':>8}{'system range: mean':>22}{'p99':>8}{'range of the socket: mean':>28}{'p99':>8}")
    for share in (0.25, 0.4, 0.5, 0.75, 0.9, 0.95, 0.99):
        shared, own = search(share, ports, 2), search(share, ports, 1)
        print(f"{share:>7.0%} {shared[0]:>21,.1f}{shared[1]:>8,}{own[0]:>28,.1f}{own[1]:>8,}")


if __name__ == "__main__":
    main()
