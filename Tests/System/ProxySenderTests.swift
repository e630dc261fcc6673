import TestSupport
import Testing

/// A listener that believes the PROXY headers of some peers: what it does with the client that they name (R17).
@Suite("Trusted senders name the client")
struct ProxySenderTests {
    private static let v1 = Array("PROXY TCP6 2001:db8::7 2001:db8::1 1234 443\r\n".utf8)
    /// 203.0.113.9:1234 to 192.0.2.2:443, and the private TLV 0xEA with `hi`.
    private static let v2 =
        bytes(hex: "0d0a0d0a000d0a515549540a21110011cb007109c000020204d201bbea00026869") ?? []

    private func config(
        _ entry: Place, _ backend: Place, stages: [String], proxy: String = "proxy_v2", asksHeader: Bool = false
    ) -> String {
        let route = RouteText(
            host: "a.example.com", id: "rt_a", port: entry.port, backends: [backend], proxy: asksHeader)
        return ConfigText(tlsListeners: [entry], firstStages: stages, proxy: proxy, routes: [route]).description
    }

    @Test(
        "R17, R7: header, hello and data in one segment or in many: sni looks behind the header",
        arguments: [v1, v2], [1, 7, 100_000])
    func segments(header: [UInt8], size: Int) throws {
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let node = try Node(
            config(entry, echo.place, stages: ["anti_spoof accept from ::1, refuse others, timeout 60s"]))
        let client = try Socket.connect(to: entry)
        let place = try client.local
        let payload = clientHello("a.example.com") + pattern(500)
        var rest = (header + payload)[...]
        while !rest.isEmpty {
            try client.send(Array(rest.prefix(size)))
            rest = rest.dropFirst(size)
        }
        #expect(try client.receive(exactly: payload.count) == payload)
        client.finish()
        #expect(try client.receiveToEnd().bytes == [])
        let line = try node.log(of: place)
        #expect(line.client == (header == Self.v1 ? "[2001:db8::7]:1234" : "203.0.113.9:1234"))
        #expect(line.serverName == "a.example.com" && line.sniff == "ok")
        #expect(line.bytesToBackend == payload.count)
    }

    @Test("R17: address rules below it judge the believed client, not the peer")
    func addressMatch() throws {
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let stages = ["anti_spoof accept from ::1, refuse others, timeout 60s", "address deny 203.0.113.0/24"]
        let node = try Node(config(entry, echo.place, stages: stages))
        let hello = clientHello("a.example.com")
        for (header, passes) in [(Self.v1, true), (Self.v2, false), ([], true)] {
            let client = try Socket.connect(to: entry)
            let place = try client.local
            try client.send(header + hello)
            if passes {
                #expect(try client.receive(exactly: hello.count) == hello)
                client.finish()
            }
            #expect(try client.receiveToEnd().bytes == [])
            let reason = try node.log(of: place).reason
            #expect(reason == (passes ? "relay.closed client" : "address.denied_source client"))
        }
    }

    @Test("R16, R17: our own header is INET for an IPv4 client that a sender names, whatever our listener is")
    func ownHeader() throws {
        let backend = try ManualServer()
        let entry = Place("::1", try FreePort.take())
        let node = try Node(
            config(
                entry, backend.place, stages: ["anti_spoof require from ::1, refuse others, timeout 60s"],
                proxy: "proxy_v2 pass_through, tlv route 0xE9", asksHeader: true))
        let client = try Socket.connect(to: entry)
        let hello = clientHello("a.example.com")
        try client.send(Self.v2 + hello)
        let socket = try backend.accept()
        // R16: source and destination as the sender's header has them; the listener is an IPv6 one.
        let addresses = "cb007109" + "c0000202" + "04d2" + "01bb"
        let tlvs = "e90004" + hex("rt_a".utf8) + "ea00026869"
        let wanted = "0d0a0d0a000d0a515549540a21110018" + addresses + tlvs + hex(hello)
        #expect(hex(try socket.receive(exactly: wanted.utf8.count / 2)) == wanted)
        client.reset()
        let line = try node.log("the line of rt_a") { $0.route == "rt_a" }
        #expect(line.client == "203.0.113.9:1234" && line.bytesToBackend == hello.count)
        // R1: the route is our listener's, and so is the log's destination.
        #expect(line.destination == entry.description)
    }

    @Test("R16: more TLVs of a sender's than fit are a refusal of their own, before the backend is connected")
    func tlvsTooLarge() throws {
        let backend = try ManualServer()
        let entry = Place("::1", try FreePort.take())
        let node = try Node(
            config(
                entry, backend.place, stages: ["anti_spoof require from ::1, refuse others, max 4KiB, timeout 60s"],
                proxy: "proxy_v2 pass_through", asksHeader: true))
        let client = try Socket.connect(to: entry)
        let place = try client.local
        let start = bytes(hex: "0d0a0d0a000d0a515549540a2111080fcb007109c000020204d201bbea0800") ?? []
        try client.send(start + [UInt8](repeating: 7, count: 0x800) + clientHello("a.example.com"))
        #expect(try client.receiveToEnd().bytes == [])
        let line = try node.log(of: place)
        #expect(line.reason == "proxy_v2.tlvs_too_large client" && line.backend == nil)
    }

    // MARK: Raw listeners

    private func greeter() throws -> Server {
        try Server { socket in
            try socket.send("220 ready\r\n")
            while case .bytes(let chunk) = try socket.receive() { try socket.send(chunk) }
            socket.finish()
        }
    }

