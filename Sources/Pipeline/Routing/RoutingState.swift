import Pipeline

/// What one apply did.
public struct ApplyReport: Sendable {
    public internal(set) var problems = RouteProblems()
    public internal(set) var added = 0
    public internal(set) var changed = 0
    public internal(set) var removed = 0
    public internal(set) var unchanged = 0
    /// Routes of which the document has no usable version, served as they last were (R24).
    public internal(set) var kept = 0
    /// Groups of backends that are others than before.
    public internal(set) var backendsChanged = 0
    /// How many parts of the table were made anew, of how many.
    public internal(set) var shardsBuilt = 0
    public internal(set) var shards = 0
    /// Whose connections must end, and when: all that are to be ended by now, see ``RouteDrain``.
    public internal(set) var drains: [RouteDrain] = []
}

/// The routes of this node: takes documents of desired state, holds the rules over them, and makes tables.
///
/// A document from a source replaces what that source said before; routes of the other stay. What comes together is
/// resolved together: who has a name, a port or an address is decided by `hostnames`, then by what was applied last, and
/// where neither tells, by nobody having it. The order of documents and of their objects decides nothing (R5).
///
/// Threading: control side only, one thread at a time. The tables of its ``snapshot`` are for all.
public final class RoutingState {
    let seed: HashSeed
    let store = RouteStore()
    /// Env ids and process types that are or were in use.
    let symbols: SymbolTable
    var rules: RouteRules
    var portUses = PortUses()
    /// R5: the control plane's word on names.
    var hostnames = LastHostnames()
    var ids = HashIndex()
    var envs: [UInt32: EnvRecord] = [:]
    var instances = InstanceTable()
    var groups = GroupTable()
    var liveRoutes = 0
    var drains = DrainList()
    /// Which apply runs, from 0.
    var applies: UInt64 = 0
    /// When the running apply happens; nil: it isn't known, or not asked for.
    var now: Instant?
    /// Entries of served routes that ask for a dedicated address (R9).
    var ipv4Routes: Set<UInt32> = []
    /// An env's dedicated address came, went or changed with the running apply.
    var addressesChanged = false
    /// R19: the `node_id` of instances that are here. Takes effect with the next ``apply(_:at:)``.
    public var nodeName = ""
    /// R19: the instances of this node, and who has which address.
    var localInstances: [LocalInstance] = []
    var instanceNumbers = InstanceNumbers()
    var directory: InstanceDirectoryBox?
    var directoryChanged = false

    /// The newest table. Keep it for as long as a worker or a connection uses its handle.
    public internal(set) var snapshot: RouteTableSnapshot

    /// What is known of an env.
    struct EnvRecord {
        var org: String
        var app: String
        var name: String
        /// A bit for each source whose last document has it.
        var sources: UInt8
        var box: UnsafeMutablePointer<OwnerBox>
        /// R9: its dedicated address, which no other env has.
        var ipv4: IPAddress?

        var identity: EnvName { EnvName(org: org, app: app, env: name) }
        var path: String { identity.path }
    }

    /// - Parameters:
    ///   - seed: keys the hashes over names; ``HashSeed/random()`` in a node.
    ///   - listeners: what the program listens on; nil: don't judge routes by it.
    public init(seed: HashSeed, listeners: [ListenerFacts]? = nil, policy: PortPolicy = .standard) {
        self.seed = seed
        symbols = SymbolTable(seed: seed)
        rules = RouteRules(listeners: listeners, policy: policy)
        let shards = UnsafeMutableBufferPointer<RouteShard.Pointer>.allocate(capacity: 1)
        shards.initialize(repeating: RouteShard.empty(store))
        let table = RouteTable(
            seed: seed, shardBits: 0, shards: shards, ports: RouteTable.makePorts([]), hasWildcards: false,
            dedicated: DedicatedTable([]))
        snapshot = RouteTableSnapshot(store: store, table: table, routeCount: 0)
    }

    deinit {
        drains.forget(store) { _ in true }
        for env in envs.values { store.release(env.box) }
        groups.visit { _, group in if let box = group.box { store.release(box) } }
        // What only this side knows of routes; entries go when the last snapshot does.
        for shard in snapshot.table.pointee.shards {
            for route in shard.pointee.all { store.entry(route.entry).pointee.isLive = false }
        }
    }

    /// What the program listens on, after a reload. Takes effect with the next ``apply(_:at:)``.
    public var listeners: [ListenerFacts]? {
        get { rules.listeners }
        set { rules.listeners = newValue }
    }

    /// Which ports no route may have (R8), after a reload. Takes effect with the next ``apply(_:at:)``.
    public var policy: PortPolicy {
        get { rules.policy }
        set { rules.policy = newValue }
    }

    /// Routes that name no balance may be asked to choose by consistent hash: the program has a `backend` stage whose
    /// default it is. Takes effect with the next ``apply(_:at:)``, for the routes of its document.
    public var hashesByDefault = false

