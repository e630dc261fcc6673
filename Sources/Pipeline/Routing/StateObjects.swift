import Pipeline

/// How each kind of object is read (docs/STATE.md lists the fields).
extension StateBuilder {
    private func place(_ reader: borrowing JSONReader) -> Place {
        hasPlaces ? Place(line: reader.line, column: reader.column) : Place(line: 0, column: 0)
    }

    mutating func readObject(_ reader: inout JSONReader, _ kind: StateKind) throws(JSONError) {
        switch kind {
        case .org: try readOrg(&reader)
        case .env: try readEnv(&reader)
        case .instance: try readInstance(&reader)
        case .route: try readRoute(&reader)
        case .hostname: try readHostname(&reader)
        }
    }

    static let orgKeys = JSONKeys(["org_id", "suspended"])

    private mutating func readOrg(_ reader: inout JSONReader) throws(JSONError) {
        let place = place(reader)
        var draft = ObjectDraft(.org, at: place)
        var org: TextRef?
        var suspended = false
        let text = document.text
        try reader.object(StateBuilder.orgKeys) { reader, field throws(JSONError) in
            switch field {
            case 0: try draft.id(&reader, "org_id", into: text, &org)
            case 1: suspended = try draft.bool(&reader, "suspended") ?? false
            default: try reader.skip()
            }
        }
        draft.takeFlaw(of: &reader)
        guard accept(draft, id: org, required: [("org_id", org != nil)]), let org else { return }
        append(OrgObject(org: org, suspended: suspended, place: place))
    }

    static let envKeys = JSONKeys(["env_id", "app_id", "org_id", "ipv4_address", "suspended", "withdrawn"])

    private mutating func readEnv(_ reader: inout JSONReader) throws(JSONError) {
        let place = place(reader)
        var draft = ObjectDraft(.env, at: place)
        var (id, app, org): (TextRef?, TextRef?, TextRef?)
        var ipv4: IPAddress?
        var (suspended, withdrawn) = (false, false)
        let text = document.text
        try reader.object(StateBuilder.envKeys) { reader, field throws(JSONError) in
            switch field {
            case 0: try draft.id(&reader, "env_id", into: text, &id)
            case 1: app = try draft.text(&reader, "app_id", into: text)
            case 2: org = try draft.text(&reader, "org_id", into: text)
            case 3: ipv4 = try draft.address(&reader, "ipv4_address", v4: true, optional: true)
            case 4: suspended = try draft.bool(&reader, "suspended") ?? false
            case 5: withdrawn = try draft.bool(&reader, "withdrawn") ?? false
            default: try reader.skip()
            }
        }
        draft.takeFlaw(of: &reader)
        let required = [("env_id", id != nil), ("app_id", app != nil), ("org_id", org != nil)]
        guard accept(draft, id: id, required: required), let id, let app, let org,
            let env = document.symbols.intern(text.bytes(id))
        else { return }
        append(
            EnvObject(
                env: env, app: app, org: org, name: id, ipv4: ipv4, suspended: suspended, withdrawn: withdrawn,
                place: place))
    }

    static let instanceKeys = JSONKeys([
        "instance_id", "env_id", "process_type", "overlay_ipv6", "node_id", "status", "drain_grace_seconds",
        "weight", "max_connections", "ipv4", "interface", "priority",
    ])

