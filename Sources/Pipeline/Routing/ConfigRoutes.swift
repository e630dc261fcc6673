import Pipeline

/// A `route` block of the config file, before any rule has looked at it.
public struct RouteSpec: Sendable {
    /// Names the block in ``Origin/config(_:)``.
    public var index: Int
    public var id: String
    public var org: String
    public var app: String
    public var env: String
    /// As written; nil: none.
    public var hostname: String?
    public var port: UInt16
    public var hint: ProtocolHint
    public var backends: [BackendSpec]
    public var proxyV2 = false
    public var backendExpectsProxy = false
    public var allowNonTLS = false
    /// Nil: as the `backend` stage says.
    public var balance: Balance?
    /// 0: no limit.
    public var maxConnections: UInt32 = 0
    /// Nil: as the `backend` stage says.
    public var health: RouteHealth?

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

extension StateDocument {
    /// The config file's routes as a document, so that the same rules apply. Problems name fields as in a state
    /// document, and blocks by ``Origin/config(_:)``.
    public static func config(
        _ specs: [RouteSpec], seed: HashSeed = .random()
    ) -> (document: StateDocument, problems: RouteProblems) {
        var builder = StateBuilder(source: .config, seed: seed)
        var envs: Set<UInt32> = []
        for spec in specs { builder.add(spec, &envs) }
        return (builder.document, builder.problems)
    }
}

extension StateDocument {
    /// In a config file the path names an env. The separator byte occurs in no id, so that no `env_id` and no other
    /// path is equal.
    static func configSymbol(_ name: EnvName) -> String { "\(name.org)\u{0}\(name.app)\u{0}\(name.env)" }
}

extension StateBuilder {
    fileprivate mutating func add(_ spec: RouteSpec, _ envs: inout Set<UInt32>) {
        let place = Place(line: spec.index, column: 0)
        var draft = ObjectDraft(.route, at: place)
        func put(_ text: String, _ field: String) -> TextRef? {
            let bytes = Array(text.utf8)
            return bytes.withUnsafeBufferPointer { bytes in
                if let fault = ObjectDraft.nameFault(bytes) {
                    draft.faults.append(
                        ObjectDraft.Fault(field: field, place: place, problem: fault.problem, remedy: fault.remedy))
                    return nil
                }
                return document.text.append(bytes)
            }
        }
        let id = put(spec.id, "route_id")
        let (org, app, name) = (put(spec.org, "owner"), put(spec.app, "owner"), put(spec.env, "owner"))
        let symbol = Array(StateDocument.configSymbol(EnvName(org: spec.org, app: spec.app, env: spec.env)).utf8)
        let env = symbol.withUnsafeBufferPointer { document.symbols.intern($0) }
        let none = Bytes(start: nil, count: 0)
        var options: RouteOptions = spec.hint == .tcpRaw ? .raw : []
        if spec.proxyV2 { options.insert(.proxyV2) }
        if spec.backendExpectsProxy { options.insert(.expectsProxy) }
        if spec.allowNonTLS { options.insert(.allowNonTLS) }
        var host = TextRef.empty
        if let hostname = spec.hostname {
            do throws(HostnameError) {
                let pattern = try HostPattern(hostname)
                if pattern.isWildcard { options.insert(.wildcard) }
                host = pattern.name.withBytes { document.text.append($0) } ?? .empty
            } catch {
                draft.faults.append(
                    ObjectDraft.Fault(
                        field: "hostname", place: place, problem: "\"\(hostname)\" \(error.problem)",
                        remedy: error.remedy))
            }
        }
        guard accept(draft, id: id, required: []), let id, let org, let app, let name, let env,
            let process = document.symbols.intern(none)
        else { return }
        if envs.insert(env).inserted {
            append(EnvObject(env: env, app: app, org: org, name: name, ipv4: nil, place: place))
        }
        append(
            RouteObject(
                id: id, name: host, env: env, processType: process, backendPort: 0, port: spec.port,
                options: options.with(spec.balance, .keep), maxConnections: spec.maxConnections,
                backendList: append(backends: spec.backends, health: spec.health), place: place))
    }
}
