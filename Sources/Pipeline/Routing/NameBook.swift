import Pipeline

/// The names and wildcards of one apply, each once, with their claimants and owners.
///
/// Texts are those of documents and of the last table, which outlive it.
final class NameBook {
    struct Name {
        let bytes: Bytes
        let kind: KeyKind
        /// Its edges to wildcards that it clashes with: where they begin in ``edges``, and how many there are.
        var above: UInt32 = 0
        var aboveCount: UInt8 = 0
        /// Of a wildcard: the first edge from a name below it, and where the sums of those are.
        var child = NameBook.none
        var below = NameBook.none
        /// The first of ``entries`` and of ``Claims/groups``.
        var entries = NameBook.none
        var groups = NameBook.none
        /// The env that has it by an entry.
        var granted = NameBook.none
        /// Envs whose entries conflict without a decision.
        var contested = EnvMark.none
        /// Envs with routes that may still have it; of those, envs that had it before or by an entry.
        var alive: UInt32 = 0
        var secure: UInt32 = 0
        /// The env whose routes have it.
        var taken = NameBook.none
    }

    /// A name and a wildcard over it: both would take some connections.
    struct Edge {
        let name: UInt32
        let pattern: UInt32
        /// The next one of the pattern.
        let next: UInt32
    }

    /// What is below a wildcard.
    struct Below {
        struct Count {
            var alive: UInt32 = 0
            var secure: UInt32 = 0
        }
        var granted = EnvMark.none
        var contested = EnvMark.none
        var taken = EnvMark.none
        var counts: [UInt32: Count] = [:]
        /// Envs with a count that isn't 0.
        var alive: UInt32 = 0
        var secure: UInt32 = 0
    }

    static let none = UInt32.max

    let seed: HashSeed
    var names: [Name] = []
    var belows: [Below] = []
    private(set) var edges: [Edge] = []
    private var index = HashIndex()
    private var patterns = NamePatterns()

    init(seed: HashSeed) { self.seed = seed }

    func reserve(_ more: Int) {
        names.reserveCapacity(names.count + more)
        index.reserve(more)
    }

    /// The number of a name that is there.
    func find(_ name: Bytes, _ kind: KeyKind) -> UInt32? { find(name, kind, hash(name, kind)) }

    var hasPatterns: Bool { !patterns.isEmpty }

    /// One of its wildcards takes the name, or might.
    func isUnderPattern(_ name: Bytes) -> Bool {
        patterns.first(over: name) { find($0, KeyKind($1)) } != nil
    }

    private func find(_ name: Bytes, _ kind: KeyKind, _ hash: UInt64) -> UInt32? {
        index.find(hash, where: { names[Int($0)].kind == kind && sameBytes(names[Int($0)].bytes, name) })
    }

    private func hash(_ name: Bytes, _ kind: KeyKind) -> UInt64 {
        SipHash.hash(name, domain: kind.rawValue, seed: seed)
    }

    /// The number of a name, old or new. All must be there before ``linkWildcards()``.
    func intern(_ name: Bytes, _ kind: KeyKind) -> UInt32 {
        let hash = hash(name, kind)
        if let known = find(name, kind, hash) { return known }
        let number = UInt32(names.count)
        names.append(Name(bytes: name, kind: kind))
        index.insert(hash, number)
        if kind == .wildcard { patterns.hasWildcards = true }
        if kind == .suffix { patterns.suffixes.insert(LabelCounts.of(name)) }
        return number
    }

    /// Puts each name, wildcards too, under the wildcards that it clashes with (R4). Each pair that can clash has one
    /// edge, from the longer suffix to the shorter; of equal ones, to the one that takes more.
    func linkWildcards() {
        guard !patterns.isEmpty else { return }
        for number in names.indices {
            names[number].above = UInt32(edges.count)
            let (bytes, kind) = (names[number].bytes, names[number].kind)
            let _: Void? = patterns.first(over: bytes) { suffix, found in
                let pattern = KeyKind(found)
                // Not itself; and two of one label each never take the same name, but for equal ones.
                if pattern != kind || kind == .suffix && suffix.count < bytes.count { link(number, suffix, pattern) }
                return nil
            }
        }
        for number in names.indices where names[number].kind != .exact {
            names[number].below = UInt32(belows.count)
            belows.append(Below())
        }
    }

    private func link(_ number: Int, _ suffix: Bytes, _ kind: KeyKind) {
        guard let pattern = find(suffix, kind, hash(suffix, kind)) else { return }
        edges.append(Edge(name: UInt32(number), pattern: pattern, next: names[Int(pattern)].child))
        names[Int(pattern)].child = UInt32(edges.count - 1)
        names[number].aboveCount += 1
    }

    /// The wildcards over a name.
    func above(_ number: UInt32) -> LazyMapSequence<ArraySlice<Edge>, UInt32> {
        let start = Int(names[Int(number)].above)
        return edges[start..<start + Int(names[Int(number)].aboveCount)].lazy.map(\.pattern)
    }

    /// The names below a wildcard.
    func forEachBelow(_ pattern: UInt32, _ body: (UInt32) -> Void) {
        var edge = names[Int(pattern)].child
        while edge != NameBook.none {
            body(edges[Int(edge)].name)
            edge = edges[Int(edge)].next
        }
    }

    func text(_ number: UInt32) -> String {
        let name = names[Int(number)]
        if name.kind == .client, let key = ClientKey(name.bytes) { return key.text }
        return name.kind.mark + String(decoding: name.bytes, as: UTF8.self)
    }

    /// Where the sums below each of the wildcards over a name are.
    func sumsAbove(_ number: UInt32) -> [Int] {
        names[Int(number)].aboveCount == 0 ? [] : above(number).map { Int(names[Int($0)].below) }
    }

    /// True if no other env's wildcard or entry affects the name.
    func isAlone(_ number: UInt32, _ env: UInt32) -> Bool {
        let name = names[Int(number)]
        return name.aboveCount == 0 && name.below == NameBook.none && name.contested.isNone
            && (name.granted == NameBook.none || name.granted == env)
    }

    // MARK: What entries decided

    enum Standing {
        /// No entry is in the way, and none speaks for it.
        case free
        /// The env has the name by an entry.
        case owned
        /// The name, or one that it clashes with, is another env's by an entry.
        case another
        /// Entries conflict without a decision.
        case contested
    }

    /// What entries say of a name for an env (R4, R5).
    func standing(_ number: UInt32, _ env: UInt32) -> Standing {
        let name = names[Int(number)]
        if name.granted != NameBook.none { return name.granted == env ? .owned : .another }
        if !name.contested.isNone { return .contested }
        var isContested = false
        for number in above(number) {
            let pattern = names[Int(number)]
            if pattern.granted != NameBook.none, pattern.granted != env { return .another }
            isContested = isContested || pattern.contested.hasOther(than: env)
        }
        if name.below != NameBook.none {
            let below = belows[Int(name.below)]
            if below.granted.hasOther(than: env) { return .another }
            isContested = isContested || below.contested.hasOther(than: env)
        }
        return isContested ? .contested : .free
    }
}