    private mutating func readInstance(_ reader: inout JSONReader) throws(JSONError) {
        let place = place(reader)
        if isFlat, readFlatInstance(&reader, at: place) { return }
        var draft = ObjectDraft(.instance, at: place)
        var (id, node, interface): (TextRef?, TextRef?, TextRef?)
        var (env, process): (UInt32?, UInt32?)
        var (address, ipv4): (IPAddress?, IPAddress?)
        var status: InstanceStatus?
        var (grace, weight, limit, priority): (UInt64?, UInt64?, UInt64?, UInt64?)
        let (text, symbols) = (document.text, document.symbols)
        try reader.object(StateBuilder.instanceKeys) { reader, field throws(JSONError) in
            switch field {
            case 0: try draft.id(&reader, "instance_id", into: text, &id)
            case 1: env = try draft.symbol(&reader, "env_id", in: symbols)
            case 2: process = try draft.symbol(&reader, "process_type", in: symbols)
            case 3: address = try draft.address(&reader, "overlay_ipv6", v4: false, optional: false)
            case 4: node = try draft.text(&reader, "node_id", optional: true, into: text)
            case 5: status = try draft.choice(&reader, "status") { (status: InstanceStatus) in status.name }
            case 6: grace = try draft.integer(&reader, "drain_grace_seconds", 0...86400, optional: true)
            case 7:
                weight = try draft.integer(&reader, "weight", 0...UInt64(BackendSpec.weightLimit), optional: true)
            case 8: limit = try draft.integer(&reader, "max_connections", 1...UInt64(UInt32.max), optional: true)
            case 9: ipv4 = try draft.address(&reader, "ipv4", v4: true, optional: true)
            case 10: interface = try draft.interface(&reader, "interface", into: text)
            case 11:
                priority = try draft.integer(
                    &reader, "priority", 0...UInt64(BackendSpec.backupPriority), optional: true)
            default: try reader.skip()
            }
        }
        draft.takeFlaw(of: &reader)
        let required = [
            ("instance_id", id != nil), ("env_id", env != nil), ("process_type", process != nil),
            ("overlay_ipv6", address != nil), ("status", status != nil),
        ]
        guard accept(draft, id: id, required: required), let id, let env, let process, let address, let status
        else { return }
        append(
            InstanceObject(
                id: id, env: env, processType: process, address: address, node: node ?? .empty, status: status,
                drainGraceSeconds: UInt32(clamping: grace ?? 10), weight: UInt16(clamping: weight ?? 1),
                maxConnections: UInt32(clamping: limit ?? 0), priority: UInt8(clamping: priority ?? 0), ipv4: ipv4,
                interface: interface ?? .empty,
                place: place))
    }

    static let routeKeys = JSONKeys([
        "route_id", "env_id", "hostname", "listen_port", "protocol_hint", "backend_process_type", "backend_port",
        "proxy_protocol", "backend_expects_proxy_protocol", "ipv4_required", "allow_non_tls", "max_connections",
        "balance", "on_delete", "idle_timeout_seconds", "queue", "queue_timeout_seconds", "health", "when_alpn",
        "when_protocol", "withdrawn",
    ])

    private mutating func readRoute(_ reader: inout JSONReader) throws(JSONError) {
        let place = place(reader)
        if isFlat, readFlatRoute(&reader, at: place) { return }
        var draft = ObjectDraft(.route, at: place)
        var id: TextRef?
        var (env, process): (UInt32?, UInt32?)
        var host: (name: TextRef, kind: KeyKind)?
        var condition: RouteCondition?
        var (port, backendPort): (UInt16?, UInt16?)
        var hint: ProtocolHint?
        var options: RouteOptions = []
        var limit: UInt64?
        var own = OwnWords()
        var (balance, onDelete) = (Balance?.none, OnDelete.keep)
        let (text, symbols) = (document.text, document.symbols)
        try reader.object(StateBuilder.routeKeys) { reader, field throws(JSONError) in
            switch field {
            case 0: try draft.id(&reader, "route_id", into: text, &id)
            case 1: env = try draft.symbol(&reader, "env_id", in: symbols)
            case 2: host = try draft.hostname(&reader, "hostname", into: text)
            case 3: port = try draft.port(&reader, "listen_port")
            case 4: hint = try draft.choice(&reader, "protocol_hint") { (hint: ProtocolHint) in hint.name }
            case 5: process = try draft.symbol(&reader, "backend_process_type", in: symbols)
            case 6: backendPort = try draft.port(&reader, "backend_port")
            case 7:
                let proxy = try draft.choice(&reader, "proxy_protocol") { (sent: SentHeader) in sent.rawValue }
                options.insert(proxy ?? .off)
            case 8:
                let expects = try draft.bool(&reader, "backend_expects_proxy_protocol")
                if expects == true { options.insert(.expectsProxy) }
            case 9: if try draft.bool(&reader, "ipv4_required") == true { options.insert(.ipv4Required) }
            case 10: if try draft.bool(&reader, "allow_non_tls") == true { options.insert(.allowNonTLS) }
            case 11: limit = try draft.integer(&reader, "max_connections", 1...UInt64(UInt32.max), optional: true)
            case 12: balance = try draft.choice(&reader, "balance") { (it: Balance) in it.name }
            case 13: onDelete = try draft.choice(&reader, "on_delete") { (it: OnDelete) in it.name } ?? .keep
            case 14: own.idle = try draft.integer(&reader, "idle_timeout_seconds", 0...2_592_000, optional: true)
            case 15: own.queue = try draft.integer(&reader, "queue", 1...1_000_000, optional: true)
            case 16: own.patience = try draft.integer(&reader, "queue_timeout_seconds", 1...3600, optional: true)
            case 17: own.health = try draft.text(&reader, "health", optional: true, into: text)
            case 18, 19: try draft.condition(&reader, isALPN: field == 18, into: text, &condition)
            case 20: if try draft.bool(&reader, "withdrawn") == true { options.insert(.withdrawn) }
            default: try reader.skip()
            }
        }
        draft.takeFlaw(of: &reader)
        own.check(&draft)
        if hint == .tcpRaw { options.insert(.raw) }
        if let host { options.insert(RouteOptions(host.kind)) }
        let key = draft.key(host?.name, condition, port: port, &options, into: text)
        let isComplete =
            draft.faults.isEmpty && id != nil && env != nil && port != nil && hint != nil && process != nil
            && backendPort != nil
        if isComplete, let id, let env, let port, let process, let backendPort {
            append(
                RouteObject(
                    id: id, name: key.name, alpnLength: key.alpnLength, env: env, processType: process,
                    backendPort: backendPort,
                    port: port, options: options.with(balance, onDelete), maxConnections: UInt32(limit ?? 0),
                    backendList: list(own, id: id, env: env), place: place))
            return
        }
        if let id, options.contains(.proxyHeader) != options.contains(.expectsProxy) { noteMismatch(id) }
        _ = accept(
            draft, id: id,
            required: [
                ("route_id", id != nil), ("env_id", env != nil), ("listen_port", port != nil),
                ("protocol_hint", hint != nil), ("backend_process_type", process != nil),
                ("backend_port", backendPort != nil),
            ])
    }

