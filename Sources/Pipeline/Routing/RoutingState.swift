import Pipeline

/// What one apply did.
public struct ApplyReport: Sendable {
    public internal(set) var problems = RouteProblems()
    public internal(set) var added = 0
    public internal(set) var changed = 0
    public internal(set) var removed = 0
    public internal(set) var unchanged = 0
    /// Routes without a usable version in the document, served as last applied (R24).
    public internal(set) var kept = 0
    /// Changed groups of backends.
    public internal(set) var backendsChanged = 0
    /// How many shards of the table were rebuilt, of how many.
    public internal(set) var shardsBuilt = 0
    public internal(set) var shards = 0
    public init() {}

    /// How objects of desired state are applied, of those that were decided about; see ``AppliedObject``.
    public internal(set) var applied: [StateKind: [String: AppliedObject]] = [:]
    /// All objects were decided about; ``applied`` has those alone that are not plain.
    public internal(set) var isWhole = false
    /// R31: addresses that somebody asks for and that are not served yet.
    public internal(set) var cooling = 0
    /// All current drains, see ``RouteDrain``.
    public internal(set) var drains: [RouteDrain] = []
}

/// The routes of this node: applies documents of desired state under the rules, and makes tables.
///
/// A document replaces the previous one of its source; routes of the other source stay. Documents of one apply are
/// resolved together: the owner of a name, port or address is decided by `hostnames`, then by the applied owner;
/// without either, none has it. The order of documents and objects decides nothing (R5).
///
/// Threading: control side only, one thread at a time. The tables of its ``snapshot`` are for all.
public final class RoutingState {
    let seed: HashSeed
    let store = RouteStore()
    /// Env ids and process types that are or were in use.
    let symbols: SymbolTable
    var rules: RouteRules
    var portUses = PortUses()
    /// R5: the control plane's assignment of names.
    var hostnames: LastHostnames
    var ids = RouteIDs()
    var envs: [UInt32: EnvRecord] = [:]
    var instances = InstanceTable()
    var groups = GroupTable()
    /// What the DNS has said of names, those without addresses left out.
    var resolved: [BackendName: [ResolvedAddress]] = [:]
    var liveRoutes = 0
    var drains = DrainList()
    /// R31.
    var cooldowns = AddressCooldowns()
    /// The node's clocks; nil: there is no cooldown.
    public var clock: (() -> NodeTime)?
    /// When the running apply began.
    var time: NodeTime?
    /// The last document, while somebody waits in it for a cooldown, and its objects are nowhere else.
    var waitingDocument: StateDocument?
    /// Of the rules by which all routes of desired state were judged last: see ``rulesKey``.
    var tableKey: [UInt8] = []
    /// Why a start did not use its mapped table.
    public internal(set) var tableRefusal = ""
    /// It is being brought to where a node ended.
    var isRestoring = false
    /// R30.
    var suspension = Suspension()
    /// Which apply runs, from 0.
    var applies: UInt64 = 0
    /// The time of the running apply; nil: unknown.
    var now: Instant?
    /// Entries of served routes that ask for a dedicated address (R9).
    var ipv4Routes: Set<UInt32> = []
    /// Envs of the state document that ask for one.
    var ipv4Wishes: Set<UInt32> = []
    /// Such addresses whose owners have them only because they had them.
    var disputedIPv4: Set<IPAddress> = []
    /// While a node goes on where it ended: what envs had.
    var restoredIPv4: [UInt32: IPAddress] = [:]
    var unserved = UnservedRoutes()
    /// Of those, the ones that may have been in the way of what the last run took away. The next run looks again.
    var unsettled: Set<String> = []
    /// Envs of the state document whose objects can't be used; and those with several that differ.
    var unclearEnvs: Set<UInt32> = []
    var twinEnvs: Set<UInt32> = []
    /// The config file's document that was applied last.
    var blocks: StateDocument?
    /// Names whose entries of `hostnames` name their env by its path.
    var pathNames: Set<NameKey> = []
    /// Entries of served raw routes with a name, which no lookup finds.
    var namedRaw: [NameKey: Set<UInt32>] = [:]
    /// An env's dedicated address came, went or changed with the running apply.
    var addressesChanged = false
    /// R19: the `node_id` of instances that are here. Takes effect with the next ``apply(_:at:)``.
    public var nodeName = ""
    /// R19: the instances of this node, and their addresses.
    var localInstances: [LocalInstance] = []
    var instanceNumbers = InstanceNumbers()
    var directory: InstanceDirectoryBox?
    var directoryChanged = false
    /// The same since somebody asked, see ``takeNews()``.
    var hasOtherInstances = false

