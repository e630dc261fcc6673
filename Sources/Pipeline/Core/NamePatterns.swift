/// Which wildcards a table, a book or a set has, and the order of those over a name (R4): what a lookup finds, what a claim
/// clashes with and what a set matches is the same.
@frozen public struct NamePatterns: Equatable, Sendable {
    @frozen public enum Kind: Sendable {
        /// `*.example.com`: one label before the name.
        case wildcard
        /// `.example.com`: the name and everything under it.
        case suffix
    }

    public var hasWildcards = false
    /// How many labels its suffixes have.
    public var suffixes = LabelCounts()

    public init(hasWildcards: Bool = false, suffixes: LabelCounts = LabelCounts()) {
        self.hasWildcards = hasWildcards
        self.suffixes = suffixes
    }

    @inlinable public var isEmpty: Bool { !hasWildcards && suffixes.isEmpty }

    /// Asks for those that take `name`, which must be canonical, the longest suffix first: `.name` itself; then with each
    /// label less `*.` where that is the first, and `.`. Only lengths that some suffix has are asked for.
    /// - Parameter body: what follows the mark, and its kind; what it finds ends the search.
    @inlinable @inline(__always) public func first<Found>(
        over name: UnsafeBufferPointer<UInt8>, _ body: (UnsafeBufferPointer<UInt8>, Kind) -> Found?
    ) -> Found? {
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

/// How many labels suffixes have: a lookup tries no other length.
@frozen public struct LabelCounts: Equatable, Sendable {
    @usableFromInline var low: UInt64 = 0
    @usableFromInline var high: UInt64 = 0

    public init() {}

    @inlinable public var isEmpty: Bool { low | high == 0 }
    /// - Parameter labels: at most 127, as names have.
    @inlinable @inline(__always) public func contains(_ labels: Int) -> Bool {
        (labels < 64 ? low &>> UInt64(labels) : high &>> UInt64(labels &- 64)) & 1 != 0
    }
    public mutating func insert(_ labels: Int) {
        if labels < 64 { low |= 1 &<< UInt64(labels) } else { high |= 1 &<< UInt64(labels &- 64) }
    }

    @inlinable @inline(__always) public static func of(_ name: UnsafeBufferPointer<UInt8>) -> Int {
        var labels = 1
        for byte in name where byte == 0x2E { labels &+= 1 }
        return labels
    }
}

extension UnsafeBufferPointer<UInt8> {
    /// Of a canonical name: what follows its first label; nil: it has one label.
    @inlinable @inline(__always) var behindFirstLabel: UnsafeBufferPointer<UInt8>? {
        var dot = 0
        while dot < count, self[dot] != 0x2E { dot &+= 1 }
        guard dot > 0, dot &+ 1 < count else { return nil }
        return UnsafeBufferPointer(rebasing: self[(dot &+ 1)...])
    }
}
