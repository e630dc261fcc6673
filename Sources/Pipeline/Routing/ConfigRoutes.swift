import Pipeline

/// One name at one port of a `route` block of the config file, before any rule has looked at it.
public struct RouteSpec: Sendable {
    /// Names the claim in ``Origin/config(_:)``.
    public var index: Int
    public var id: String
    /// One of several names or ports of the route ``id``, besides the first: `b.example.com:443`; nil: the first.
    public var claim: String?
    public var org: String
    public var app: String
    public var env: String
    /// As written; nil: none.
    public var hostname: String?
    public var port: UInt16
    public var hint: ProtocolHint
    /// Its own; empty if it names a ``group``.
    public var backends: [BackendSpec]
    /// The `backends` block.
    public var group: String?
    public var proxyHeader = SentHeader.off
    public var backendExpectsProxy = false
    public var allowNonTLS = false
    /// What it asks of first bytes besides a name; nil: nothing.
    public var condition: RouteCondition?
    /// Nil: as the `backend` stage says.
    public var balance: Balance?
    /// 0: no limit.
    public var maxConnections: UInt32 = 0
    /// Of its backends; nil: as the `backend` stage says.
    public var health: RouteHealth?
    /// Its own, or its `backends` block's; zero: none. Nil: as the `backend` stage says.
    public var idleTimeout: TimeSpan?
    /// For its own limit, and for its own backends.
    public var queue: QueueSpec?
    /// Its own, or its `backends` block's; nil: as the `backend` stage says.
    public var source: SourceSpec?

    public init(
        index: Int, id: String, org: String, app: String, env: String, hostname: String?, port: UInt16,
        hint: ProtocolHint, backends: [BackendSpec]
    ) {
        self.index = index
        self.id = id
        self.org = org
        self.app = app
        self.env = env
        self.hostname = hostname
        self.port = port
        self.hint = hint
        self.backends = backends
    }
}

/// A `backends` block of the config file.
public struct GroupSpec: Sendable {
    public var name: String
    public var backends: [BackendSpec]
    /// Over all its routes; 0: no limit.
    public var maxConnections: UInt32
    /// For its limit, and for its backends.
    public var queue: QueueSpec?

    public init(name: String, backends: [BackendSpec], maxConnections: UInt32 = 0, queue: QueueSpec? = nil) {
        self.queue = queue
        self.name = name
        self.backends = backends
        self.maxConnections = maxConnections
    }
}

extension StateDocument {
    /// The config file's routes as a document, so that the same rules apply. Problems name fields as in a state
    /// document, and claims by ``Origin/config(_:)``.
    /// - Parameter groups: all that the routes name; a route of another one is quarantined.
    public static func config(
        _ specs: some Sequence<RouteSpec>, groups: [GroupSpec] = [], seed: HashSeed = .random()
    ) -> (document: StateDocument, problems: RouteProblems) {
        var builder = ConfigBuilder(groups, seed: seed)
        for spec in specs { builder.add(spec) }
        return (builder.state.document, builder.state.problems)
    }
}

extension StateDocument {
    /// Between a route's id and one of its further claims, whose objects have ids of their own. It occurs in no id.
    static let claimMark: Character = " "

    /// In a config file the path names an env. The separator byte occurs in no id, so that no `env_id` and no other
    /// path is equal.
    static func configSymbol(_ name: EnvName) -> String { "\(name.org)\u{0}\(name.app)\u{0}\(name.env)" }
}

/// Fills a document of claims, one by one: a million of one block share what they have in common.
private struct ConfigBuilder {
    var state: StateBuilder
    private var envs: Set<UInt32> = []
    /// The `backends` blocks, and the symbols of their names.
    private var groups: [String: (spec: GroupSpec, symbol: UInt32)] = [:]
    /// The lists of `backends` blocks in the document: routes of one block may differ in `health`.
    private var lists: [ListKey: UInt32] = [:]
    private let none: UInt32?
    /// The last route that was new, and its env.
    private var last: (spec: RouteSpec, env: UInt32)?

    init(_ specs: [GroupSpec], seed: HashSeed) {
        state = StateBuilder(source: .config, seed: seed)
        none = state.intern("")
        for spec in specs {
            guard let symbol = state.intern(spec.name) else { continue }
            groups[spec.name] = (spec, symbol)
        }
    }

    private struct ListKey: Hashable {
        let symbol: UInt32
        let health: RouteHealth?
        let policy: RoutePolicySpec?
    }

    /// The number of a block's list, with the health and the policy of this route.
    private mutating func list(_ group: (spec: GroupSpec, symbol: UInt32), _ route: RouteSpec) -> UInt32 {
        let (health, policy) = (route.health, RoutePolicySpec(route, of: group.spec))
        let key = ListKey(symbol: group.symbol, health: health, policy: policy)
        if let known = lists[key] { return known }
        let number = state.append(
            backends: BackendList(
                backends: group.spec.backends, name: group.spec.name, maxConnections: group.spec.maxConnections,
                health: health, policy: policy))
        lists[key] = number
        return number
    }

