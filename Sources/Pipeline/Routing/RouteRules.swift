import Pipeline

/// What a route needs to know of a listener, or of a range of ports that routes may open (`expose`).
public struct ListenerFacts: Sendable, Hashable {
    public let address: IPAddress
    public let ports: ClosedRange<UInt16>
    public let hint: ProtocolHint
    /// Its pipeline has a `proxy_v2` stage.
    public let injectsProxy: Bool
    /// The pipeline's name, for people.
    public let pipeline: String

    public init(
        address: IPAddress, ports: ClosedRange<UInt16>, hint: ProtocolHint, injectsProxy: Bool, pipeline: String
    ) {
        self.address = address
        self.ports = ports
        self.hint = hint
        self.injectsProxy = injectsProxy
        self.pipeline = pipeline
    }
}

/// Which ports no route may listen on, whatever listeners there are (R8).
public struct PortPolicy: Sendable {
    public let denied: [ClosedRange<UInt16>]
    public init(denied: [ClosedRange<UInt16>]) { self.denied = denied }
    public static let standard = PortPolicy(denied: NodeSettings.standardDeniedPorts)
}

/// The rules that a route meets or breaks on its own, whichever other routes there are.
struct RouteRules {
    /// Nil: unknown, so not judged.
    var listeners: [ListenerFacts]?
    var policy: PortPolicy

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
                field: "listen_port", problem: "\(port) is on the list of ports that no route may have",
                remedy: "use another port")
        }
        return nameFault(options, hasName: hasName) ?? hintFault(options, port: port)
    }

    /// R2. A raw route may have a name: it is its env's, and nothing is matched by it.
    private func nameFault(_ options: RouteOptions, hasName: Bool) -> Fault? {
        guard !options.contains(.raw), !hasName else { return nil }
        return Fault(
            field: "hostname", problem: "is missing, and a tls_passthrough route is chosen by it",
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

    /// R16: why the route's backends can't be given the header that they expect, or would believe a client's. Such a
    /// route is there all the same, and refuses: what it was before must not go on, and a client's log line says why.
    func mismatch(_ options: RouteOptions, port: UInt16) -> Fault? {
        switch (options.contains(.proxyV2), options.contains(.expectsProxy)) {
        case (true, false):
            return Fault(
                field: "proxy_protocol",
                problem: "is v2, but the backend isn't said to expect a PROXY header",
                remedy: "set backend_expects_proxy_protocol to true once the backend does, or proxy_protocol to off")
        case (false, true):
            return Fault(
                field: "backend_expects_proxy_protocol",
                problem: "is true, but proxy_protocol is off: a client could write a header of its own",
                remedy: "set proxy_protocol to v2, or make the backend expect none and say false")
        case (false, false): return nil
        case (true, true): break
        }
        return serving(port).first { !$0.injectsProxy }.map {
            Fault(
                field: "proxy_protocol",
                problem: "is v2, but pipeline \"\($0.pipeline)\" of port \(port) has no proxy_v2 stage: "
                    + "the backend would get no header, or one that a client wrote",
                remedy: "add proxy_v2 to that pipeline after backend, or use a port whose pipeline has it")
        }
    }

    /// What an accepted route asks for and won't get.
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
                    remedy: "give the env an address of its own, or say false"))
        }
        return found
    }
}
