import Pipeline

/// A `route` block of the config file, before any rule has looked at it.
package struct RouteSpec: Sendable {
    /// Names the block in ``Origin/config(_:)``.
    package var index: Int
    package var id: String
    package var org: String
    package var app: String
    package var env: String
    /// As written; nil: none.
    package var hostname: String?
    package var port: UInt16
    package var hint: ProtocolHint
    package var backends: [BackendSpec]
    package var proxyV2 = false
    package var backendExpectsProxy = false
    package var allowNonTLS = false
    /// Nil: as the `backend` stage says.
    package var balance: Balance?
    /// 0: no limit.
    package var maxConnections: UInt32 = 0

    package init(
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
    /// The config file's own routes as a document, so that the same rules judge them. Problems name fields as a state
    /// document would, and blocks by ``Origin/config(_:)``.
    package static func config(
        _ specs: [RouteSpec], seed: HashSeed = .random()
    ) -> (document: StateDocument, problems: RouteProblems) {
        var builder = StateBuilder(source: .config, seed: seed)
        var envs: Set<UInt32> = []
        for spec in specs { builder.add(spec, &envs) }
        return (builder.document, builder.problems)
    }
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
        // In a config file the path is what names an env.
        let path = Array("\(spec.org)/\(spec.app)/\(spec.env)".utf8)
        let env = path.withUnsafeBufferPointer { document.symbols.intern($0) }
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
                backendList: append(backends: spec.backends), place: place))
    }
}
