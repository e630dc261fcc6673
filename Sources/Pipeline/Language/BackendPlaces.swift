import Pipeline

/// Where a `backend` line leads: an address, a name, or a Unix socket.
extension ConfigValue {
    private static let forms =
        "an address and a port like `[fd00::10]:8443`, a name and a port, or `unix:/run/app.sock`"

    private static let labels =
        "a name is labels of letters, digits, `-` and `_` with dots between, in IDNA form (`xn--…`)"

    /// R10: instances have IPv6 overlay addresses. A config also takes IPv4, for sites without an overlay.
    static func backend(_ text: String) throws(ValueProblem) -> BackendSpec {
        if let path = try unixPath(text) { return BackendSpec(path) }
        if let spec = try named(text) { return spec }
        let endpoint: Endpoint
        do throws(ValueProblem) {
            endpoint = try ConfigValue.endpoint(text)
        } catch {
            let isNamed = text.contains { $0.isLetter } && !text.hasPrefix("[")
            throw ValueProblem(
                message: error.message, expected: forms,
                help: help(text) ?? (isNamed ? labels : nil)
                    ?? error.help.flatMap { $0.hasPrefix("names are") ? nil : $0 })
        }
        guard !endpoint.address.isUnspecified else {
            throw ValueProblem(
                message: "\(quoted(text)) can't be a backend", expected: "the address of an instance")
        }
        return BackendSpec(endpoint)
    }

    /// `_pg._tcp.example.internal`.
    static func service(_ text: String) throws(ValueProblem) -> BackendName {
        guard let host = BackendName.canonical(text) else {
            let colon = text.lastIndex(of: ":")
            let isName = colon.map { BackendName.canonical(text[..<$0]) != nil } ?? false
            throw ValueProblem(
                message: "\(quoted(text)) is not the name of a service",
                expected: "a name like `_pg._tcp.example.internal`",
                help: isName ? "SRV records have the ports: write `srv \(text[..<(colon ?? text.endIndex)])`" : nil)
        }
        return BackendName(.service, host)
    }

    // MARK: Unix sockets

    /// Nil: it is something else.
    private static func unixPath(_ text: String) throws(ValueProblem) -> Endpoint? {
        guard text.hasPrefix("unix:") else { return nil }
        let path = String(text.dropFirst(5))
        // An escape for a byte is a character of a private range here.
        let isPlain = path.unicodeScalars.allSatisfy {
            $0.value > 0x20 && $0.value != 0x7F && $0 != "\"" && $0 != "\\" && !(0xF700...0xF7FF).contains($0.value)
        }
        guard path.hasPrefix("/"), !path.hasSuffix("/"), isPlain else {
            throw ValueProblem(
                message: "\(quoted(text)) is not the path of a Unix socket",
                expected: "an absolute path like `unix:/run/app.sock`, without blanks, quotes, backslashes and escapes")
        }
        guard path.utf8.count <= UnixSockets.longestPath else {
            throw ValueProblem(
                message: "the path of a Unix socket has at most \(UnixSockets.longestPath) bytes, and this one "
                    + "\(path.utf8.count)", help: "move the socket to a shorter path, or link one to its directory")
        }
        guard let endpoint = UnixSockets.endpoint(path) else {
            throw ValueProblem(
                message: "this process has had \(UnixSockets.capacity) Unix sockets as backends, and takes no more",
                help: "start the node again")
        }
        return endpoint
    }

    /// What the author of something like a Unix socket meant: `unix@/run/app.sock`, `/run/app.sock`.
    private static func help(_ text: String) -> String? {
        if text.hasPrefix("unix@/") { return "write `unix:\(text.dropFirst(5))`" }
        if text.hasPrefix("/") { return "for a Unix socket write `unix:\(text)`" }
        if text.hasPrefix("abns@") || text.hasPrefix("@") { return "a Unix socket has a path: `unix:/run/app.sock`" }
        return nil
    }

    // MARK: Names

    /// `db.internal:5432`. Nil: it is something else.
    private static func named(_ text: String) throws(ValueProblem) -> BackendSpec? {
        let colon = text.lastIndex(of: ":")
        let host = colon.map { text[..<$0] } ?? text[...]
        guard IPAddress(host) == nil, let name = BackendName.canonical(host) else { return nil }
        // A block's name, or a word of another proxy's, is reported as such.
        guard let colon else {
            guard name.contains(".") else { return nil }
            throw ValueProblem(
                message: "\(quoted(text)) has no port", expected: "a name and a port like `\(name):8443`",
                help: name.hasPrefix("_") ? "for SRV records write `srv \(name)`" : nil)
        }
        let port: UInt16
        do throws(ValueProblem) {
            port = try ConfigValue.port(text[text.index(after: colon)...])
        } catch {
            throw ValueProblem(
                message: error.message, expected: error.expected ?? "a port from 1 to 65535", help: error.help)
        }
        guard name != "localhost" else {
            throw ValueProblem(
                message: "`localhost` is not looked up", expected: "an address",
                help: "write `[::1]:\(port)` or `127.0.0.1:\(port)`")
        }
        return BackendSpec(Endpoint(.unspecified, port), name: BackendName(.host, name))
    }
}
