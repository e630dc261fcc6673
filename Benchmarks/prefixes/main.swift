import Glibc

// Lookups are of random keys, drawn before the clock runs; hits are addresses inside random prefixes of the set.

func now() -> UInt64 {
    var t = timespec()
    clock_gettime(CLOCK_MONOTONIC, &t)
    return UInt64(t.tv_sec) * 1_000_000_000 + UInt64(t.tv_nsec)
}

/// Lengths as in the global IPv4 table: more than half are /24, then /22, /23, /20...; and hosts, as block lists have.
let v4Lengths: [(length: Int, percent: Int)] = [(24, 58), (23, 9), (22, 11), (21, 5), (20, 4), (19, 2), (16, 1), (32, 10)]

func v4Prefix(_ random: inout SplitMix64) -> Prefix {
    var pick = random.below(100)
    var length = 24
    for (candidate, percent) in v4Lengths {
        if pick < percent {
            length = candidate
            break
        }
        pick -= percent
    }
    // 1.0.0.0 to 223.255.255.255.
    let bits = UInt32(1 + random.below(223)) << 24 | UInt32(truncatingIfNeeded: random.next()) & 0xFF_FFFF
    let mask = length == 32 ? UInt32.max : ~(UInt32.max >> UInt32(length))
    return Prefix(IPAddress(v4: bits & mask), length: length + 96).unsafelyUnwrapped
}

/// /48s anywhere in 2000::/3: the worst for a trie, since nothing is shared.
func v6Random(_ random: inout SplitMix64) -> Prefix {
    let high = (random.next() >> 3 | 1 << 61) & ~0xFFFF
    return Prefix(IPAddress(high: high, low: 0), length: 48).unsafelyUnwrapped
}

/// /48s in 50,000 /32s, as registries give them out.
func v6Allocated(_ random: inout SplitMix64) -> Prefix {
    let blocks: [UInt64] = [0x2001, 0x2400, 0x2401, 0x2402, 0x2403, 0x2404, 0x2600, 0x2602, 0x2604, 0x2606, 0x2800]
    let more = (0..<16).map { UInt64(0x2A00 + $0) }
    let all = blocks + more
    let allocation = UInt64(random.below(50_000))
    let top = all[Int(allocation % UInt64(all.count))] << 48 | (allocation &* 2654435761 & 0xFFFF) << 32
    return Prefix(IPAddress(high: top | UInt64(random.below(65536)) << 16, low: 0), length: 48).unsafelyUnwrapped
}

func v6Host(_ random: inout SplitMix64) -> Prefix {
    Prefix(IPAddress(high: random.next() >> 3 | 1 << 61, low: random.next()), length: 128).unsafelyUnwrapped
}

func measure(_ what: String, _ count: Int, _ make: (inout SplitMix64) -> Prefix) {
    var random = SplitMix64(seed: 42)
    var prefixes: [Prefix] = []
    prefixes.reserveCapacity(count)
    for _ in 0..<count { prefixes.append(make(&random)) }
    let begin = now()
    guard let table = PrefixTable([(prefixes, 0)]) else { return print("too many") }
    let built = now() - begin
    let lookups = 1 << 20
    let hits = (0..<lookups).map { _ -> IPAddress in
        let prefix = prefixes[random.below(count)]
        let (a, b) = (prefix.first, prefix.last)
        return IPAddress(high: a.high | random.next() & (a.high ^ b.high), low: a.low | random.next() & (a.low ^ b.low))
    }
    let other = (0..<lookups).map { _ in
        prefixes[0].first.isIPv4
            ? IPAddress(v4: UInt32(truncatingIfNeeded: random.next()))
            : IPAddress(high: random.next() >> 3 | 1 << 61, low: random.next())
    }
    func time(_ addresses: [IPAddress]) -> (ns: Double, found: Int) {
        var best = UInt64.max
        var found = 0
        for _ in 0..<5 {
            found = 0
            let begin = now()
            // One behind the other; none waits for the result of another.
            for address in addresses where table.value(of: address) != PrefixTable.none { found += 1 }
            best = min(best, now() - begin)
        }
        return (Double(best) / Double(addresses.count), found)
    }
    let (hit, found) = time(hits)
    let (miss, foundByChance) = time(other)
    let round = { (x: Double) in Double(Int(x * 10)) / 10 }
    print(
        "\(what) \(count): hit \(round(hit)) ns (\(found) of \(lookups) found), random \(round(miss)) ns (\(foundByChance) found), "
            + "\(round(Double(table.byteCount) / Double(count))) bytes a prefix, built in \(built / 1_000_000) ms")
    table.deallocate()
}

func measureNames(_ count: Int) {
    var random = SplitMix64(seed: 7)
    var entries = NameEntries()
    var names: [[UInt8]] = []
    for _ in 0..<count {
        let kind = ["", "*.", "."][random.below(3)]
        let name = Array("\(kind)h\(String(random.next() >> 24, radix: 36)).d\(random.below(5000)).example".utf8)
        names.append(name)
    }
    let begin = now()
    for name in names { _ = name.withUnsafeBufferPointer { entries.add($0) } }
    let set = NameSet(name: "x", entries: entries)
    let built = now() - begin
    let probes = (0..<(1 << 18)).map { _ in
        Array("a.h\(String(random.next() >> 24, radix: 36)).d\(random.below(5000)).example".utf8)
    }
    var best = UInt64.max
    for _ in 0..<5 {
        let begin = now()
        var found = 0
        for probe in probes where probe.withUnsafeBufferPointer({ set.table.match($0) }) != nil { found += 1 }
        best = min(best, now() - begin)
    }
    print(
        "names \(count): miss \(best / UInt64(probes.count)) ns, \(set.table.byteCount / max(count, 1)) bytes a name, "
            + "built in \(built / 1_000_000) ms")
}

for count in [10, 1000, 100_000, 1_000_000] {
    measure("ipv4 table", count, v4Prefix)
    measure("ipv6 /48 allocated", count, v6Allocated)
    measure("ipv6 /48 random", count, v6Random)
    measure("ipv6 hosts", count, v6Host)
    measureNames(count)
}
