import Pipeline

/// The names and wildcards of one apply, each once, with their claimants and owners.
///
/// Texts are those of documents and of the last table, which outlive it.
final class NameBook {
    struct Name {
        let bytes: Bytes
        let isWildcard: Bool
        /// The wildcard right above, if the book has it.
        var parent = NameBook.none
        /// Of a wildcard: the first of the names right below, and where their sums are.
        var child = NameBook.none
        var sibling = NameBook.none
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

    /// What is right below a wildcard.
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
    private var index = HashIndex()
    private var wildcards = 0

    init(seed: HashSeed) { self.seed = seed }

    func reserve(_ more: Int) {
        names.reserveCapacity(names.count + more)
        index.reserve(more)
    }

    private func hash(_ name: Bytes, isWildcard: Bool) -> UInt64 {
        SipHash.hash(name, domain: (isWildcard ? KeyKind.wildcard : .exact).rawValue, seed: seed)
    }

    /// The number of a name, old or new. All must be there before ``linkWildcards()``.
    func intern(_ name: Bytes, isWildcard: Bool) -> UInt32 {
        let hash = hash(name, isWildcard: isWildcard)
        if let known = index.find(
            hash, where: { names[Int($0)].isWildcard == isWildcard && sameBytes(names[Int($0)].bytes, name) })
        {
            return known
        }
        let number = UInt32(names.count)
        names.append(Name(bytes: name, isWildcard: isWildcard))
        index.insert(hash, number)
        if isWildcard { wildcards += 1 }
        return number
    }

    /// Puts each name under its wildcard.
    func linkWildcards() {
        guard wildcards > 0 else { return }
        for number in names.indices where !names[number].isWildcard {
            guard let suffix = NameBook.parent(of: names[number].bytes) else { continue }
            let found = index.find(hash(suffix, isWildcard: true)) {
                names[Int($0)].isWildcard && sameBytes(names[Int($0)].bytes, suffix)
            }
            guard let parent = found.map(Int.init) else { continue }
            names[number].parent = UInt32(parent)
            names[number].sibling = names[parent].child
            names[parent].child = UInt32(number)
        }
        for number in names.indices where names[number].isWildcard {
            names[number].below = UInt32(belows.count)
            belows.append(Below())
        }
    }

    /// What follows the first label; nil for a name of one label.
    static func parent(of name: Bytes) -> Bytes? {
        guard let dot = name.firstIndex(of: 0x2E), dot + 1 < name.count else { return nil }
        return Bytes(rebasing: name[(dot + 1)...])
    }

    func text(_ number: UInt32) -> String {
        let name = names[Int(number)]
        return (name.isWildcard ? "*." : "") + String(decoding: name.bytes, as: UTF8.self)
    }

    /// The sums below the wildcard above a name, or nil.
    func belowParent(_ number: UInt32) -> Int? {
        let parent = names[Int(number)].parent
        return parent == NameBook.none ? nil : Int(names[Int(parent)].below)
    }

    /// True if no other env's wildcard or entry affects the name.
    func isAlone(_ number: UInt32, _ env: UInt32) -> Bool {
        let name = names[Int(number)]
        return name.parent == NameBook.none && name.below == NameBook.none && name.contested.isNone
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
        if name.parent != NameBook.none {
            let parent = names[Int(name.parent)]
            if parent.granted != NameBook.none, parent.granted != env { return .another }
            isContested = parent.contested.hasOther(than: env)
        }
        if name.below != NameBook.none {
            let below = belows[Int(name.below)]
            if below.granted.hasOther(than: env) { return .another }
            isContested = isContested || below.contested.hasOther(than: env)
        }
        return isContested ? .contested : .free
    }
}
