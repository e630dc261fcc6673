import Pipeline

/// The facts of a listener, or of an `expose` range, that rules need.
public struct ListenerFacts: Sendable, Hashable {
    public let address: IPAddress
    public let ports: ClosedRange<UInt16>
    public let hint: ProtocolHint
    /// Its pipeline has a `proxy_v2` stage.
    public let injectsProxy: Bool
    /// The same with `proxy_v1`.
    public let injectsText: Bool
    /// The pipeline's name, for people.
    public let pipeline: String

    public init(
        address: IPAddress, ports: ClosedRange<UInt16>, hint: ProtocolHint, injectsProxy: Bool,
        injectsText: Bool = false, pipeline: String
    ) {
        self.address = address
        self.ports = ports
        self.hint = hint
        self.injectsProxy = injectsProxy
        self.injectsText = injectsText
        self.pipeline = pipeline
    }
}

/// Ports that no route may use, whatever the listeners (R8).
public struct PortPolicy: Sendable {
    public let denied: [ClosedRange<UInt16>]
    public init(denied: [ClosedRange<UInt16>]) { self.denied = denied }
    public static let standard = PortPolicy(denied: NodeSettings.standardDeniedPorts)
}

/// The rules for a single route, independent of other routes.
struct RouteRules {
    /// Nil: unknown, so not judged.
    var listeners: [ListenerFacts]?
    var policy: PortPolicy
    /// The `health` blocks of the node's config.
    var healths: [String: RouteHealth] = [:]

    struct Fault: Equatable {
        var severity = RouteProblem.Severity.rejected
        let field: String
        var problem: String
        let remedy: String
    }

    /// The rule that a route breaks; nil: none.
    func fault(_ options: RouteOptions, port: UInt16, hasName: Bool) -> Fault? {
        if policy.denied.contains(where: { $0.contains(port) }) {
            return Fault(
                field: "listen_port", problem: "\(port) is in denied_ports, which no route may use",
                remedy: "use another port")
        }
        return nameFault(options, hasName: hasName) ?? hintFault(options, port: port)
    }

    /// R2. A raw route may have a name, which belongs to its env but is not matched.
    private func nameFault(_ options: RouteOptions, hasName: Bool) -> Fault? {
        guard !options.contains(.raw), !hasName else { return nil }
        return Fault(
            field: "hostname", problem: "is missing, but a tls_passthrough route is selected by it",
            remedy: "add it, or make the route tcp_raw")
    }

    private func serving(_ port: UInt16) -> [ListenerFacts] { listeners?.filter { $0.ports.contains(port) } ?? [] }

    private func hintFault(_ options: RouteOptions, port: UInt16) -> Fault? {
        let hint = options.contains(.raw) ? ProtocolHint.tcpRaw : .tlsPassthrough
        return serving(port).first { $0.hint != hint }.map {
            Fault(
                field: "protocol_hint", problem: "is \(hint.name), but port \(port) is \($0.hint.name) on this node",
                remedy: "use a port that is \(hint.name), or change the listener")
        }
    }

    /// R16: why the PROXY settings contradict each other. Such a route is applied but refuses connections: its previous
    /// version must not continue, and the log line says why.
    func mismatch(_ options: RouteOptions, port: UInt16) -> Fault? {
        let version = options.sentHeader.rawValue
        switch (options.contains(.proxyHeader), options.contains(.expectsProxy)) {
        case (true, false):
            return Fault(
                field: "proxy_protocol",
                problem: "is \(version), but backend_expects_proxy_protocol is not true",
                remedy: "set backend_expects_proxy_protocol to true once the backend does, or proxy_protocol to off")
        case (false, true):
            return Fault(
                field: "backend_expects_proxy_protocol",
                problem: "is true, but proxy_protocol is off: a client could forge a header",
                remedy:
                    "set proxy_protocol to v1 or v2, as the backend expects, or make the backend expect no header and set this to false"
            )
        case (false, false): return nil
        case (true, true): break
        }
        let isText = options.contains(.proxyText)
        return serving(port).first { isText ? !$0.injectsText : !$0.injectsProxy }.map {
            Fault(
                field: "proxy_protocol",
                problem:
                    "is \(version), but pipeline \"\($0.pipeline)\" of port \(port) has no proxy_\(version) stage: "
                    + "the backend would get no header, or one that a client forged",
                remedy: "add proxy_\(version) to that pipeline after backend, or use a port whose pipeline has it")
        }
    }

    /// Requests of an accepted route that have no effect.
    func warnings(_ options: RouteOptions, port: UInt16, hasIPv4: Bool) -> [Fault] {
        var found: [Fault] = []
        if let listeners, !listeners.contains(where: { $0.ports.contains(port) }) {
            found.append(
                Fault(
                    severity: .warning, field: "listen_port",
                    problem: "\(port) has no listener, so nothing reaches the route",
                    remedy: "add a listener or an expose range for it, or use another port"))
        }
        if options.contains(.ipv4Required), !hasIPv4 {
            found.append(
                Fault(
                    severity: .warning, field: "ipv4_required",
                    problem: "is true, but its env has no ipv4_address: the route is served on IPv6 only",
                    remedy: "give the env its own address, or write false"))
        }
        return found
    }
}

/// What is served all the same.
extension RouteRules.Fault {
    static func unknownHealth(_ name: String) -> RouteRules.Fault {
        RouteRules.Fault(
            severity: .warning, field: "health",
            problem: "\"\(name)\" is no health block of this node; what its backend stage says holds",
            remedy: "add `health \(name) { ... }` to the node's config, or name another")
    }

    static let noRoomForQueue = RouteRules.Fault(
        severity: .warning, field: "queue",
        problem: "has no room: this node has had \(RoutePolicies.limit) of them since its start, and nobody waits",
        remedy: "restart the node")
}
