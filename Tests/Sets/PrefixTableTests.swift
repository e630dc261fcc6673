import Pipeline
import PipelineSets
import Testing

/// The obvious way: every prefix, one after the other.
private func naive(_ groups: [(prefixes: [Prefix], value: UInt16)], _ address: IPAddress) -> UInt16 {
    groups.filter { $0.prefixes.contains { $0.contains(address) } }.map(\.value).min() ?? PrefixTable.none
}

/// A prefix of `length` that holds the address.
private func prefix(_ address: IPAddress, _ length: Int) -> Prefix? {
    let high = length >= 64 ? UInt64.max : ~(UInt64.max >> UInt64(length))
    let low = length <= 64 ? 0 : length >= 128 ? UInt64.max : ~(UInt64.max >> UInt64(length - 64))
    return Prefix(IPAddress(high: address.high & (length == 0 ? 0 : high), low: address.low & low), length: length)
}

@Suite("PrefixTable") struct PrefixTableTests {
    /// The edges of all prefixes, what lies beside them, and addresses anywhere.
    private func probes(_ groups: [(prefixes: [Prefix], value: UInt16)], _ random: inout SplitMix64) -> [IPAddress] {
        var all = [IPAddress.unspecified, .unspecifiedV4, IPAddress(v4: .max), IPAddress(high: .max, low: .max)]
        for edge in groups.flatMap(\.prefixes).flatMap({ [$0.first, $0.last] }) {
            all.append(edge)
            let (up, carry) = edge.low.addingReportingOverflow(1)
            all.append(IPAddress(high: edge.high &+ (carry ? 1 : 0), low: up))
            let (down, borrow) = edge.low.subtractingReportingOverflow(1)
            all.append(IPAddress(high: edge.high &- (borrow ? 1 : 0), low: down))
            all.append(IPAddress(high: edge.high, low: random.next()))
        }
        for _ in 0..<50 {
            all.append(IPAddress(v4: UInt32(truncatingIfNeeded: random.next())))
            all.append(IPAddress(high: random.next(), low: random.next()))
        }
        return all
    }

    private func check(_ groups: [(prefixes: [Prefix], value: UInt16)], _ random: inout SplitMix64, _ what: String)
        throws
    {
        let table = try #require(PrefixTable(groups))
        defer { table.deallocate() }
        for probe in probes(groups, &random) {
            let (found, wanted) = (table.value(of: probe), naive(groups, probe))
            if found != wanted { Issue.record("\(what): \(probe) has \(found), not \(wanted)") }
        }
    }

    /// Prefixes that overlap, touch and repeat: most are near a few addresses, of either family.
    private func groups(_ random: inout SplitMix64, count: Int) -> [(prefixes: [Prefix], value: UInt16)] {
        let centres =
            (0..<4).map { _ in IPAddress(high: random.next(), low: random.next()) }
            + (0..<4).map { _ in IPAddress(v4: UInt32(truncatingIfNeeded: random.next())) } + [.unspecified]
        return (0..<Int.random(in: 1...5, using: &random)).map { value in
            let prefixes = (0..<count).compactMap { _ -> Prefix? in
                guard let centre = centres.randomElement(using: &random) else { return nil }
                let isHost = centre.isIPv4 || Bool.random(using: &random)
                let shift = UInt64.random(in: 0..<(centre.isIPv4 ? 32 : 64), using: &random)
                let near = random.next() & ((1 << shift) - 1)
                let address =
                    isHost
                    ? IPAddress(high: centre.high, low: centre.low ^ near)
                    : IPAddress(high: centre.high ^ near, low: random.next())
                let lengths = centre.isIPv4 ? 90...128 : 0...128
                return prefix(address, Int.random(in: lengths, using: &random))
            }
            return (prefixes, UInt16(value * 3))
        }
    }

    @Test("it says what the obvious way says", arguments: UInt64(0)..<60)
    func property(_ seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        try check(groups(&random, count: [1, 3, 12, 60, 150][Int(seed % 5)]), &random, "seed \(seed)")
    }

    @Test("many prefixes in one corner make every step of the trie") func deep() throws {
        var random = SplitMix64(seed: 1)
        let hosts = (0..<200).compactMap {
            Prefix(IPAddress(high: .max, low: UInt64.max - UInt64($0 * 2)), length: 128)
        }
        let nets = (0..<200).compactMap { Prefix(IPAddress(high: UInt64.max - UInt64($0 * 2), low: 0), length: 64) }
        let four = (0..<200).compactMap { Prefix(IPAddress(v4: UInt32.max - UInt32($0 * 2)), length: 128) }
        try check([(hosts, 0), (nets, 1), (four, 2)], &random, "deep")
    }

    @Test("everything, nothing, and one address") func extremes() throws {
        var random = SplitMix64(seed: 2)
        let sets: [[String]] = [
            [], ["::/0"], ["0.0.0.0/0"], ["::/0", "::/128"], ["::1"], ["255.255.255.255"], ["::/1", "8000::/1"],
            ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"], ["::/90"], ["::fffe:0:0/95"], ["::ffff:0:0/97"], ["0.0.0.0"],
        ]
        for texts in sets {
            try check([(prefixes: texts.compactMap { Prefix($0) }, value: 7)], &random, "\(texts)")
        }
        let everything = try #require(Prefix("::/0"))
        let all = try #require(PrefixTable([(prefixes: [everything], value: UInt16(4))]))
        defer { all.deallocate() }
        #expect(all.value(of: IPAddress(v4: 0x0102_0304)) == 4)
    }

    @Test("the lowest value wins, not the longest prefix") func order() throws {
        let rules: [(String, UInt16)] = [("10.0.0.0/8", 2), ("10.1.0.0/16", 5), ("10.1.1.0/24", 1)]
        let groups = rules.map { (prefixes: [Prefix($0.0)].compactMap { $0 }, value: $0.1) }
        let table = try #require(PrefixTable(groups))
        defer { table.deallocate() }
        #expect(table.value(of: IPAddress(v4: 0x0A01_0203)) == 2)
        #expect(table.value(of: IPAddress(v4: 0x0A01_0103)) == 1)
        #expect(table.value(of: IPAddress(v4: 0x0B01_0103)) == PrefixTable.none)
    }

    @Test("100,000 prefixes answer as 100,000 comparisons would") func many() throws {
        var random = SplitMix64(seed: 3)
        let prefixes = (0..<100_000).compactMap { _ in prefix(IPAddress(v4: UInt32(random.next() >> 32)), 120) }
        let blocks = Set(prefixes.map { $0.first.v4Bits >> 8 })
        let table = try #require(PrefixTable([(prefixes: prefixes, value: UInt16(0))]))
        defer { table.deallocate() }
        for _ in 0..<100_000 {
            let bits = UInt32(random.next() >> 32)
            #expect((table.value(of: IPAddress(v4: bits)) == 0) == blocks.contains(bits >> 8))
        }
        #expect(table.byteCount < 24 * prefixes.count)
    }

    @Test("prefixes read from bytes are those read from text")
    func ascii() {
        for text in [
            "10.0.0.0/8", "10.0.0.1/8", "::/0", "2001:db8::/32", "2001:db8::/129", "1.2.3.4", "1.2.3.4/", "1.2.3.4/08",
            "1.2.3.4/33", "::1/128", "/8", "", "::ffff:1.2.3.4", "::ffff:1.2.3.0/120", "1.2.3.4/3x", "1.2.3.4//2",
            "::/256",
        ] {
            var copy = text
            #expect(copy.withUTF8 { Prefix(ascii: $0) } == Prefix(text), "\(text)")
        }
    }
}