    private func rawNode(_ entry: Place, _ backend: Place, _ stages: String...) throws -> Node {
        let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [backend])
        return try Node(ConfigText(rawListeners: [entry], firstStages: stages, routes: [route]).description)
    }

    @Test(
        "R17: what follows a believed header is payload, unless a second stage refuses headers there",
        arguments: [1, 2])
    func innerHeader(stages: Int) throws {
        let server = try greeter()
        let entry = Place("::1", try FreePort.take())
        let first = "anti_spoof require from ::1, refuse others, timeout 60s"
        let node =
            try stages == 1
            ? rawNode(entry, server.place, first) : rawNode(entry, server.place, first, "anti_spoof refuse others")
        let sender = try Socket.connect(to: entry)
        let place = try sender.local
        // The second header begins in the segment of the first, and goes on after the server has spoken.
        try sender.send(Self.v2 + Self.v1.prefix(3))
        #expect(try sender.receive(exactly: 11) == Array("220 ready\r\n".utf8))
        try sender.send(Array(Self.v1.dropFirst(3)))
        sender.finish()
        #expect(try sender.receiveToEnd().bytes == (stages == 1 ? Self.v1 : []))
        let line = try node.log(of: place)
        #expect(line.client == "203.0.113.9:1234")
        #expect(line.reason == (stages == 1 ? "relay.closed client" : "anti_spoof.spoofed client"))
        #expect(line.bytesToBackend == (stages == 1 ? Self.v1.count : 0))
    }

    @Test("R17, R2: a server that speaks first is not delayed for strangers, and what they forge is closed")
    func strangerOnRaw() throws {
        let server = try greeter()
        let entry = Place("127.0.0.1", try FreePort.take())
        // Were the stranger waited for, it would be for longer than this test has patience.
        let node = try rawNode(
            entry, server.place, "anti_spoof require from 127.0.0.1, refuse others, timeout 60s")
        for forges in [false, true] {
            let stranger = try Socket.connect(to: entry, from: Place("127.0.0.2", try FreePort.take()))
            let place = try stranger.local
            #expect(try stranger.receive(exactly: 11) == Array("220 ready\r\n".utf8))
            try stranger.send(forges ? Self.v1 : Array("QUIT".utf8))
            stranger.finish()
            #expect(try stranger.receiveToEnd().bytes == (forges ? [] : Array("QUIT".utf8)))
            let reason = try node.log(of: place).reason
            #expect(reason == (forges ? "anti_spoof.spoofed client" : "relay.closed client"))
        }
    }

    @Test("R17: a stranger's bytes are held for as long as they could become a header, whatever a sender's deadline")
    func strangerHeldBeyondDeadline() throws {
        let server = try greeter()
        let entry = Place("127.0.0.1", try FreePort.take())
        let node = try rawNode(
            entry, server.place, "anti_spoof accept from 127.0.0.1, refuse others, timeout 100ms")
        let stranger = try Socket.connect(to: entry, from: Place("127.0.0.2", try FreePort.take()))
        let place = try stranger.local
        #expect(try stranger.receive(exactly: 11) == Array("220 ready\r\n".utf8))
        try stranger.send("PRO")
        // A sender that is silent is let through at the deadline: when its greeting comes, the stranger's has passed too.
        let sender = try Socket.connect(to: entry, from: Place("127.0.0.1", try FreePort.take()))
        #expect(try sender.receive(exactly: 11) == Array("220 ready\r\n".utf8))
        #expect(stranger.isQuiet)
        try stranger.send("XY TCP4 ")
        #expect(try stranger.receiveToEnd().bytes == [])
        let line = try node.log(of: place)
        #expect(line.reason == "anti_spoof.spoofed client" && line.bytesToBackend == 0)
    }

    @Test("R17: on a raw listener, a sender's header is taken out and the server's greeting follows it")
    func senderOnRaw() throws {
        let server = try greeter()
        let entry = Place("::1", try FreePort.take())
        let node = try rawNode(entry, server.place, "anti_spoof require from ::1, refuse others, timeout 60s")
        let sender = try Socket.connect(to: entry)
        let place = try sender.local
        try sender.send(Self.v2)
        #expect(try sender.receive(exactly: 11) == Array("220 ready\r\n".utf8))
        try sender.send("QUIT")
        sender.finish()
        #expect(try sender.receiveToEnd().bytes == Array("QUIT".utf8))
        let line = try node.log(of: place)
        #expect(line.client == "203.0.113.9:1234" && line.bytesToBackend == 4)
    }

    @Test("R17: who may send a header and is silent waits until the deadline; who must, is closed then")
    func silentSender() throws {
        let server = try greeter()
        for duty in ["accept", "require"] {
            let entry = Place("::1", try FreePort.take())
            let node = try rawNode(
                entry, server.place, "anti_spoof \(duty) from ::1, refuse others, timeout 300ms")
            let sender = try Socket.connect(to: entry)
            let place = try sender.local
            if duty == "accept" {
                #expect(try sender.receive(exactly: 11) == Array("220 ready\r\n".utf8))
                sender.finish()
            }
            #expect(try sender.receiveToEnd().bytes == [])
            let line = try node.log(of: place)
            #expect(
                line.reason == (duty == "accept" ? "relay.closed client" : "anti_spoof.header_timeout client"))
            #expect(line.durationMilliseconds >= 300, "\(line)")
            #expect(line.client == place.description)
        }
    }
}
