import Pipeline

/// What a route claims: a name at a port, or a port. Valid as long as the memory its bytes are in.
struct Claim {
    let name: Bytes
    let kind: KeyKind
    let port: UInt16
    let env: UInt32
    /// Of name and kind, see ``RouteTable/hash(_:_:port:seed:)``.
    let hash: UInt64
}

/// Why a claim can't stand beside those that are there. Numbers are those of the claims in the way.
enum Conflict: Equatable {
    /// R5: the name is another env's.
    case name(UInt32)
    /// R4: the name is one that another env's wildcard takes.
    case underWildcard(UInt32)
    /// R4: the wildcard would take names of this other env.
    case overNames(env: UInt32)
    /// R8: the env has this name at this port already.
    case samePort(UInt32)
    /// R8: a raw route has the whole port.
    case portIsRaw(UInt32)
    /// R8: a raw route needs the whole port, but there are routes by name; nil: several.
    case portHasNames(UInt32?, count: Int)
    /// R27: the name has routes at ``Claims/portsPerName`` ports.
    case tooManyPorts
}

/// Who has which name and port: the ownership and conflict rules R4, R5 and R8, and nothing else.
///
/// Claims are numbers; `look` says what each claims. The invariant: no two claims in it conflict, because each was
/// checked by ``conflict(of:except:_:)`` before ``add(_:_:)``.
struct Claims {
    /// The most ports one name can have routes at (R27): routes of one name share a hash, so this bounds lookups.
    static let portsPerName = 64

    private struct PortUse {
        var count: UInt32 = 0
        /// All numbers + 1, combined: the number itself where there is one claim.
        var mix: UInt32 = 0
        var isRaw = false
    }

    typealias Look = (UInt32) -> Claim

    private let seed: HashSeed
    private var names = HashIndex()
    private var ports: [UInt16: PortUse] = [:]
    private(set) var wildcardCount = 0
    /// For the suffixes of wildcards that may be added: how many names each env has right below.
    private var below: [UInt64: [UInt32: Int]] = [:]

    init(seed: HashSeed) { self.seed = seed }

    var count: Int { names.count }

    // MARK: The rules

    /// Why `claim` can't be added; nil: it can. `except` is a claim that it would replace.
    func conflict(of claim: Claim, except: UInt32?, _ look: Look) -> Conflict? {
        if let found = portConflict(claim, except) { return found }
        guard claim.kind != .raw else { return nil }
        if let found = nameConflict(claim, except, look) { return found }
        return claim.kind == .wildcard
            ? overNames(claim, except, look) : wildcardCount > 0 ? underWildcard(claim, except, look) : nil
    }

    private func portConflict(_ claim: Claim, _ except: UInt32?) -> Conflict? {
        guard let use = ports[claim.port], use.count > 0 else { return nil }
        let sole = use.count == 1 ? use.mix &- 1 : nil
        if sole != nil, sole == except { return nil }
        if use.isRaw { return .portIsRaw(sole ?? 0) }
        return claim.kind == .raw ? .portHasNames(sole, count: Int(use.count)) : nil
    }

    private func nameConflict(_ claim: Claim, _ except: UInt32?, _ look: Look) -> Conflict? {
        var found: Conflict?
        var same = 0
        _ = names.find(claim.hash) { number in
            guard number != except else { return false }
            let other = look(number)
            guard other.kind == claim.kind, sameBytes(other.name, claim.name) else { return false }
            same += 1
            if other.env != claim.env {
                found = .name(number)
            } else if other.port == claim.port {
                found = .samePort(number)
            }
            return found != nil
        }
        return found ?? (same >= Claims.portsPerName ? .tooManyPorts : nil)
    }

    /// A name under another env's wildcard, at whichever port: the name would take traffic from it.
    private func underWildcard(_ claim: Claim, _ except: UInt32?, _ look: Look) -> Conflict? {
        guard let parent = Claims.parent(of: claim.name) else { return nil }
        let hash = SipHash.hash(parent, domain: KeyKind.wildcard.rawValue, seed: seed)
        let found = names.find(hash) { number in
            guard number != except else { return false }
            let other = look(number)
            return other.kind == .wildcard && other.env != claim.env && sameBytes(other.name, parent)
        }
        return found.map { .underWildcard($0) }
    }

    private func overNames(_ claim: Claim, _ except: UInt32?, _ look: Look) -> Conflict? {
        guard var counts = below[claim.hash] else { return nil }
        // What the claim replaces may itself be a name below it, of the env that the route leaves.
        if let except {
            let replaced = look(except)
            if replaced.kind == .exact, let hash = parentHash(replaced), hash == claim.hash {
                counts[replaced.env, default: 0] -= 1
            }
        }
        let others = counts.filter { $0.key != claim.env && $0.value > 0 }
        return others.keys.min().map { .overNames(env: $0) }
    }

    /// What follows the first label; nil for a name of one label.
    static func parent(of name: Bytes) -> Bytes? {
        guard let dot = name.firstIndex(of: 0x2E), dot + 1 < name.count else { return nil }
        return Bytes(rebasing: name[(dot + 1)...])
    }

    private func parentHash(_ claim: Claim) -> UInt64? {
        Claims.parent(of: claim.name).map { SipHash.hash($0, domain: KeyKind.wildcard.rawValue, seed: seed) }
    }

    // MARK: Changes

    mutating func add(_ number: UInt32, _ claim: Claim) {
        var use = ports[claim.port] ?? PortUse()
        use.count += 1
        use.mix ^= number &+ 1
        use.isRaw = claim.kind == .raw
        ports[claim.port] = use
        guard claim.kind != .raw else { return }
        names.insert(claim.hash, number)
        if claim.kind == .wildcard { wildcardCount += 1 }
        countBelow(claim, 1)
    }

    mutating func remove(_ number: UInt32, _ claim: Claim) {
        if var use = ports[claim.port], use.count > 0 {
            use.count -= 1
            use.mix ^= number &+ 1
            ports[claim.port] = use.count == 0 ? nil : use
        }
        guard claim.kind != .raw else { return }
        names.remove(claim.hash, number)
        if claim.kind == .wildcard { wildcardCount -= 1 }
        countBelow(claim, -1)
    }

    private mutating func countBelow(_ claim: Claim, _ change: Int) {
        guard !below.isEmpty, claim.kind == .exact, let hash = parentHash(claim), below[hash] != nil else { return }
        below[hash]?[claim.env, default: 0] += change
    }

    // MARK: Wildcards to come

    /// Says which wildcards may be added until ``stopWatching()``: only for these are names below them counted.
    /// The caller goes through all claims once, with ``watch(_:)``.
    mutating func startWatching(_ wildcards: [UInt64]) {
        below = Dictionary(wildcards.map { ($0, [:]) }, uniquingKeysWith: { first, _ in first })
    }
    /// Counts a claim that was there before ``startWatching(_:)``.
    mutating func watch(_ claim: Claim) { countBelow(claim, 1) }
    mutating func stopWatching() { below = [:] }

    // MARK: Ports

    /// Each port in use; the claim's number where there is only one.
    func forEachPort(_ body: (_ port: UInt16, _ sole: UInt32?) -> Void) {
        for (port, use) in ports { body(port, use.count == 1 ? use.mix &- 1 : nil) }
    }
    var portCount: Int { ports.count }
}
