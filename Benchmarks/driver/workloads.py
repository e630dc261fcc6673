"""What the relays are put through."""
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Workload:
    """One kind of load. `unit` is what its CPU figure is per."""
    name: str
    group: str
    title: str
    arguments: list
    unit: str             # "operation" or "KiB"
    figures: list = field(default_factory=list)  # names of what is reported, besides CPU
    congestion: str | None = None                # None: the system's
    is_main: bool = False                        # has a target of its own: `stages` runs here too
    times: int = 1                               # how many times the rounds of a row: tails vary more from one to the next than CPU does

    def is_wanted(self, names):
        """`names`: what the user listed, groups or rows; empty: everything."""
        plain = self.name.partition(".")[0]
        return not names or bool({self.name, plain, self.group} & names) or ("main" in names and self.is_main)


GROUPS = ("short", "fin", "paced", "rtt", "download", "upload", "idle", "workers", "egress", "flatness", "envs", "names", "quiet", "counts",
          "instructions")
ENVS = 1000


def workloads(size, congestions):
    """`size` scales how much is done; 1 takes 1 to 3 seconds a round on the machine that this was written on."""
    return [*connections(size), *round_trips(size), *bulk(size, congestions)]


def many(count, size):
    return str(max(int(count * size), 1000))


def connections(size):
    return [
        Workload("short", "short", "short connection", ["short", "--connections", many(20_000, size), "--concurrent", "64"],
                 "operation", ["rate", "p50", "p99"], is_main=True),
        Workload("fin", "fin", "short connection, ended by FIN",
                 ["short", "--fin", "--connections", many(10_000, size), "--concurrent", "64"], "operation", ["rate", "p50", "p99"]),
        Workload("paced", "paced", "short connection at 3,000/s", ["short", "--rate", "3000", "--connections", many(6_000, size)],
                 "operation", ["p50", "p99"], is_main=True, times=2),
    ]


def envs_workload(size):
    """`short`, where each connection is for one of many envs: as a relay of many tenants has it."""
    arguments = ["short", "--names", str(ENVS), "--connections", many(20_000, size), "--concurrent", "64"]
    return Workload(f"short-{ENVS}-envs", "envs", f"short connection, {ENVS:,} envs", arguments, "operation", ["rate", "p50", "p99"])


def round_trips(size):
    rows = []
    for count, amount in ((1, 20_000), (64, 100_000), (1000, 100_000)):
        for message, text in ((64, "64-byte"), (4096, "4-KiB")):
            arguments = ["rtt", "--connections", str(count), "--message", str(message), "--amount", many(amount, size)]
            on = "1 connection" if count == 1 else f"{count:,} connections"
            rows.append(Workload(f"rtt-{count}-{message}", "rtt", f"{text} round trip, {on}", arguments, "operation", ["p50", "p99"],
                                 is_main=(count, message) == (64, 64), times=2 if (count, message) == (64, 64) else 1))
    return rows


def bulk(size, congestions):
    """One way each; the same number of bytes in all, whatever the number of streams (a single one moves half of it)."""
    rows = []
    total = max(int(4_000_000_000 * size), 256_000_000)
    for algorithm in congestions:
        for group, flags, to in (("download", [], "the client"), ("upload", ["--upload"], "the backend")):
            for streams in (1, 4, 64):
                each = total // max(streams, 2)
                arguments = ["bulk", *flags, "--connections", str(streams), "--amount", str(each)]
                title = f"bulk to {to}, {streams} stream{'s' if streams > 1 else ''}" + (f", {algorithm}" if algorithm else "")
                name = f"{group}-{streams}" + (f".{algorithm}" if algorithm else "")
                rows.append(Workload(name, group, title, arguments, "KiB", ["throughput"], algorithm,
                                     is_main=streams == 4))
    return rows


def egress_workloads(size):
    """What intercepted connections are put through: a row of each kind."""
    chosen = [w for w in [*connections(size), *round_trips(size)] if w.name in ("short", "rtt-64-64")]
    return chosen + [w for w in bulk(size, [None]) if w.name.startswith(("download-4", "upload-4"))]


def idle_command(connections):
    return ["idle", "--connections", str(connections)]


def target(relay, workload):
    return relay.listen_bulk if workload.unit == "KiB" else relay.listen
