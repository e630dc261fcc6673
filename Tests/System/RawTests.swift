import Testing

/// Raw TCP: chosen by port alone, never looked at before the backend is there (R2).
@Suite("Raw routes let the server speak first")
struct RawTests {
    struct Site {
        let node: Node
        let entry: Place

        init(_ backend: Place, stages: [String] = [], proxy: Bool = false) throws {
            let entry = Place("::1", try FreePort.take())
            let route = RouteText(host: nil, id: "rt_db", port: entry.port, backends: [backend], proxy: proxy)
            self.entry = entry
            node = try Node(ConfigText(rawListeners: [entry], firstStages: stages, routes: [route]).description)
        }
    }

    static let gates: [[String]] = [[], ["anti_spoof refuse others"]]

    @Test("R2, R17: a server that speaks first is heard, with and without anti_spoof", arguments: gates)
    func serverSpeaksFirst(stages: [String]) throws {
        let server = try Server { socket in
            try socket.send("220 ready\r\n")
            let question = try socket.receive(exactly: 6)
            try socket.send(question + Array("250 bye\r\n".utf8))
            socket.finish()
            _ = try socket.receiveToEnd()
        }
        let site = try Site(server.place, stages: stages)
        let client = try Socket.connect(to: site.entry)
        let place = try client.local
        #expect(try client.receive(exactly: 11) == Array("220 ready\r\n".utf8))
        try client.send("QUIT\r\n")
        #expect(try client.receiveToEnd().bytes == Array("QUIT\r\n250 bye\r\n".utf8))
        client.finish()
        let line = try site.node.log(of: place)
        #expect(line.route == "rt_db")
        #expect(line.sniff == "not_asked")
        #expect(line.bytesToBackend == 6 && line.bytesToClient == 26)
        #expect(line.reason == "relay.closed upstream")
    }

    @Test(
        "R17: a PROXY signature is closed as spoofed, whole or byte by byte, and no byte of it reaches the backend",
        arguments: [
            Array("PROXY TCP6 ::2 ::1 1 2\r\n".utf8),
            [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, 0x21, 0x11, 0, 12],
        ])
    func refusesSignature(bytes: [UInt8]) throws {
        for isBytewise in [false, true] {
            let server = try ManualServer()
            let site = try Site(server.place, stages: ["anti_spoof refuse others"])
            let client = try Socket.connect(to: site.entry)
            let place = try client.local
            let backend = try server.accept()
            if isBytewise {
                // The node may close before the last: then the rest can't be sent.
                for byte in bytes { try? client.send([byte]) }
            } else {
                try client.send(bytes)
            }
            #expect(try client.receiveToEnd().bytes == [])
            #expect(try backend.receiveToEnd().bytes == [])
            #expect(try site.node.log(of: place).reason == "anti_spoof.spoofed client")
        }
    }

    @Test("R17: a PROXY signature on a TLS listener with anti_spoof is spoofed, not merely no TLS")
    func refusesSignatureOnTLS() throws {
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let route = RouteText(host: "a.example.com", id: "rt_a", port: entry.port, backends: [echo.place])
        let node = try Node(
            ConfigText(tlsListeners: [entry], firstStages: ["anti_spoof refuse others"], routes: [route]).description)
        let client = try Socket.connect(to: entry)
        let place = try client.local
        try client.send(Array("PROXY TCP6 ::2 ::1 1 2\r\n".utf8) + clientHello("a.example.com"))
        #expect(try client.receiveToEnd().bytes == [])
        #expect(try node.log(of: place).reason == "anti_spoof.spoofed client")
    }

    @Test("R17: bytes that only begin like a signature pass once they can't be one")
    func passesNearSignature() throws {
        let echo = try Server.echo()
        let site = try Site(echo.place, stages: ["anti_spoof refuse others"])
        let client = try Socket.connect(to: site.entry)
        try client.send("PRO")
        try client.send("MPT> hello")
        client.finish()
        #expect(try client.receiveToEnd().bytes == Array("PROMPT> hello".utf8))
    }

    @Test(
        "R16, R17: the PROXY header reaches the backend at once, while the client has said nothing yet",
        arguments: gates)
    func headerComesBeforeClient(stages: [String]) throws {
        let server = try ManualServer()
        let site = try Site(server.place, stages: stages, proxy: true)
        let client = try Socket.connect(to: site.entry)
        let backend = try server.accept()
        let header = try backend.receive(exactly: 52)
        #expect(
            Array(header.prefix(16)) == [
                0x0D, 0x0A, 0x0D, 0x0A, 0, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, 0x21, 0x21, 0, 36,
            ])
        let port = try client.local.port
        #expect(Array(header[48..<50]) == [UInt8(port >> 8), UInt8(port & 255)])
        try backend.send("hello")
        #expect(try client.receive(exactly: 5) == Array("hello".utf8))
        try client.send("thanks")
        #expect(try backend.receive(exactly: 6) == Array("thanks".utf8))
    }
}
