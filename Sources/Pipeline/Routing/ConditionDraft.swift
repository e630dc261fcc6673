import Pipeline

extension ObjectDraft {
    /// `when_alpn` or `when_protocol`; null: neither.
    mutating func condition(
        _ reader: inout JSONReader, isALPN: Bool, into arena: TextArena, _ condition: inout RouteCondition?
    ) throws(JSONError) {
        let before = condition
        if isALPN {
            guard let name = try text(&reader, "when_alpn", optional: true, into: arena) else { return }
            condition = .alpn(arena.string(name))
        } else {
            guard try reader.kind() != .null else { return try reader.skip() }
            guard let client = try choice(&reader, "when_protocol", { (it: ClientProtocol) in it.name }) else { return }
            condition = .client(client)
        }
        guard before != nil else { return }
        fault(
            reader, "when_protocol", "has no place beside when_alpn: what is no TLS offers no protocol",
            remedy: "remove one of them, or make two routes")
    }

    /// What a route is found by: its hostname, with the ALPN protocol that it asks for behind it, or a ``ClientKey``.
    mutating func key(
        _ hostname: TextRef?, _ condition: RouteCondition?, port: UInt16?, _ options: inout RouteOptions,
        into arena: TextArena
    ) -> (name: TextRef, alpnLength: UInt8) {
        guard let condition else { return (hostname ?? .empty, 0) }
        let field: String
        if case .alpn = condition { field = "when_alpn" } else { field = "when_protocol" }
        if options.contains(.raw) {
            fault(field, "looks at first bytes, and a tcp_raw route never does", "make the route tls_passthrough")
        }
        if options.contains(.allowNonTLS) {
            fault(
                "allow_non_tls", "has no effect beside \(field): the route is never the only one that is possible",
                "remove it; a route with when_protocol plain takes what is no TLS")
        }
        switch condition {
        case .alpn(let alpn):
            guard let hostname, let length = UInt8(exactly: alpn.utf8.count) else { return (.empty, 0) }
            let both = Array(arena.bytes(hostname)) + Array(alpn.utf8)
            guard let text = both.withUnsafeBufferPointer({ arena.append($0) }) else { return (.empty, 0) }
            return (TextRef(offset: text.offset, length: hostname.length), length)
        case .client(let client):
            if hostname != nil {
                fault(
                    "hostname", "has no place beside when_protocol: what is no TLS names none",
                    "remove one of them, or make two routes")
            }
            guard let port else { return (.empty, 0) }
            options.subtract([.wildcard, .suffix])
            options.insert(.byClient)
            return (ClientKey(client, at: port).withBytes { arena.append($0) } ?? .empty, 0)
        }
    }

    private mutating func fault(_ field: String, _ problem: String, _ remedy: String) {
        faults.append(Fault(field: field, place: place, problem: problem, remedy: remedy))
    }
}
