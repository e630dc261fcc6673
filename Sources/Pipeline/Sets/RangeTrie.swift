import Pipeline

/// Finds the last of many sorted starts that is not above a key: a multibit trie of 6 bits a step whose nodes hold bit
/// maps instead of pointers (as in Poptrie: Asai, Ohara, SIGCOMM 2015), over buckets of a few starts.
///
/// The depth is bounded by the key's length; the memory by a few bytes a start, since a node is made only where more than
/// ``bucketLimit`` starts share their bits.
@frozen public struct RangeTrie<Key: FixedWidthInteger & UnsignedInteger & Sendable>: Sendable {
    /// One step of the trie: 64 slots, each with a node below it or in a bucket.
    @frozen public struct Node: Sendable {
        /// Slots with a node below them; those nodes are consecutive from ``firstChild``.
        public var inner: UInt64 = 0
        /// Slots where a bucket begins; it continues up to the next such slot. Buckets are consecutive from
        /// ``firstBucket``.
        public var begins: UInt64 = 0
        public var firstChild: UInt32 = 0
        public var firstBucket: UInt32 = 0
        public init() {}
    }

    /// The most starts in a bucket: they take one cache line, or two for 8-byte keys.
    static var bucketLimit: Int { 12 }
    /// How many starts ``Entry`` can number.
    static var capacity: Int { 1 << 26 }

    /// Ascending, and the first of each root is 0.
    public let starts: FrozenArray<Key>
    /// What holds from each start to the next.
    public let values: FrozenArray<UInt16>
    public let nodes: FrozenArray<Node>
    public let buckets: FrozenArray<Entry>
    /// One for each value of the first ``rootBits`` bits; in a table of low halves one for each high half.
    public let roots: FrozenArray<Entry>
    public let rootBits: Int
    /// Bit n: the value at position n is ``PrefixTable/split``.
    public let splitBits: FrozenArray<UInt64>
    /// How many of them are set before each word of ``splitBits``.
    public let splitRanks: FrozenArray<UInt32>

    /// Where a search continues: at a node, or in a bucket.
    @frozen public struct Entry: Sendable {
        /// A node's index with the top bit set; or a bucket's first start, times 32, and how many it has.
        public let bits: UInt32
        @inlinable public init(bits: UInt32) { self.bits = bits }
        init(node: Int) { bits = UInt32(truncatingIfNeeded: node) | 1 << 31 }
        init(start: Int, count: Int) { bits = UInt32(truncatingIfNeeded: start << 5 | count) }
        @inlinable public var isNode: Bool { bits >> 31 != 0 }
        @inlinable public var node: Int { Int(bits & 0x7FFF_FFFF) }
        @inlinable public var start: Int { Int(bits >> 5) }
        @inlinable public var count: Int { Int(bits & 31) }
    }

    @inlinable public func root(of key: Key) -> Entry {
        roots[rootBits == 0 ? 0 : Int(truncatingIfNeeded: key &>> Key(truncatingIfNeeded: Key.bitWidth &- rootBits))]
    }

    /// The position of the last start that is at most `key`, which is in `root`.
    @inlinable public func position(of key: Key, root: Entry) -> Int {
        var entry = root
        var rest = key &<< Key(truncatingIfNeeded: rootBits)
        while entry.isNode {
            let node = nodes.pointer(entry.node).pointee
            let slot = UInt64(truncatingIfNeeded: rest &>> Key(truncatingIfNeeded: Key.bitWidth &- 6))
            rest &<<= 6
            // The slots up to and with this one.
            let upTo = UInt64.max &>> (63 &- slot)
            if node.inner &>> slot & 1 != 0 {
                let rank = (node.inner & upTo).nonzeroBitCount
                entry = Entry(bits: node.firstChild &+ UInt32(truncatingIfNeeded: rank &- 1) | 1 << 31)
            } else {
                let rank = (node.begins & upTo).nonzeroBitCount
                entry = buckets[Int(node.firstBucket) &+ rank &- 1]
            }
        }
        var position = entry.start &- 1
        // Not a search that stops: every bucket has few starts, and a count has no branch to mispredict.
        let starts = starts.buffer
        var index = entry.start
        let end = index &+ entry.count
        while index < end {
            position &+= starts[index] <= key ? 1 : 0
            index &+= 1
        }
        return position
    }

    /// How many splits stand before `position`.
    @inlinable public func splitRank(_ position: Int) -> Int {
        let below = splitBits[position >> 6] & ((1 &<< UInt64(truncatingIfNeeded: position & 63)) &- 1)
        return Int(splitRanks[position >> 6]) &+ below.nonzeroBitCount
    }

    var byteCount: Int {
        starts.count * MemoryLayout<Key>.stride + values.count * 2 + nodes.count * MemoryLayout<Node>.stride
            + (buckets.count + roots.count + splitRanks.count) * 4 + splitBits.count * 8
    }

    func deallocate() {
        starts.deallocate()
        values.deallocate()
        nodes.deallocate()
        buckets.deallocate()
        roots.deallocate()
        splitBits.deallocate()
        splitRanks.deallocate()
    }
}
