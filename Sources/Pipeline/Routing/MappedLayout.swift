import Pipeline

/// What stands where in a table that is served where it lies (ADR 0116). Each part begins at a multiple of 8:
///
///     shards | place and first number of each | index of ids | members of groups | groups | uses of groups |
///     ids of routes that are elsewhere | texts
///
/// A shard is as it is in memory, with a route's id behind its name. Its routes have numbers that follow each other.
struct MappedLayout {
    /// Of the parts, and of what the bytes of ``TableRoute`` and ``RouteShard`` mean. Raise it with each change of those.
    static let version: UInt32 = 1
    /// Of what makes a route served as it is desired: what a text says, and the rules. Raise it with each change of those.
    static let meaning: UInt32 = 1

    static let mostRoutes = 1 << 28

    enum Part: Int, CaseIterable {
        case shards, places, slots, members, groups, uses, others, texts

        /// Bytes of one element.
        var stride: Int {
            switch self {
            case .shards, .texts: 1
            case .slots, .members: 4
            case .places, .uses, .others: 8
            case .groups: MappedGroup.stride
            }
        }
    }

    /// By part: where it begins, and how many elements it has.
    private(set) var starts: [Int] = []
    private(set) var counts: [Int] = []

    subscript(_ part: Part) -> (start: Int, count: Int) { (starts[part.rawValue], counts[part.rawValue]) }

    /// - Parameter counts: of all parts.
    init(counts: [Int]) {
        self.counts = counts
        var offset = 0
        for part in Part.allCases {
            starts.append(offset)
            offset += MappedLayout.padded(counts[part.rawValue] * part.stride)
        }
        end = offset
    }
    let end: Int

    static func padded(_ count: Int) -> Int { (count + 7) & ~7 }

    /// The counts, as they are noted with the table.
    var info: [UInt8] { counts.flatMap { withUnsafeBytes(of: UInt64($0).littleEndian, Array.init) } }

    /// Nil: they are not those of a table of so many bytes.
    init?(info: [UInt8], byteCount: Int) {
        guard info.count == Part.allCases.count * 8, byteCount < 1 << 40 else { return nil }
        var counts: [Int] = []
        var sum = 0
        for part in Part.allCases {
            let number = info.withUnsafeBytes {
                UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: part.rawValue * 8, as: UInt64.self))
            }
            // No sum of them overflows.
            guard number <= UInt64(byteCount) else { return nil }
            counts.append(Int(number))
            sum += MappedLayout.padded(Int(number) * part.stride)
        }
        guard sum == byteCount else { return nil }
        self.init(counts: counts)
    }
}

/// A group of a mapped table: routes to the instances of one process type at one port.
struct MappedGroup {
    static let stride = 32

    var env: Range<Int>
    var process: Range<Int>
    var port: UInt16
    var isHashed: Bool
    /// The places of its routes among the members.
    var members: Range<UInt32>
    var uses: Range<Int>

    init(
        env: Range<Int>, process: Range<Int>, port: UInt16, isHashed: Bool, members: Range<UInt32>, uses: Range<Int>
    ) {
        (self.env, self.process, self.port, self.isHashed) = (env, process, port, isHashed)
        (self.members, self.uses) = (members, uses)
    }

    var bytes: [UInt8] {
        var words = MappedWords()
        words.put(UInt32(truncatingIfNeeded: env.lowerBound), UInt32(truncatingIfNeeded: env.count))
        words.put(UInt32(truncatingIfNeeded: process.lowerBound), UInt32(truncatingIfNeeded: process.count))
        words.put(UInt32(port) | (isHashed ? 1 << 16 : 0), members.lowerBound)
        words.put(members.upperBound, UInt32(truncatingIfNeeded: uses.lowerBound))
        // The next one's begin where these end.
        return words.bytes
    }

    /// Nil: it leads out of the table.
    init?(_ base: UnsafeRawPointer, usesEnd: Int, members count: Int, texts: Int) {
        let word = { (index: Int) in UInt32(littleEndian: base.load(fromByteOffset: index * 4, as: UInt32.self)) }
        func range(_ start: UInt32, _ count: UInt32) -> Range<Int> { Int(start)..<Int(start) + Int(count) }
        (env, process) = (range(word(0), word(1)), range(word(2), word(3)))
        port = UInt16(truncatingIfNeeded: word(4))
        isHashed = word(4) >> 16 == 1
        let (first, last, firstUse) = (word(5), word(6), Int(word(7)))
        guard word(4) >> 16 <= 1, first <= last, Int(last) <= count, env.upperBound <= texts, !env.isEmpty,
            process.upperBound <= texts, firstUse <= usesEnd
        else { return nil }
        members = first..<last
        uses = firstUse..<usesEnd
    }
}

/// Numbers in the order of their bytes in a table.
struct MappedWords {
    private(set) var bytes: [UInt8] = []

    mutating func put(_ words: UInt32...) {
        for word in words { withUnsafeBytes(of: word.littleEndian) { bytes.append(contentsOf: $0) } }
    }
}
