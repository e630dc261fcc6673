import Pipeline

/// A `names` block: hostnames and patterns of whole labels, up to millions. Immutable.
///
/// Ownership: the program, through the stages that name it. What the data path reads is ``table``, without reference
/// counting, and valid as long as this object.
public final class NameSet: ConfigBlock {
    public let name: String
    public let table: NameTable

    public init(name: String, entries: NameEntries, seed: HashSeed = .random()) {
        self.name = name
        table = NameTable(entries, seed: seed)
    }

    deinit { table.deallocate() }
}

/// What an entry of a set matches.
public struct NameKinds: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The name itself.
    public static let exact = NameKinds(rawValue: 1)
    /// `*.example.com`: one label before the name.
    public static let wildcard = NameKinds(rawValue: 2)
    /// `.example.com`: the name and everything under it.
    public static let suffix = NameKinds(rawValue: 4)
}

/// Names on their way into a ``NameTable``: canonical, one behind the other.
public struct NameEntries: Sendable {
    /// For each name its kinds, its length, and its bytes.
    fileprivate(set) var bytes: [UInt8] = []
    public private(set) var count = 0

    public init() {}

    /// Adds `example.com`, `*.example.com` or `.example.com`, as it stands in a config or a file; R3 makes it canonical.
    /// - Returns: false, and nothing is added, if it is no such name.
    public mutating func add(_ text: UnsafeBufferPointer<UInt8>) -> Bool {
        var kind = NameKinds.exact
        var start = 0
        if text.first == UInt8(ascii: ".") {
            (kind, start) = (.suffix, 1)
        } else if text.count >= 2, text[0] == UInt8(ascii: "*"), text[1] == UInt8(ascii: ".") {
            (kind, start) = (.wildcard, 2)
        }
        return add(UnsafeBufferPointer(rebasing: text[start...]), kind)
    }

    /// Adds the name `text` as `kind`. False, and nothing is added, if it is no hostname.
    public mutating func add(_ text: UnsafeBufferPointer<UInt8>, _ kind: NameKinds) -> Bool {
        var canonical = ServerName()
        // A wildcard's name with one label in front must still fit.
        guard canonical.set(wire: text), kind != .wildcard || canonical.count + 2 <= ServerName.capacity,
            bytes.count < Int(UInt32.max) - 512
        else { return false }
        bytes.append(kind.rawValue)
        bytes.append(UInt8(truncatingIfNeeded: canonical.count))
        canonical.withBytes { bytes.append(contentsOf: $0) }
        count += 1
        return true
    }
}

/// Names in an open-addressed hash table over flat memory. A lookup costs one probe for the name and one for each pattern
/// over it that an entry could be, however many entries there are. Same ownership as ``FrozenArray``.
public struct NameTable: Sendable {
    /// An entry that matched: where it stands, and as what.
    public struct Match: Equatable, Sendable {
        public let offset: UInt32
        public let kind: NameKinds
    }

    /// Kinds, length and bytes of each name.
    private let arena: FrozenArray<UInt8>
    /// Offsets into the arena, plus one; 0: free.
    private let slots: FrozenArray<UInt32>
    private let seed: HashSeed
    private let hasExact: Bool
    private let patterns: NamePatterns
    /// How many different names there are.
    public let count: Int

    init(_ entries: NameEntries, seed: HashSeed) {
        var arena = entries.bytes
        var capacity = 8
        while capacity < entries.count * 2 { capacity *= 2 }
        var slots = [UInt32](repeating: 0, count: capacity)
        var patterns = NamePatterns()
        var (hasExact, names) = (false, 0)
        arena.withUnsafeMutableBufferPointer { arena in
            var offset = 0
            while offset + 2 <= arena.count {
                let length = Int(arena[offset + 1])
                let name = UnsafeBufferPointer(rebasing: arena[offset + 2..<offset + 2 + length])
                let kind = NameKinds(rawValue: arena[offset])
                if kind == .exact { hasExact = true }
                if kind == .wildcard { patterns.hasWildcards = true }
                if kind == .suffix { patterns.suffixes.insert(LabelCounts.of(name)) }
                var slot = Int(truncatingIfNeeded: SipHash.hash(name, seed: seed)) & (capacity - 1)
                while slots[slot] != 0, !NameTable.isName(name, at: slots[slot], in: UnsafeBufferPointer(arena)) {
                    slot = (slot + 1) & (capacity - 1)
                }
                if slots[slot] == 0 {
                    slots[slot] = UInt32(truncatingIfNeeded: offset + 1)
                    names += 1
                } else {
                    arena[Int(slots[slot]) - 1] |= kind.rawValue
                }
                offset += 2 + length
            }
        }
        self.arena = FrozenArray(arena)
        self.slots = FrozenArray(slots)
        self.seed = seed
        self.hasExact = hasExact
        self.patterns = patterns
        self.count = names
    }

    /// The entry for the longest part of `name`, which must be canonical; nil: none matches.
    public func match(_ name: UnsafeBufferPointer<UInt8>) -> Match? {
        guard count > 0, !name.isEmpty else { return nil }
        if hasExact, let match = find(name, .exact) { return match }
        guard !patterns.isEmpty else { return nil }
        return patterns.first(over: name) { find($0, $1 == .wildcard ? .wildcard : .suffix) }
    }

    /// As written, for `explain`: `*.example.com`.
    public func text(_ match: Match) -> String {
        let offset = Int(match.offset)
        let name = String(decoding: arena.buffer[offset + 2..<offset + 2 + Int(arena[offset + 1])], as: UTF8.self)
        return (match.kind == .wildcard ? "*." : match.kind == .suffix ? "." : "") + name
    }

    /// The first `limit` entries as written, for `check --print`: one that stands there twice comes twice.
    public func texts(_ limit: Int) -> [String] {
        var texts: [String] = []
        var offset = 0
        while offset + 2 <= arena.count, texts.count < limit {
            let kinds = NameKinds(rawValue: arena[offset])
            for kind in [NameKinds.exact, .wildcard, .suffix] where kinds.contains(kind) {
                texts.append(text(Match(offset: UInt32(truncatingIfNeeded: offset), kind: kind)))
            }
            offset += 2 + Int(arena[offset + 1])
        }
        return texts
    }

    /// Memory that it takes, in bytes.
    public var byteCount: Int { arena.count + slots.count * 4 }

    func deallocate() {
        arena.deallocate()
        slots.deallocate()
    }

    private func find(_ name: UnsafeBufferPointer<UInt8>, _ kind: NameKinds) -> Match? {
        let mask = slots.count &- 1
        var slot = Int(truncatingIfNeeded: SipHash.hash(name, seed: seed)) & mask
        // At most half of the slots are taken, so a free one ends it.
        while slots[slot] != 0 {
            let entry = slots[slot]
            if NameTable.isName(name, at: entry, in: arena.buffer) {
                guard NameKinds(rawValue: arena[Int(entry) &- 1]).contains(kind) else { return nil }
                return Match(offset: entry &- 1, kind: kind)
            }
            slot = (slot &+ 1) & mask
        }
        return nil
    }

    private static func isName(
        _ name: UnsafeBufferPointer<UInt8>, at entry: UInt32, in arena: UnsafeBufferPointer<UInt8>
    ) -> Bool {
        let offset = Int(entry) &- 1
        guard Int(arena[offset &+ 1]) == name.count else { return false }
        for index in 0..<name.count where arena[offset &+ 2 &+ index] != name[index] { return false }
        return true
    }
}