    /// False: ``Claims`` decides about every route. For tests, which compare.
    var seeksLone = true

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
        /// R30: by itself, as the state document says.
        var isSuspended = false
        var isWithdrawn = false

        var identity: EnvName { EnvName(org: org, app: app, env: name) }
        var path: String { identity.path }
    }

    /// - Parameters:
    ///   - seed: keys the hashes over names; ``HashSeed/random()`` in a node.
    ///   - listeners: what the program listens on; nil: don't judge routes by it.
    public init(seed: HashSeed, listeners: [ListenerFacts]? = nil, policy: PortPolicy = .standard) {
        self.seed = seed
        hostnames = LastHostnames(seed: seed)
        symbols = SymbolTable(seed: seed)
        rules = RouteRules(listeners: listeners, policy: policy)
        let shards = UnsafeMutableBufferPointer<RouteShard.Pointer>.allocate(capacity: 1)
        shards.initialize(repeating: RouteShard.empty(store))
        let routes = RouteDirectory(ShardList(shards, store), RouteTable.makePorts([]), DedicatedTable([]), store)
        snapshot = RouteTableSnapshot(
            store: store, seed: seed, routes: routes, groups: GroupSlots(store), routeCount: 0)
    }

    deinit {
        drains.forget(store) { _ in true }
        for env in envs.values { store.release(env.box) }
        groups.visit { _, group in if let box = group.box { store.release(box) } }
        // What only this side knows of routes; entries go when the last snapshot does.
        snapshot.forEachTableRoute { store.endLife($0.pointee.entry) }
    }

    /// What the program listens on, after a reload. Takes effect with the next ``apply(_:at:)``.
    public var listeners: [ListenerFacts]? {
        get { rules.listeners }
        set { rules.listeners = newValue }
    }

    /// Which ports no route may have (R8), after a reload. Takes effect with the next ``apply(_:at:)``.
    /// The `health` blocks of the node's config, which routes of desired state may name.
    public var healths: [String: RouteHealth] {
        get { rules.healths }
        set { rules.healths = newValue }
    }
    public var policy: PortPolicy {
        get { rules.policy }
        set { rules.policy = newValue }
    }

    /// True if a `backend` stage of the program uses consistent hashing for routes without a balance. Takes effect with
    /// the next ``apply(_:at:)``, for the routes of its document.
    public var hashesByDefault = false

    /// Frees objects of ended connections. Returns how many are still pinned.
    @discardableResult public func freeUnpinned() -> Int {
        store.freeUnpinned()
        return store.pinnedCount
    }

    /// Draining and removed backends that still have connections. Valid until the next change; some may be in the table
    /// for other routes.
    public var leavingBackends: [(cell: UnsafePointer<BackendCell>, isDraining: Bool)] {
        let draining = drains.list.compactMap { drain -> (UnsafePointer<BackendCell>, Bool)? in
            guard case .backend(let cell) = drain.target else { return nil }
            return (cell, true)
        }
        return (draining + store.pinnedBackends.map { ($0, false) }).filter { $0.0.pointee.active.current > 0 }
    }

    /// Drops completed drains, and frees their objects. Others stay in every report until their instance is ready
    /// again.
    public func forgetDrains(where isDone: (RouteDrain) -> Bool) { drains.forget(store, isDone) }

    /// What is to be ended, see ``RouteDrain``.
    public var currentDrains: [RouteDrain] { drains.list }

    /// R9: where to listen for envs with a dedicated address: the ports of their routes that use it, in order.
    public var dedicatedListeners: [DedicatedListener] {
        let seen = Set(ipv4Routes.compactMap(dedicatedListener))
        return seen.sorted { ($0.address, $0.port, $0.env) < ($1.address, $1.port, $1.env) }
    }

    private func dedicatedListener(_ entry: UInt32) -> DedicatedListener? {
        guard let current = store.entry(entry).pointee.current else { return nil }
        let env = groups[current.pointee.group].key.env
        guard let record = envs[env], let address = record.ipv4 else { return nil }
        return DedicatedListener(
            address: address, port: current.pointee.port,
            hint: current.pointee.options.contains(.raw) ? .tcpRaw : .tlsPassthrough, env: record.identity)
    }

    /// Checks a document whole, then makes one new table of it (R22). Objects that can't be used are reported, and
    /// the rest applied (R24).
    ///
    /// - Parameter now: backends that became ready with this apply start slowly from now on; nil: none does, as for the
    ///   first apply of a node.
    public func apply(_ document: StateDocument, at now: Instant? = nil) -> ApplyReport {
        apply(together: [document], at: now)
    }

    /// The same for documents of several sources, at most one of each: one change.
    public func apply(together documents: [StateDocument], at now: Instant? = nil) -> ApplyReport {
        precondition(Set(documents.map(\.source)).count == documents.count, "one document a source")
        if let config = documents.first(where: { $0.source == .config }) { blocks = config }
        if saysNothing(documents) { return unchanged }
        self.now = now
        time = clock?()
        let report = ApplyRun(self, documents).run()
        if let document = documents.first(where: { $0.source == .state }) {
            waitingDocument = cooldowns.waiting.isEmpty ? nil : document
        }
        return report
    }

    /// Of a config without `route` blocks, where there were none: a mapped table is not looked through for that.
    private func saysNothing(_ documents: [StateDocument]) -> Bool {
        guard store.mapped != nil, documents.count == 1, documents[0].source == .config, documents[0].isEmpty else {
            return false
        }
        return !envs.values.contains { $0.sources & StateDocument.Source.config.bit != 0 }
            && !unserved.routes.values.contains { $0.source == .config }
    }

    private var unchanged: ApplyReport {
        var report = ApplyReport()
        (report.drains, report.cooling) = (drains.list, cooldowns.waiting.count)
        return report
    }

    /// Blocks of memory that this state and its snapshots hold: for tests that look for leaks.
    public var memory: RouteStore { store }

    /// The route's id, whichever of its claims this is.
    func routeID(_ route: UnsafePointer<TableRoute>) -> String {
        snapshot.table.pointee.found(route).pointee.id.string
    }

    func owner(_ env: UInt32) -> String { envs[env]?.path ?? symbols.string(env) }
}