    /// Frees what only connections held that have ended since. How much is still held.
    @discardableResult public func freeUnpinned() -> Int {
        store.freeUnpinned()
        return store.pinnedCount
    }

    /// Backends that new connections may no longer get, and old ones go on to: those that drain, and those that are gone.
    /// Valid until the next change; some of them may be in the table for other routes.
    public var leavingBackends: [(cell: UnsafePointer<BackendCell>, isDraining: Bool)] {
        let draining = drains.list.compactMap { drain -> (UnsafePointer<BackendCell>, Bool)? in
            guard case .backend(let cell) = drain.target else { return nil }
            return (cell, true)
        }
        return (draining + store.pinnedBackends.map { ($0, false) }).filter { $0.0.pointee.active.current > 0 }
    }

    /// Drops drains that were carried out, and with them what they keep alive. What is not dropped stays in every
    /// report, until it is cancelled because its instance is ready again.
    public func forgetDrains(where isDone: (RouteDrain) -> Bool) { drains.forget(store, isDone) }

    /// R9: where to listen for envs with an address of their own: the ports of their routes that ask for it, in order.
    public var dedicatedListeners: [DedicatedListener] {
        let seen = Set(ipv4Routes.compactMap(dedicatedListener))
        return seen.sorted { ($0.address, $0.port, $0.env) < ($1.address, $1.port, $1.env) }
    }

    private func dedicatedListener(_ entry: UInt32) -> DedicatedListener? {
        guard let current = store.entry(entry).pointee.current else { return nil }
        let env = groups[current.pointee.group].key.env
        guard let record = envs[env], let address = record.ipv4 else { return nil }
        return DedicatedListener(
            address: address, port: current.pointee.route.port,
            hint: current.pointee.options.contains(.raw) ? .tcpRaw : .tlsPassthrough, env: record.identity)
    }

    /// Checks a document whole, then makes one new table of it (R22). Objects that can't be used are reported, and
    /// the rest applied (R24).
    ///
    /// - Parameter now: backends that are ready since this apply start slowly from here on; nil: nobody does, which is
    ///   right for the first apply of a node.
    public func apply(_ document: StateDocument, at now: Instant? = nil) -> ApplyReport {
        apply(together: [document], at: now)
    }

    /// The same for documents of several sources, at most one of each: one change.
    public func apply(together documents: [StateDocument], at now: Instant? = nil) -> ApplyReport {
        precondition(Set(documents.map(\.source)).count == documents.count, "one document a source")
        self.now = now
        return ApplyRun(self, documents).run()
    }

    /// Blocks of memory that this state and its snapshots hold: for tests that look for leaks.
    public var memory: RouteStore { store }

    func owner(_ env: UInt32) -> String { envs[env]?.path ?? symbols.string(env) }
}

extension RouteShard {
    /// A shard without routes.
    static func empty(_ store: RouteStore) -> Pointer {
        // With no item, neither is asked for.
        store.makeShard([], owner: { _ in preconditionFailure() }, backends: { _ in preconditionFailure() })
    }
}

/// One route, for people.
public struct RouteListing: Sendable, Equatable {
    public let id: String
    /// `org/app/env`.
    public let owner: String
    /// Nil: a raw route without one.
    public let hostname: String?
    public let port: UInt16
    public let hint: ProtocolHint
    public let proxyV2: Bool
    /// R16: every connection is refused.
    public let isMismatched: Bool
    public let allowNonTLS: Bool
    public let backends: [Listed]

    public struct Listed: Sendable, Equatable {
        public let address: Endpoint
        public let instance: String
    }

    init(_ route: TableRoute) {
        id = route.route.id.string
        owner = route.route.owner.pointee.name.path
        hostname = route.hostname
        port = route.route.port
        hint = route.options.contains(.raw) ? .tcpRaw : .tlsPassthrough
        proxyV2 = route.options.contains(.proxyV2)
        isMismatched = route.options.contains(.proxyMismatch)
        allowNonTLS = route.options.contains(.allowNonTLS)
        backends = route.route.backends.buffer.map {
            Listed(address: $0.address.endpoint, instance: $0.instance.string)
        }
    }
}

extension RouteTableSnapshot {
    /// Each route, in no particular order.
    public func forEachRoute(_ body: (RouteListing) -> Void) {
        for shard in table.pointee.shards {
            for route in shard.pointee.all { body(RouteListing(route)) }
        }
    }

    /// All routes by hostname, raw ones first by port.
    public func listing() -> [RouteListing] {
        var list: [RouteListing] = []
        list.reserveCapacity(routeCount)
        forEachRoute { list.append($0) }
        return list.sorted { ($0.hostname ?? "", $0.port, $0.id) < ($1.hostname ?? "", $1.port, $1.id) }
    }
}
