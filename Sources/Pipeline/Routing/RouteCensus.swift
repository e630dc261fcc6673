import Pipeline

/// Who has what, and which routes there are, at one moment: to compare it with another. Made of what lookups find.
public struct RouteCensus {
    /// What one env has and no other.
    public enum Thing: Hashable, Sendable {
        /// A hostname, with the mark of a wildcard.
        case name(String)
        /// A port, by a raw route.
        case port(UInt16)
        /// Clients of a protocol at a port.
        case client(String, UInt16)
        /// A dedicated address (R9).
        case ipv4(IPAddress)
        /// An address of instances.
        case overlay(IPAddress)
    }

    /// A route at one name and port.
    public struct Entry: Equatable, Sendable {
        public let owner: String
        public let hostname: String?
        public let condition: RouteCondition?
        public let port: UInt16
        public let isRaw: Bool
        public let sentHeader: SentHeader
        /// R16: every connection is refused.
        public let isMismatched: Bool
        public let onDelete: OnDelete
        /// The others, as `balance least_connections`; those alone that it has.
        public let settings: [String]
        /// Index into ``backends``.
        let list: Int

        /// `app.example.com:443`, `:5432`.
        public var place: String { "\(hostname ?? ""):\(port)\(condition.map { " when \($0.text)" } ?? "")" }

        var thing: Thing {
            if case .client(let client)? = condition { return .client(client.name, port) }
            return isRaw ? .port(port) : .name(hostname ?? "")
        }
        var things: [Thing] {
            // A raw route's name is owned, though never matched by (R2).
            if isRaw, let hostname { return [thing, .name(hostname)] }
            return [thing]
        }
    }

    /// By id: one of desired state has one entry.
    public private(set) var routes: [String: [Entry]] = [:]
    private(set) var backends: [[String]] = []
    /// `org/app/env`.
    public private(set) var owners: [Thing: String] = [:]
    /// Envs that ask for what they don't have.
    public private(set) var asking: [Thing: Set<String>] = [:]
    /// The same by port, whatever they ask for there.
    private var askingAt: [UInt16: Set<String>] = [:]
    /// Envs that want a dedicated address.
    private(set) var ipv4Wishes: Set<String> = []
    private let snapshot: RouteTableSnapshot

    /// Of the backends of an entry.
    public func backends(of entry: Entry) -> [String] {
        backends.indices.contains(entry.list) ? backends[entry.list] : []
    }

    /// The env that gets connections for a name at a port, and by which name or wildcard; nil: none.
    public func lookup(_ name: String, port: UInt16) -> (owner: String, by: String)? {
        let destination = DestinationAddress(Endpoint(.unspecified, port))
        let bytes = Array(name.utf8)
        return bytes.withUnsafeBufferPointer { name in
            snapshot.table.pointee.route(name, at: destination).map { route in
                (snapshot.table.pointee.found(route).pointee.owner.pointee.name.path, route.hostname ?? "")
            }
        }
    }

    init(_ state: RoutingState) {
        snapshot = state.snapshot
        noteRoutes(state)
        state.hostnames.visit { entry in
            guard entry.isOwner else { return }
            let name = entry.kind.mark + String(decoding: state.hostnames.bytes(entry), as: UTF8.self)
            owners[.name(name)] = state.owner(entry.env)
        }
        for (number, env) in state.envs {
            if let address = env.ipv4 { owners[.ipv4(address)] = env.path }
            if state.ipv4Wishes.contains(number) { ipv4Wishes.insert(env.path) }
        }
        for record in state.instances.records.values where record.status == .ready {
            if record.isServing || record.isHolder {
                owners[.overlay(record.address)] = state.owner(record.env)
            } else {
                asking[.overlay(record.address), default: []].insert(state.owner(record.env))
            }
        }
        for route in state.unserved.routes.values {
            for claim in route.claims {
                let env = state.owner(claim.env)
                asking[Thing(claim), default: []].insert(env)
                askingAt[claim.port, default: []].insert(env)
            }
        }
    }

    private mutating func noteRoutes(_ state: RoutingState) {
        var lists: [UInt32: Int] = [:]
        let table = snapshot.table.pointee
        snapshot.forEachTableRoute { route in
            let (number, found) = (route.pointee.group, table.found(route))
            let list = lists[number] ?? backends.count
            if list == backends.count {
                backends.append(RouteCensus.backends(found.group, state.groups[number].key))
                lists[number] = list
            }
            let entry = Entry(found, route, list: list)
            routes[found.pointee.id.string, default: []].append(entry)
            for thing in entry.things { owners[thing] = entry.owner }
        }
    }

