import Testing

/// The first bytes of a TLS listener, sent by a plain socket: what is waited for, what is refused, and why.
@Suite("Sniffing is bounded and distinct")
struct SniffTests {
    /// A node with an echo server behind each route.
    struct Site {
        let echo: Server
        let node: Node
        let entry: Place

        init(
            names: [String] = ["a.example.com", "b.example.com"], sniff: String = "timeout 10s, max 16KiB",
            allowsNonTLS: Bool = false
        )
            throws
        {
            let echo = try Server.echo()
            let entry = Place("::1", try FreePort.take())
            let routes = names.enumerated().map { index, name in
                RouteText(
                    host: name, id: "rt_\(index)", port: entry.port, backends: [echo.place], allowsNonTLS: allowsNonTLS)
            }
            self.echo = echo
            self.entry = entry
            node = try Node(ConfigText(sniff: sniff, tlsListeners: [entry], routes: routes).description)
        }

        /// What comes back when `bytes` are sent and nothing more, and the log line.
        func refused(_ bytes: [UInt8]) throws -> LogLine {
            let client = try Socket.connect(to: entry)
            let place = try client.local
            try client.send(bytes)
            #expect(try client.receiveToEnd().bytes == [])
            return try node.log(of: place)
        }
    }

    @Test("R6: HTTP on a TLS listener is closed", arguments: [["a.example.com"], ["a.example.com", "b.example.com"]])
    func closesHTTP(names: [String]) throws {
        let line = try Site(names: names).refused(Array("GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n".utf8))
        #expect(line.reason == "sni.not_tls client")
        #expect(line.sniff == "not_tls")
        #expect(line.backend == nil)
    }

    @Test("R6: bytes that are no TLS pass where the only route allows them")
    func passesNonTLSWhereAllowed() throws {
        let site = try Site(names: ["a.example.com"], allowsNonTLS: true)
        let client = try Socket.connect(to: site.entry)
        let place = try client.local
        try client.send("GET / HTTP/1.0\r\n\r\n")
        client.finish()
        #expect(try client.receiveToEnd().bytes == Array("GET / HTTP/1.0\r\n\r\n".utf8))
        #expect(try site.node.log(of: place).sniff == "not_tls")
    }

    @Test("R7: a hello that comes one byte at a time is routed, and arrives whole and once")
    func takesHelloByteByByte() throws {
        let site = try Site()
        let client = try Socket.connect(to: site.entry)
        let place = try client.local
        let hello = clientHello("b.example.com")
        for byte in hello { try client.send([byte]) }
        #expect(try client.receive(exactly: hello.count) == hello)
        client.finish()
        #expect(try client.receiveToEnd().bytes == [])
        let line = try site.node.log(of: place)
        #expect(line.route == "rt_1")
        #expect(line.bytesToBackend == hello.count && line.bytesToClient == hello.count)
    }

    @Test("R7: what follows the hello in the same bytes is kept")
    func keepsTrailingBytes() throws {
        let site = try Site()
        let client = try Socket.connect(to: site.entry)
        let bytes = clientHello("a.example.com") + pattern(60_000)
        try client.send(bytes)
        client.finish()
        #expect(try client.receiveToEnd().bytes == bytes)
    }

    @Test("R7: half a hello is closed at the deadline, and not before")
    func timesOut() throws {
        let line = try Site(sniff: "timeout 300ms").refused(Array(clientHello("a.example.com").dropLast()))
        #expect(line.reason == "sni.timeout client")
        #expect(line.sniff == "timeout")
        #expect(line.durationMilliseconds >= 300, "\(line)")
    }

    @Test("R6, R7: where only one route can be meant, half a hello is relayed at the deadline, and the rest after it")
    func relaysAtDeadlineWhenSole() throws {
        let site = try Site(names: ["a.example.com"], sniff: "timeout 200ms")
        let client = try Socket.connect(to: site.entry)
        let hello = clientHello("a.example.com")
        try client.send(Array(hello.prefix(20)))
        #expect(try client.receive(exactly: 20) == Array(hello.prefix(20)))
        try client.send(Array(hello.dropFirst(20)))
        client.finish()
        #expect(try client.receiveToEnd().bytes == Array(hello.dropFirst(20)))
    }

    @Test("R7: nothing at all is a timeout as well")
    func timesOutOnSilence() throws {
        let line = try Site(sniff: "timeout 300ms").refused([])
        #expect(line.reason == "sni.timeout client")
    }

    @Test("R7: a client that ends within its hello is closed at once")
    func closesWhenClientEnds() throws {
        let site = try Site()
        let client = try Socket.connect(to: site.entry)
        let place = try client.local
        try client.send(Array(clientHello("a.example.com").prefix(30)))
        client.finish()
        #expect(try client.receiveToEnd().bytes == [])
        let line = try site.node.log(of: place)
        #expect(line.reason == "sni.closed client")
        #expect(line.durationMilliseconds < 9000)
    }

    @Test("R7: a hello beyond the limit is too large, known at once")
    func refusesTooLarge() throws {
        let line = try Site(sniff: "timeout 10s, max 1024").refused(clientHello("a.example.com", padding: 2000))
        #expect(line.reason == "sni.too_large client")
        #expect(line.sniff == "too_large")
        #expect(line.durationMilliseconds < 9000)
    }

    @Test("R7: a malformed hello is known at once, not at the deadline")
    func refusesMalformed() throws {
        var hello = clientHello("a.example.com")
        // The extension block claims one byte more than the body has.
        hello[hello.count - Array("a.example.com".utf8).count - 10] &+= 1
        let line = try Site().refused(hello)
        #expect(line.reason == "sni.malformed client")
        #expect(line.durationMilliseconds < 9000)
    }

    @Test(
        "R3: a server name that is no hostname matches nothing, and is not taken for none",
        arguments: ["192.0.2.1", "a_b..c", "-"])
    func refusesInvalidName(name: String) throws {
        let line = try Site(names: ["a.example.com"]).refused(clientHello(name))
        #expect(["sni.invalid_name client", "backend.no_route client"].contains(line.reason), "\(line)")
    }

    @Test("R28: a client that resets while it is looked at is told apart from a refusal")
    func namesClientReset() throws {
        let site = try Site()
        let client = try Socket.connect(to: site.entry)
        let place = try client.local
        try client.send(Array(clientHello("a.example.com").prefix(30)))
        client.reset()
        #expect(try site.node.log(of: place).reason == "relay.reset client")
    }
}
