/// Which wildcards a table or a book has, and the order of those over a name (R4): what a lookup finds and what a claim
/// clashes with is the same.
struct NamePatterns: Equatable {
    var hasWildcards = false
    /// How many labels its suffixes have.
    var suffixes = LabelCounts()

    @inline(__always) var isEmpty: Bool { !hasWildcards && suffixes.isEmpty }

    /// Asks for those that take `name`, the longest suffix first: `.name` itself; then with each label less `*.` where that
    /// is the first, and `.`. Only lengths that some suffix has are asked for.
    /// - Parameter body: what follows the mark, and its kind; what it finds ends the search.
    @inline(__always) func first<Found>(over name: Bytes, _ body: (Bytes, KeyKind) -> Found?) -> Found? {
        var labels = suffixes.isEmpty ? 0 : LabelCounts.of(name)
        if suffixes.contains(labels), let found = body(name, .suffix) { return found }
        guard var rest = name.behindFirstLabel else { return nil }
        if hasWildcards, let found = body(rest, .wildcard) { return found }
        while labels > 1 {
            labels &-= 1
            if suffixes.contains(labels), let found = body(rest, .suffix) { return found }
            guard let next = rest.behindFirstLabel else { return nil }
            rest = next
        }
        return nil
    }
}

/// How many labels the suffixes of a table or a book have: a lookup tries no other length.
struct LabelCounts: Equatable {
    private var low: UInt64 = 0
    private var high: UInt64 = 0

    var isEmpty: Bool { low | high == 0 }
    /// - Parameter labels: at most 127, as names have.
    @inline(__always) func contains(_ labels: Int) -> Bool {
        (labels < 64 ? low &>> UInt64(labels) : high &>> UInt64(labels &- 64)) & 1 != 0
    }
    mutating func insert(_ labels: Int) {
        if labels < 64 { low |= 1 &<< UInt64(labels) } else { high |= 1 &<< UInt64(labels &- 64) }
    }

    @inline(__always) static func of(_ name: Bytes) -> Int {
        var labels = 1
        for byte in name where byte == 0x2E { labels &+= 1 }
        return labels
    }
}

extension Bytes {
    /// Of a canonical name: what follows its first label; nil: it has one label.
    @inline(__always) var behindFirstLabel: Bytes? {
        var dot = 0
        while dot < count, self[dot] != 0x2E { dot &+= 1 }
        guard dot > 0, dot &+ 1 < count else { return nil }
        return Bytes(rebasing: self[(dot &+ 1)...])
    }
}