    mutating func add(_ spec: RouteSpec) {
        let place = Place(line: spec.index, column: 0)
        var draft = ObjectDraft(.route, at: place)
        let route = route(spec, &draft)
        var options: RouteOptions = spec.hint == .tcpRaw ? .raw : []
        options.insert(spec.proxyHeader)
        if spec.backendExpectsProxy { options.insert(.expectsProxy) }
        if spec.allowNonTLS { options.insert(.allowNonTLS) }
        let host = hostname(spec, &draft, &options)
        let key = draft.key(
            spec.hostname == nil ? nil : host, spec.condition, port: spec.port, &options, into: state.document.text)
        var process = none
        var list: UInt32 = 0
        if let name = spec.group {
            guard let group = groups[name] else {
                draft.faults.append(
                    ObjectDraft.Fault(
                        field: "backend", place: place, problem: "names \"\(name)\", which is no backends block",
                        remedy: "add the block"))
                _ = state.accept(draft, id: route?.id, required: [])
                return
            }
            (list, process) = (self.list(group, spec), group.symbol)
        }
        guard state.accept(draft, id: route?.id, required: []), let route, let process else { return }
        if list == 0 {
            list = state.append(
                backends: BackendList(
                    backends: spec.backends, name: nil, maxConnections: 0, health: spec.health,
                    policy: RoutePolicySpec(spec, of: nil)))
        }
        state.append(
            RouteObject(
                id: route.id, name: key.name, alpnLength: key.alpnLength, env: route.env, processType: process,
                backendPort: 0, port: spec.port,
                options: options.with(spec.balance, .keep), maxConnections: spec.maxConnections, backendList: list,
                place: place))
    }

    /// The claim's id and its env, which is added to the document. Nil: they can't be used.
    private mutating func route(_ spec: RouteSpec, _ draft: inout ObjectDraft) -> (id: TextRef, env: UInt32)? {
        if let last, let claim = spec.claim, last.spec.isOfOneRoute(spec) {
            return claimID(spec, claim).map { ($0, last.env) }
        }
        let id = put(spec.id, "route_id", &draft)
        let (org, app, name) = (
            put(spec.org, "owner", &draft), put(spec.app, "owner", &draft), put(spec.env, "owner", &draft)
        )
        let symbol = StateDocument.configSymbol(EnvName(org: spec.org, app: spec.app, env: spec.env))
        guard let id, let org, let app, let name, let env = state.intern(symbol) else { return nil }
        if envs.insert(env).inserted {
            state.append(
                EnvObject(
                    env: env, app: app, org: org, name: name, ipv4: nil, suspended: false, place: draft.place))
        }
        last = (spec, env)
        guard let claim = spec.claim else { return (id, env) }
        return claimID(spec, claim).map { ($0, env) }
    }

    private func claimID(_ spec: RouteSpec, _ claim: String) -> TextRef? {
        append(Array("\(spec.id)\(StateDocument.claimMark)\(claim)".utf8))
    }

    /// Canonical; empty: none, or a fault.
    private func hostname(
        _ spec: RouteSpec, _ draft: inout ObjectDraft, _ options: inout RouteOptions
    ) -> TextRef {
        guard let hostname = spec.hostname else { return .empty }
        do throws(HostnameError) {
            let pattern = try HostPattern(hostname)
            options.insert(RouteOptions(pattern.kind))
            return pattern.name.withBytes { state.document.text.append($0) } ?? .empty
        } catch {
            draft.faults.append(
                ObjectDraft.Fault(
                    field: "hostname", place: draft.place, problem: "\"\(hostname)\" \(error.problem)",
                    remedy: error.remedy))
            return .empty
        }
    }

    private func put(_ text: String, _ field: String, _ draft: inout ObjectDraft) -> TextRef? {
        let bytes = Array(text.utf8)
        if let fault = bytes.withUnsafeBufferPointer(ObjectDraft.nameFault) {
            draft.faults.append(
                ObjectDraft.Fault(field: field, place: draft.place, problem: fault.problem, remedy: fault.remedy))
            return nil
        }
        return append(bytes)
    }

    private func append(_ bytes: [UInt8]) -> TextRef? {
        bytes.withUnsafeBufferPointer { state.document.text.append($0) }
    }
}

extension RouteSpec {
    /// Of several claims in a row: the same id and owner.
    fileprivate func isOfOneRoute(_ other: RouteSpec) -> Bool {
        id == other.id && env == other.env && app == other.app && org == other.org
    }
}

extension StateBuilder {
    fileprivate func intern(_ text: String) -> UInt32? {
        var text = text
        return text.withUTF8 { document.symbols.intern($0) }
    }
}
