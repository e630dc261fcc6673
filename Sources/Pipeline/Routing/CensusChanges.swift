import Pipeline

/// What another env has after a change, or nobody.
public struct OwnerChange: Equatable, Sendable {
    public enum Kind: Equatable, Sendable {
        /// From one env to another.
        case moved
        /// Nobody has it, though its env still asks for it.
        case lost
        case gained
        /// Nobody asks for it any more.
        case released
    }
    public let thing: RouteCensus.Thing
    public let kind: Kind
    public let from: String?
    public let to: String?
    /// The wildcard by which it is caught, or was; nil: it is had by itself.
    public let by: String?
    /// The routes that it had, whose connections it touches.
    public let routes: [String]
    /// Some route has it before or after.
    public let isUsed: Bool
    /// A route has it after, or one of a wildcard takes it.
    public let isServed: Bool

    /// R5: what its env had, it has no more, and not because that let it go.
    public var isOwnership: Bool { kind == .moved || kind == .lost }
}

/// One route of two moments.
public struct RouteChange: Equatable, Sendable {
    public let id: String
    /// Empty: it is new.
    public let before: [RouteCensus.Entry]
    /// Empty: it is gone.
    public let after: [RouteCensus.Entry]
}

/// Routes of one env whose backends differ in the same way, and nothing else of them.
public struct BackendsChange: Equatable, Sendable {
    public let owner: String
    public let before: [String]
    public let after: [String]
    public let routes: [String]
}

public struct CensusChanges {
    public private(set) var owners: [OwnerChange] = []
    public private(set) var routes: [RouteChange] = []
    public private(set) var backends: [BackendsChange] = []

    private let (before, after): (RouteCensus, RouteCensus)

    public init(_ before: RouteCensus, _ after: RouteCensus) {
        (self.before, self.after) = (before, after)
        compareOwners()
        compareRoutes()
    }

    // MARK: Owners

    private mutating func compareOwners() {
        var things: Set<RouteCensus.Thing> = []
        for (thing, owner) in before.owners where after.owners[thing] != owner { things.insert(thing) }
        for (thing, owner) in after.owners where before.owners[thing] != owner { things.insert(thing) }
        guard !things.isEmpty else { return }
        let uses = uses(of: things)
        owners = things.map { change(of: $0, uses[$0] ?? Use()) }.sorted {
            ("\($0.thing)", $0.thing.kind) < ("\($1.thing)", $1.thing.kind)
        }
    }

    /// The ports of a name in either, and the routes that had it.
    private struct Use {
        var ports: Set<UInt16> = []
        var routes: Set<String> = []
        var isServed = false
    }

    private func uses(of things: Set<RouteCensus.Thing>) -> [RouteCensus.Thing: Use] {
        var uses: [RouteCensus.Thing: Use] = [:]
        for (census, isBefore) in [(before, true), (after, false)] {
            for (id, entries) in census.routes {
                for entry in entries {
                    for thing in entry.things where things.contains(thing) {
                        uses[thing, default: Use()].ports.insert(entry.port)
                        if isBefore {
                            uses[thing, default: Use()].routes.insert(id)
                        } else {
                            uses[thing, default: Use()].isServed = true
                        }
                    }
                }
            }
        }
        return uses
    }

    private func change(of thing: RouteCensus.Thing, _ use: Use) -> OwnerChange {
        let (from, to) = (before.owners[thing], after.owners[thing])
        let make = { (kind: OwnerChange.Kind, from: String?, to: String?, by: Catcher?) in
            OwnerChange(
                thing: thing, kind: kind, from: from, to: to, by: by?.by, routes: use.routes.sorted(),
                isUsed: !use.ports.isEmpty, isServed: use.isServed || by?.isServing ?? false)
        }
        switch (from, to) {
        case (let from?, let to?): return make(.moved, from, to, nil)
        case (let from?, nil):
            if let other = catcher(of: thing, in: after, use), other.owner != from {
                return make(.moved, from, other.owner, other)
            }
            return make(isAsked(thing, by: from) ? .lost : .released, from, nil, nil)
        case (nil, let to):
            if let other = catcher(of: thing, in: before, use), other.owner != to {
                return make(.moved, other.owner, to, other)
            }
            return make(.gained, nil, to, nil)
        }
    }

    /// Who has a name by a wildcard; for a wildcard, the names under it. First who gets its connections at its ports; else
    /// who owns it, wherever the wildcard is served (R4: at any port).
    private func catcher(of thing: RouteCensus.Thing, in census: RouteCensus, _ use: Use) -> Catcher? {
        guard case .name(let name) = thing else { return nil }
        let key = NameKey(name)
        // A name that nobody has as such stands for all under a wildcard.
        let probe =
            key.kind == .exact
            ? name : CensusChanges.probe + "." + key.withBytes { String(decoding: $0, as: UTF8.self) }
        if let (owner, by) = use.ports.sorted().lazy.compactMap({ census.lookup(probe, port: $0) }).first {
            return Catcher(owner: owner, by: by, isServing: true)
        }
        return key.patternsAbove.lazy.compactMap { pattern in
            census.owners[.name(pattern.whole)].map { Catcher(owner: $0, by: pattern.whole, isServing: false) }
        }.first
    }

    private struct Catcher {
        let owner: String
        let by: String
        let isServing: Bool
    }

    private static let probe = "name-of-nobody-7f3a9c"

    private func isAsked(_ thing: RouteCensus.Thing, by env: String) -> Bool {
        if case .ipv4 = thing { return after.ipv4Wishes.contains(env) }
        return after.asking[thing]?.contains(env) ?? false
    }

    // MARK: Routes

    private mutating func compareRoutes() {
        var found: [RouteChange] = []
        var lists: [Lists: [String]] = [:]
        for (id, entries) in before.routes {
            let (old, new) = (sorted(entries), sorted(after.routes[id] ?? []))
            guard old.count == new.count, zip(old, new).allSatisfy({ $0.isSame($1) }) else {
                found.append(RouteChange(id: id, before: old, after: new))
                continue
            }
            for (one, other) in zip(old, new) {
                let key = Lists(owner: one.owner, before: before.backends(of: one), after: after.backends(of: other))
                if key.before != key.after { lists[key, default: []].append(id) }
            }
        }
        for (id, entries) in after.routes where before.routes[id] == nil {
            found.append(RouteChange(id: id, before: [], after: sorted(entries)))
        }
        routes = found.sorted { $0.id < $1.id }
        backends = lists.map {
            BackendsChange(
                owner: $0.key.owner, before: $0.key.before, after: $0.key.after, routes: Set($0.value).sorted())
        }.sorted { ($0.owner, $0.routes.first ?? "") < ($1.owner, $1.routes.first ?? "") }
    }

    private struct Lists: Hashable {
        let owner: String
        let before: [String]
        let after: [String]
    }

    private func sorted(_ entries: [RouteCensus.Entry]) -> [RouteCensus.Entry] {
        entries.count < 2 ? entries : entries.sorted { $0.place < $1.place }
    }
}

extension RouteCensus.Entry {
    /// All but the backends.
    fileprivate func isSame(_ other: RouteCensus.Entry) -> Bool {
        owner == other.owner && hostname == other.hostname && condition == other.condition && port == other.port
            && isRaw == other.isRaw && sentHeader == other.sentHeader && isMismatched == other.isMismatched
            && onDelete == other.onDelete && settings == other.settings
    }
}
