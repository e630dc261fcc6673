#!/usr/bin/env python3
"""What happens to connections when a node leaves or joins a group behind ECMP: how many are moved to another node, which knows
nothing of them and answers with a reset. docs/SCALING.md quotes it.

    Benchmarks/scaling/ecmp.py [--connections 200000] [--nodes 2,4,8,16,32]
"""
import argparse
import random

BUCKETS = 1024         # of a resilient group, as switches and Linux (`nexthop ... type resilient buckets 1024`) have them
MAGLEV = 65537


def modulo(key, nodes):
    return nodes[key % len(nodes)]


def threshold(key, nodes):
    """RFC 2992's hash-threshold: the space cut into as many regions, of the same size and in order."""
    return nodes[key * len(nodes) >> 32]


def rendezvous(key, nodes):
    return max(nodes, key=lambda node: mix(key << 16 | node))


def mix(value):
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31


class Maglev:
    """Maglev's table, made anew for each set of nodes (NSDI 2016, §3.4): what a software balancer in front would use."""

    def __init__(self, nodes):
        self.table = [None] * MAGLEV
        walks = [(mix(n) % MAGLEV, mix(n ^ 0xABCDEF) % (MAGLEV - 1) + 1) for n in nodes]
        at, filled = [0] * len(nodes), 0
        while filled < MAGLEV:
            for number, (offset, skip) in enumerate(walks):
                while True:
                    slot = (offset + at[number] * skip) % MAGLEV
                    at[number] += 1
                    if self.table[slot] is None:
                        break
                self.table[slot] = nodes[number]
                filled += 1
                if filled == MAGLEV:
                    break

    def __call__(self, key, _):
        return self.table[key % MAGLEV]


class Resilient:
    """A fixed table of buckets: a node that leaves gives its buckets away and nobody else's move. One that joins takes its share, from
    each of the others the same."""

    def __init__(self, nodes):
        self.buckets = [nodes[i % len(nodes)] for i in range(BUCKETS)]

    def change(self, nodes, random):
        joined = [n for n in nodes if n not in self.buckets]
        for i, owner in enumerate(self.buckets):
            if owner not in nodes:
                self.buckets[i] = random.choice(nodes)
        for node in joined:
            for i in random.sample(range(BUCKETS), BUCKETS // len(nodes)):
                self.buckets[i] = node
        return self

    def __call__(self, key, _):
        return self.buckets[key % BUCKETS]


def moved(keys, nodes, after, before_rule, after_rule):
    """The share of all connections that are with another node afterwards, though theirs is still there."""
    lost = 0
    for key in keys:
        owner = before_rule(key, nodes)
        lost += owner in after and after_rule(key, after) != owner
    return lost / len(keys)


def rules(nodes, after, seed):
    yield "modulo", modulo, modulo
    yield "hash-threshold", threshold, threshold
    yield "maglev", Maglev(nodes), Maglev(after)
    yield "rendezvous", rendezvous, rendezvous
    before = Resilient(nodes)
    yield "resilient", before, Resilient(nodes).change(after, random.Random(seed))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=200_000)
    parser.add_argument("--nodes", default="2,4,8,16,32")
    options = parser.parse_args()
    source = random.Random(1)
    keys = [source.getrandbits(32) for _ in range(options.connections)]
    print("share of ALL connections that are moved off a node that is still there, by how the router chooses")
    header = ["nodes", "own share of one"]
    for what in ("leaves", "joins"):
        print(f"\none node {what}:")
        rows = []
        for count in map(int, options.nodes.split(",")):
            nodes = list(range(count))
            # The middle one: for hash-threshold neither the best place nor the worst.
            after = [n for n in nodes if n != count // 2] if what == "leaves" else [*nodes, count]
            found = {name: moved(keys, nodes, after, a, b) for name, a, b in rules(nodes, after, count)}
            if not rows:
                print("".join(c.rjust(17) for c in [*header, *found]))
            rows.append(found)
            print("".join(c.rjust(17) for c in [str(count), f"{1 / count:.1%}", *(f"{v:.1%}" for v in found.values())]))


if __name__ == "__main__":
    main()
