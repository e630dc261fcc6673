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
        let problem: String
        let remedy: String
    }

    /// The rule that a route breaks; nil: none.
    func fault(_ options: RouteOptions, port: UInt16, hasName: Bool) -> Fault? {
        if policy.denied.contains(where: { $0.contains(port) }) {
            return Fault(
                field: "listen_port", problem: "port \(port) is on the list of ports that no route may have",
                remedy: "use another port")
        }
        return nameFault(options, hasName: hasName) ?? proxyFault(options) ?? listenerFault(options, port: port)
    }

    /// R2.
    private func nameFault(_ options: RouteOptions, hasName: Bool) -> Fault? {
        if options.contains(.raw), hasName {
            return Fault(
                field: "hostname", problem: "a tcp_raw route has none: it is chosen by its port alone",
                remedy: "leave it out, or make the route tls_passthrough")
        }
        if !options.contains(.raw), !hasName {
            return Fault(
                field: "hostname", problem: "is missing, and a tls_passthrough route is chosen by it",
                remedy: "add it, or make the route tcp_raw")
        }
        return nil
    }

    /// R16.
    private func proxyFault(_ options: RouteOptions) -> Fault? {
        switch (options.contains(.proxyV2), options.contains(.expectsProxy)) {
        case (true, false):
            Fault(
                field: "proxy_protocol", problem: "is v2, but the backend isn't said to expect a PROXY header",
                remedy: "set backend_expects_proxy_protocol to true once the backend does, or proxy_protocol to off")
        case (false, true):
            Fault(
                field: "backend_expects_proxy_protocol",
                problem: "is true, but proxy_protocol is off: a client could write a header of its own",
                remedy: "set proxy_protocol to v2, or make the backend expect none and say false")
        default: nil
        }
    }

    private func listenerFault(_ options: RouteOptions, port: UInt16) -> Fault? {
        guard let serving = listeners?.filter({ $0.ports.contains(port) }), !serving.isEmpty else { return nil }
        let hint = options.contains(.raw) ? ProtocolHint.tcpRaw : .tlsPassthrough
        if let other = serving.first(where: { $0.hint != hint }) {
            return Fault(
                field: "protocol_hint", problem: "is \(hint.name), but port \(port) is \(other.hint.name) on this node",
                remedy: "use a port that is \(hint.name), or change the listener")
        }
        if options.contains(.proxyV2), let without = serving.first(where: { !$0.injectsProxy }) {
            return Fault(
                field: "proxy_protocol",
                problem: "is v2, but pipeline \"\(without.pipeline)\" of port \(port) has no proxy_v2 stage: "
                    + "the backend would get no header, or one that a client wrote",
                remedy: "add proxy_v2 to that pipeline after backend, or use a port whose pipeline has it")
        }
        return nil
    }

    /// What an accepted route asks for and won't get.
    func warnings(_ options: RouteOptions, port: UInt16, hasIPv4: Bool) -> [Fault] {
        var found: [Fault] = []
        if let listeners, !listeners.contains(where: { $0.ports.contains(port) }) {
            found.append(
                Fault(
                    severity: .warning, field: "listen_port",
                    problem: "the route listens on port \(port), but no listener has that port",
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