    /// Addresses that a config names stand there as it names them, whatever the DNS says.
    private static func backends(_ group: UnsafePointer<BackendGroup>, _ key: GroupKey) -> [String] {
        let texts =
            key.addresses.isEmpty
            ? group.pointee.backends.buffer.map { backend in
                text(
                    "\(backend.instance.string) \(backend.address.endpoint)", backend.weight, backend.maxConnections,
                    backend.priority)
            } : key.addresses.map { text($0.place, $0.weight, $0.maxConnections, $0.priority) }
        return texts.sorted()
    }

    private static func text(_ place: String, _ weight: UInt16, _ most: UInt32, _ priority: UInt8) -> String {
        var text = place
        if weight != 1 { text += " weight \(weight)" }
        if most > 0 { text += " max \(most)" }
        if priority > 0 { text += " \(BackendSpec.name(ofPriority: priority))" }
        return text
    }
}

extension RouteCensus.Entry {
    fileprivate init(_ found: FoundRoute, _ route: UnsafePointer<TableRoute>, list: Int) {
        let (options, group) = (route.pointee.options, found.group)
        owner = found.pointee.owner.pointee.name.path
        hostname = route.hostname
        condition = route.condition
        port = route.pointee.port
        isRaw = options.contains(.raw)
        sentHeader = options.sentHeader
        isMismatched = options.contains(.proxyMismatch)
        onDelete = options.onDelete
        var settings: [String] = []
        if options.contains(.allowNonTLS) { settings.append("allow_non_tls") }
        if options.contains(.withdrawn) { settings.append("withdrawn") }
        if options.contains(.ipv4Required) { settings.append("ipv4_required") }
        if let balance = options.balance { settings.append("balance \(balance.name)") }
        if route.pointee.maxConnections > 0 { settings.append("max_connections \(route.pointee.maxConnections)") }
        if let health = group.pointee.health { settings.append("health \(health.pointee.name ?? "off")") }
        if let policy = group.pointee.policy?.pointee {
            if let time = policy.idleTimeout { settings.append("idle_timeout \(time.configText)") }
            if let queue = policy.queue { settings.append("queue \(queue.limit) for \(queue.patience.configText)") }
        }
        self.settings = settings
        self.list = list
    }
}

extension RouteCensus.Thing: CustomStringConvertible {
    init(_ claim: UnservedRoutes.Claim) {
        if let name = claim.name, name.kind == .client, let key = name.withBytes({ ClientKey($0) }) {
            self = .client(key.client.name, key.port)
        } else if let name = claim.name, !claim.isRaw {
            self = .name(name.whole)
        } else {
            self = .port(claim.port)
        }
    }

    public var description: String {
        switch self {
        case .name(let name): name
        case .port(let port): "port \(port)"
        case .client(let client, let port): "protocol \(client) at port \(port)"
        case .ipv4(let address): "dedicated IPv4 \(address)"
        case .overlay(let address): "instance address \(address)"
        }
    }

    /// What it is, for programs.
    public var kind: String {
        switch self {
        case .name: "hostname"
        case .port: "port"
        case .client: "protocol"
        case .ipv4: "dedicated_ipv4"
        case .overlay: "instance_address"
        }
    }
}

extension RoutingState {
    public var census: RouteCensus { RouteCensus(self) }
}

extension RouteCensus {
    /// What several envs ask for and nobody has, with those envs: no entry of `hostnames` and no earlier owner decides.
    public var contested: [(thing: Thing, envs: [String])] {
        var rivals = asking
        for (thing, envs) in asking {
            switch thing {
            case .name(let name):
                // Two that both take some name clash (R4).
                for pattern in NameKey(name).patternsAbove {
                    guard let others = asking[.name(pattern.whole)] else { continue }
                    rivals[thing]?.formUnion(others)
                    rivals[.name(pattern.whole)]?.formUnion(envs)
                }
            // Routes by name clash with a raw one at their port (R8).
            case .port(let port): rivals[thing]?.formUnion(askingAt[port] ?? [])
            case .client, .ipv4, .overlay: break
            }
        }
        return rivals.filter { $0.value.count > 1 && !isHad($0.key) }.map { ($0.key, $0.value.sorted()) }
            .sorted { "\($0.thing)" < "\($1.thing)" }
    }

    /// By itself, or by a wildcard.
    private func isHad(_ thing: Thing) -> Bool {
        if owners[thing] != nil { return true }
        guard case .name(let name) = thing else { return false }
        return NameKey(name).patternsAbove.contains { owners[.name($0.whole)] != nil }
    }
}
