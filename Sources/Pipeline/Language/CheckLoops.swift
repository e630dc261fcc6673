import Pipeline

/// Backends that are listeners of this node, whose connections would loop until no slot is left. Only cases visible in
/// the file; the rest is refused at the connect (`backend.loop`).
extension Checker {
    func checkLoops() {
        guard !listeners.isEmpty || !exposes.isEmpty else { return }
        var exact: [Endpoint: Located<ListenerSpec>] = [:]
        for listener in listeners {
            for port in listener.value.ports {
                let endpoint = Endpoint(listener.value.endpoint.address, port)
                if exact[endpoint] == nil { exact[endpoint] = listener }
            }
        }
        let raw = Set(routes.lazy.filter { $0.hint == .tcpRaw }.flatMap(\.ports).map(\.value))
        let named = Set(routes.lazy.filter { $0.hint != .tcpRaw }.flatMap(\.ports).map(\.value))
        // A group once, however many routes name it.
        let lists =
            routes.filter { $0.group == nil && $0.map == nil }.map(\.backends)
            + groupNames.compactMap { groups[$0]?.backends }
        for list in lists {
            for backend in list where !reporter.isFull {
                let endpoint = backend.value.endpoint
                // A name's addresses are not known here, and a Unix socket is no listener's.
                guard endpoint.port > 0, backend.value.name == nil else { continue }
                if let listener = listener(at: endpoint, exact) {
                    report(backend.span, endpoint, listener.span)
                } else if let expose = expose(at: endpoint, raw: raw, named: named) {
                    report(backend.span, endpoint, expose.span)
                }
            }
        }
    }

    private func report(_ span: SourceSpan, _ endpoint: Endpoint, _ listener: SourceSpan) {
        reporter.error(
            span, "the backend \(endpoint) is a listener of this node: connections would loop",
            help: "give the address or the port of the server", related: [.init(listener, "it listens here")])
    }

    private func listener(at endpoint: Endpoint, _ exact: [Endpoint: Located<ListenerSpec>]) -> Located<ListenerSpec>? {
        if let listener = exact[endpoint] { return listener }
        guard endpoint.address.isLoopback else { return nil }
        return exact[Endpoint(endpoint.address.unspecifiedOfFamily, endpoint.port)]
    }

    /// The `expose` line that opens the backend's port for a route.
    private func expose(at endpoint: Endpoint, raw: Set<UInt16>, named: Set<UInt16>) -> Located<ExposeSpec>? {
        exposes.first { expose in
            let asks = expose.value.hint == .tcpRaw ? raw : named
            guard expose.value.ports.contains(endpoint.port), asks.contains(endpoint.port), !expose.value.isDedicated
            else {
                return false
            }
            let isEach = endpoint.address.isLoopback && expose.value.address == endpoint.address.unspecifiedOfFamily
            return isEach || expose.value.address == endpoint.address
        }
    }
}

extension IPAddress {
    /// `::1` or 127.0.0.0/8: this host, whichever it is.
    fileprivate var isLoopback: Bool { self == IPAddress(high: 0, low: 1) || (isIPv4 && v4Bits >> 24 == 127) }
}