    /// What a route says in place of the node's config.
    private struct OwnWords {
        var idle: UInt64?
        var queue: UInt64?
        var patience: UInt64?
        var health: TextRef?

        /// A queue has a length and a time, or there is none.
        func check(_ draft: inout ObjectDraft) {
            guard (queue == nil) != (patience == nil) else { return }
            let field = queue == nil ? "queue" : "queue_timeout_seconds"
            guard !draft.faults.contains(where: { $0.field == field }) else { return }
            draft.faults.append(
                ObjectDraft.Fault(
                    field: field, place: draft.place, problem: "is missing",
                    remedy: "write \"queue\" and \"queue_timeout_seconds\", or neither"))
        }
    }

    /// The number of the list with them; 0: it says nothing of that. Routes that say the same share it.
    private mutating func list(_ own: OwnWords, id: TextRef, env: UInt32) -> UInt32 {
        guard own.idle != nil || own.queue != nil || own.health != nil else { return 0 }
        let queue = own.queue.map {
            QueueSpec(limit: UInt32(clamping: $0), patience: .seconds(UInt32(clamping: own.patience ?? 1)))
        }
        let name = own.health.map { document.text.string($0) }
        return append(
            own: BackendList(
                backends: [], name: nil, maxConnections: 0, health: name == "off" ? .off : nil,
                policy: RoutePolicySpec(
                    idleTimeout: own.idle.map { .seconds(UInt32(clamping: $0)) }, queue: queue,
                    id: document.text.string(id), env: document.symbol(env)),
                healthName: name == "off" ? nil : name))
    }

    static let hostnameKeys = JSONKeys(["hostname", "env_id", "claimed"])

    private mutating func readHostname(_ reader: inout JSONReader) throws(JSONError) {
        let place = place(reader)
        var draft = ObjectDraft(.hostname, at: place)
        var host: (name: TextRef, kind: KeyKind)?
        var env: UInt32?
        var claimed: UInt64?
        let (text, symbols) = (document.text, document.symbols)
        var others: [(name: TextRef, kind: KeyKind)] = []
        try reader.object(StateBuilder.hostnameKeys) { reader, field throws(JSONError) in
            switch field {
            case 0:
                if let host { others.append(host) }
                host = try draft.hostname(&reader, "hostname", into: text)
            case 1: env = try draft.symbol(&reader, "env_id", in: symbols)
            case 2: claimed = try draft.integer(&reader, "claimed", 0...UInt64.max, optional: true)
            default: try reader.skip()
            }
        }
        draft.takeFlaw(of: &reader)
        if draft.faults.isEmpty, let host, let env {
            append(
                HostnameObject(
                    name: host.name, kind: host.kind, env: env, claimed: claimed, place: place))
            return
        }
        let shown = { (host: (name: TextRef, kind: KeyKind)) -> TextRef? in
            Array(host.kind.mark.utf8 + Array(text.bytes(host.name))).withUnsafeBufferPointer {
                text.append($0)
            }
        }
        _ = accept(
            draft, id: host.flatMap(shown), otherIDs: others.compactMap(shown),
            required: [("hostname", host != nil), ("env_id", env != nil)])
    }
}
