import Pipeline

/// Makes a ``RangeTrie`` of sorted starts.
struct RangeTrieBuilder<Key: FixedWidthInteger & UnsignedInteger & Sendable> {
    typealias Trie = RangeTrie<Key>

    /// One table for all keys: the first bits are looked up directly, more of them the more starts there are.
    static func table(_ starts: [Key], _ values: [UInt16]) -> Trie {
        var bits = 0
        while bits < 16, starts.count >> (bits + 4) > 0 { bits += 1 }
        var builder = RangeTrieBuilder(starts: starts)
        var roots: [Trie.Entry] = []
        roots.reserveCapacity(1 << bits)
        var first = 0
        for root in 0..<(1 << bits) {
            var end = first
            while end < starts.count, bits == 0 || Int(starts[end] >> Key(Key.bitWidth - bits)) == root { end += 1 }
            roots.append(builder.entry(first..<end, depth: bits))
            first = end
        }
        return builder.finish(values, roots: roots, rootBits: bits)
    }

    /// A table with a root for each of `segments`, which are in a row and begin with key 0 each.
    static func table(_ starts: [Key], _ values: [UInt16], segments: [Range<Int>]) -> Trie {
        var builder = RangeTrieBuilder(starts: starts)
        let roots = segments.map { builder.entry($0, depth: 0) }
        return builder.finish(values, roots: roots, rootBits: 0)
    }

    private let starts: [Key]
    private var nodes: [Trie.Node] = []
    private var buckets: [Trie.Entry] = []

    private init(starts: [Key]) { self.starts = starts }

    private mutating func entry(_ range: Range<Int>, depth: Int) -> Trie.Entry {
        guard range.count > Trie.bucketLimit else { return Trie.Entry(start: range.lowerBound, count: range.count) }
        let index = nodes.count
        nodes.append(Trie.Node())
        fill(index, range, depth: depth)
        return Trie.Entry(node: index)
    }

    /// Fills a node with the starts of `range`, which have their first `depth` bits in common.
    private mutating func fill(_ index: Int, _ range: Range<Int>, depth: Int) {
        let (node, children) = divide(range, depth: depth)
        nodes[index] = node
        // Children are consecutive, so all get their places before the first one gets children.
        nodes[index].firstChild = UInt32(truncatingIfNeeded: nodes.count)
        let first = nodes.count
        nodes.append(contentsOf: repeatElement(Trie.Node(), count: children.count))
        for (offset, child) in children.enumerated() { fill(first + offset, child, depth: depth + 6) }
    }

    /// Gives each slot with too many starts a node, and puts the others into buckets, neighbours together.
    private mutating func divide(_ range: Range<Int>, depth: Int) -> (Trie.Node, children: [Range<Int>]) {
        var node = Trie.Node()
        node.firstBucket = UInt32(truncatingIfNeeded: buckets.count)
        var children: [Range<Int>] = []
        var open: Range<Int>?
        var first = range.lowerBound
        for slot in 0..<64 as Range<UInt64> {
            var end = first
            while end < range.upperBound, Self.slot(starts[end], depth) == slot { end += 1 }
            if end - first > Trie.bucketLimit {
                if let open { buckets.append(Trie.Entry(start: open.lowerBound, count: open.count)) }
                open = nil
                node.inner |= 1 << slot
                children.append(first..<end)
            } else if let bucket = open, end - bucket.lowerBound <= Trie.bucketLimit {
                open = bucket.lowerBound..<end
            } else {
                if let open { buckets.append(Trie.Entry(start: open.lowerBound, count: open.count)) }
                node.begins |= 1 << slot
                open = first..<end
            }
            first = end
        }
        if let open { buckets.append(Trie.Entry(start: open.lowerBound, count: open.count)) }
        return (node, children)
    }

    /// The 6 bits of `key` behind the first `depth`; the last step may have fewer, with zeros behind them.
    private static func slot(_ key: Key, _ depth: Int) -> UInt64 {
        UInt64(truncatingIfNeeded: (key << Key(depth)) >> Key(Key.bitWidth - 6))
    }

    private func finish(_ values: [UInt16], roots: [Trie.Entry], rootBits: Int) -> Trie {
        var bits = [UInt64](repeating: 0, count: (values.count + 63) / 64)
        for (index, value) in values.enumerated() where value == PrefixTable.split {
            bits[index >> 6] |= 1 << UInt64(index & 63)
        }
        var ranks: [UInt32] = []
        var rank: UInt32 = 0
        for word in bits {
            ranks.append(rank)
            rank += UInt32(word.nonzeroBitCount)
        }
        // Only the high halves have splits; other tables do without.
        if rank == 0 { (bits, ranks) = ([], []) }
        return Trie(
            starts: FrozenArray(starts), values: FrozenArray(values), nodes: FrozenArray(nodes),
            buckets: FrozenArray(buckets), roots: FrozenArray(roots), rootBits: rootBits,
            splitBits: FrozenArray(bits), splitRanks: FrozenArray(ranks))
    }
}
