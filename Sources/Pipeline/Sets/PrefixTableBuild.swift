import Pipeline

/// Cuts overlapping prefixes into ranges with one value each.
enum PrefixTableBuilder {
    /// The first address of a prefix, its last, and its value.
    fileprivate struct Span<Key: FixedWidthInteger & UnsignedInteger> {
        let first: Key
        let last: Key
        let value: UInt16
    }

    /// Starts and what holds from each to the next, merged where neighbours have one value.
    fileprivate struct Ranges<Key: FixedWidthInteger & UnsignedInteger> {
        var starts: [Key]
        var values: [UInt16]

        /// `base` holds where no later start says otherwise.
        init(base: UInt16, capacity: Int) {
            starts = []
            values = []
            starts.reserveCapacity(capacity)
            values.reserveCapacity(capacity)
            starts.append(0)
            values.append(base)
        }

        mutating func set(_ value: UInt16, from start: Key) {
            if let last = starts.last, last == start {
                starts.removeLast()
                values.removeLast()
            }
            guard values.last != value else { return }
            starts.append(start)
            values.append(value)
        }
    }

    static func build(
        _ groups: [(prefixes: [Prefix], value: UInt16)]
    ) -> (RangeTrie<UInt32>, RangeTrie<UInt64>, RangeTrie<UInt64>)? {
        let total = groups.reduce(0) { $0 + $1.prefixes.count }
        // A prefix makes two starts; a host of IPv6 three in its low half.
        guard total < RangeTrie<UInt32>.capacity / 4 else { return nil }
        var v4: [Span<UInt32>] = []
        var high: [Span<UInt64>] = []
        var hosts: [(high: UInt64, span: Span<UInt64>)] = []
        for (prefixes, value) in groups {
            for prefix in prefixes {
                let (first, last) = (prefix.first, prefix.last)
                if first.isIPv4, prefix.length >= 96 {
                    v4.append(Span(first: first.v4Bits, last: last.v4Bits, value: value))
                    continue
                }
                // It holds the whole of the mapped space: only these are as short and begin as it does.
                if prefix.contains(.unspecifiedV4) { v4.append(Span(first: 0, last: .max, value: value)) }
                if prefix.length <= 64 {
                    high.append(Span(first: first.high, last: last.high, value: value))
                } else {
                    hosts.append((first.high, Span(first: first.low, last: last.low, value: value)))
                }
            }
        }
        let four = ranges(sorted(v4), base: PrefixTable.none)
        let (six, low, segments) = halves(sorted(high), hosts)
        return (
            RangeTrieBuilder.table(four.starts, four.values), RangeTrieBuilder.table(six.starts, six.values),
            RangeTrieBuilder.table(low.starts, low.values, segments: segments)
        )
    }

    /// Outer ones before what they enclose.
    private static func sorted<Key>(_ spans: [Span<Key>]) -> [Span<Key>] {
        spans.sorted { $0.first != $1.first ? $0.first < $1.first : $0.last > $1.last }
    }

    /// Prefixes enclose each other or have nothing in common, so the open ones are a stack.
    private static func ranges<Key>(_ spans: some Collection<Span<Key>>, base: UInt16) -> Ranges<Key> {
        var ranges = Ranges<Key>(base: base, capacity: spans.count * 2 + 1)
        var open: [(last: Key, value: UInt16)] = []
        func close(before key: Key?) {
            while let top = open.last, key == nil || top.last < key.unsafelyUnwrapped {
                open.removeLast()
                if top.last != .max { ranges.set(open.last?.value ?? base, from: top.last + 1) }
            }
        }
        for span in spans {
            close(before: span.first)
            let value = min(span.value, open.last?.value ?? base)
            ranges.set(value, from: span.first)
            open.append((span.last, value))
        }
        close(before: nil)
        return ranges
    }

    /// The first halves, with a split wherever some prefix is longer than 64 bits, and what holds within those.
    private static func halves(
        _ high: [Span<UInt64>], _ hosts: [(high: UInt64, span: Span<UInt64>)]
    ) -> (Ranges<UInt64>, low: Ranges<UInt64>, segments: [Range<Int>]) {
        let whole = ranges(high, base: PrefixTable.none)
        let hosts = hosts.sorted {
            if $0.high != $1.high { return $0.high < $1.high }
            return $0.span.first != $1.span.first ? $0.span.first < $1.span.first : $0.span.last > $1.span.last
        }
        guard !hosts.isEmpty else { return (whole, Ranges(base: PrefixTable.none, capacity: 1), []) }
        var cut = Ranges<UInt64>(base: PrefixTable.none, capacity: whole.starts.count + hosts.count * 2)
        var low = Ranges<UInt64>(base: PrefixTable.none, capacity: hosts.count * 3)
        low.starts = []
        low.values = []
        var segments: [Range<Int>] = []
        var next = 0
        var value = PrefixTable.none
        var first = 0
        while first < hosts.count {
            let key = hosts[first].high
            var end = first
            while end < hosts.count, hosts[end].high == key { end += 1 }
            while next < whole.starts.count, whole.starts[next] <= key {
                value = whole.values[next]
                cut.set(value, from: whole.starts[next])
                next += 1
            }
            let inside = ranges(hosts[first..<end].map(\.span), base: value)
            segments.append(low.starts.count..<low.starts.count + inside.starts.count)
            low.starts += inside.starts
            low.values += inside.values
            cut.append(split: key, then: value)
            first = end
        }
        while next < whole.starts.count {
            cut.set(whole.values[next], from: whole.starts[next])
            next += 1
        }
        return (cut, low, segments)
    }
}

extension PrefixTableBuilder.Ranges where Key == UInt64 {
    /// A split of its own for `key`, never merged with a neighbour: each has its own root.
    fileprivate mutating func append(split key: UInt64, then value: UInt16) {
        if starts.last == key {
            starts.removeLast()
            values.removeLast()
        }
        starts.append(key)
        values.append(PrefixTable.split)
        if key != .max {
            starts.append(key + 1)
            values.append(value)
        }
    }
}