extension RouteShard {
    /// A shard without routes.
    static func empty(_ store: RouteStore) -> Pointer {
        store.makeShard([])
    }
}

/// One route, for people.
public struct RouteListing: Sendable, Equatable {
    public let id: String
    /// `org/app/env`.
    public let owner: String
    /// Nil: a raw route without one.
    public let hostname: String?
    /// What it asks of first bytes besides a name; nil: nothing.
    public let condition: RouteCondition?
    public let port: UInt16
    public let hint: ProtocolHint
    public let proxyHeader: SentHeader
    /// R16: every connection is refused.
    public let isMismatched: Bool
    /// It keeps what it owns, and gets no connection.
    public let isWithdrawn: Bool
    public let allowNonTLS: Bool
    public let backends: [Listed]

    public struct Listed: Sendable, Equatable {
        public let address: Endpoint
        public let instance: String
    }

    init(_ found: FoundRoute, _ route: UnsafePointer<TableRoute>) {
        let options = route.pointee.options
        id = found.pointee.id.string
        owner = found.pointee.owner.pointee.name.path
        hostname = route.hostname
        condition = route.condition
        port = route.pointee.port
        hint = options.contains(.raw) ? .tcpRaw : .tlsPassthrough
        proxyHeader = options.sentHeader
        isMismatched = options.contains(.proxyMismatch)
        isWithdrawn = options.contains(.withdrawn)
        allowNonTLS = options.contains(.allowNonTLS)
        backends = found.backends.buffer.map {
            Listed(address: $0.address.endpoint, instance: $0.instance.string)
        }
    }
}

extension RouteTableSnapshot {
    /// Each route, in no particular order.
    public func forEachRoute(_ body: (RouteListing) -> Void) {
        forEachTableRoute { body(RouteListing(table.pointee.found($0), $0)) }
    }

    /// All routes by hostname, raw ones first by port.
    public func listing() -> [RouteListing] {
        var list: [RouteListing] = []
        list.reserveCapacity(routeCount)
        forEachRoute { list.append($0) }
        return list.sorted { ($0.hostname ?? "", $0.port, $0.id) < ($1.hostname ?? "", $1.port, $1.id) }
    }
}
