import TestSupport
import Testing

/// Bytes and ends pass unchanged both ways (R14, R15). Serialized: these move much, and measure.
@Suite("The relay", .serialized)
struct RelayTests {
    /// A raw route to a server whose one connection the test holds itself.
    struct Pair {
        let node: Node
        private let entry: Place
        private let server: ManualServer
        let client: Socket
        let clientPlace: Place
        let backend: Socket

        init(settings: [String] = [], receiveBuffer: Int32? = nil) throws {
            let server = try ManualServer()
            let entry = Place("::1", try FreePort.take())
            let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])
            let node = try Node(ConfigText(settings: settings, rawListeners: [entry], routes: [route]).description)
            try self.init(node, entry, server, receiveBuffer: receiveBuffer)
        }

        private init(_ node: Node, _ entry: Place, _ server: ManualServer, receiveBuffer: Int32? = nil) throws {
            self.node = node
            self.entry = entry
            self.server = server
            client = try Socket.connect(to: entry, receiveBuffer: receiveBuffer)
            clientPlace = try client.local
            backend = try server.accept()
        }

        /// A second connection through the same node, to the same server.
        func another() throws -> Pair { try Pair(node, entry, server) }

        func log() throws -> LogLine { try node.log(of: clientPlace) }
    }

    static let megabyte = pattern(1 << 20)
    static let bulk = 50

    /// 50 MB, and the sum of it.
    private static func pour(_ socket: Socket) throws -> Checksum {
        var sum = Checksum()
        for _ in 0..<bulk {
            try socket.send(megabyte)
            sum.add(megabyte)
        }
        socket.finish()
        return sum
    }

    private static func drink(_ socket: Socket) throws -> (sum: Checksum, ending: Ending) {
        var sum = Checksum()
        while true {
            switch try socket.receive() {
            case .bytes(let chunk): sum.add(chunk)
            case .ended(let ending): return (sum, ending)
            }
        }
    }

    @Test("R15: after the client's FIN, 50 MB still come from the backend, whole")
    func halfCloseByClient() throws {
        let pair = try Pair()
        try pair.client.send("all I have to say")
        pair.client.finish()
        let request = try pair.backend.receiveToEnd()
        #expect(request.bytes == Array("all I have to say".utf8) && request.ending == .fin)
        let sent = concurrently { try Self.pour(pair.backend) }
        let received = try Self.drink(pair.client)
        #expect(received.ending == .fin)
        #expect(try sent.value() == received.sum)
        let line = try pair.log()
        #expect(line.reason == "relay.closed client")
        #expect(line.bytesToClient == Self.bulk << 20 && line.bytesToBackend == 17)
    }

    @Test("R15: after the backend's FIN, 50 MB still go to it, whole")
    func halfCloseByBackend() throws {
        let pair = try Pair()
        try pair.backend.send("go on")
        pair.backend.finish()
        let answer = try pair.client.receiveToEnd()
        #expect(answer.bytes == Array("go on".utf8) && answer.ending == .fin)
        let sent = concurrently { try Self.pour(pair.client) }
        let received = try Self.drink(pair.backend)
        #expect(received.ending == .fin)
        #expect(try sent.value() == received.sum)
        let line = try pair.log()
        #expect(line.reason == "relay.closed upstream")
        #expect(line.bytesToBackend == Self.bulk << 20 && line.bytesToClient == 5)
    }

    @Test("R15: 50 MB both ways at once, whole")
    func bothWays() throws {
        let pair = try Pair()
        let up = concurrently { try Self.pour(pair.client) }
        let down = concurrently { try Self.pour(pair.backend) }
        let atBackend = concurrently { try Self.drink(pair.backend).sum }
        #expect(try Self.drink(pair.client).sum == down.value())
        #expect(try atBackend.value() == up.value())
    }

    @Test(
        "R15: three streams that take turns, 50 MB each way, whole",
        arguments: ["bbr", "reno"].filter(CongestionControl.isUsable))
    func streamsThatTakeTurns(congestion: String) throws {
        let first = try Pair(settings: ["congestion client \(congestion)", "congestion upstream \(congestion)"])
        let pairs = [first, try first.another(), try first.another()]
        let streams = pairs.flatMap { pair in
            [(pair.client, pair.backend), (pair.backend, pair.client)].map { from, to in
                (sent: concurrently { try Self.pour(from) }, received: concurrently { try Self.drink(to).sum })
            }
        }
        for stream in streams { #expect(try stream.sent.value() == stream.received.value()) }
        withExtendedLifetime(pairs) {}
    }

    @Test("R15: FIN in the same segment as the last bytes loses none of them", arguments: [1, 100, 70_000])
    func finWithLastBytes(count: Int) throws {
        let pair = try Pair()
        let bytes = pattern(count)
        try pair.backend.send("banner")
        #expect(try pair.client.receive(exactly: 6) == Array("banner".utf8))
        try pair.client.sendAndFinish(bytes)
        let request = try pair.backend.receiveToEnd()
        #expect(request.bytes == bytes && request.ending == .fin)
        try pair.backend.sendAndFinish(bytes)
        let answer = try pair.client.receiveToEnd()
        #expect(answer.bytes == bytes && answer.ending == .fin)
        #expect(try pair.log().reason == "relay.closed client")
    }

    @Test("R15: a client that says all and FIN before the backend is connected loses nothing")
    func finBeforeConnected() throws {
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let route = RouteText(host: "a.example.com", id: "rt_a", port: entry.port, backends: [echo.place])
        let node = try Node(ConfigText(tlsListeners: [entry], routes: [route]).description)
        for _ in 0..<50 {
            let client = try Socket.connect(to: entry)
            let place = try client.local
            let bytes = clientHello("a.example.com") + pattern(1000)
            try client.sendAndFinish(bytes)
            #expect(try client.receiveToEnd() == (bytes, .fin))
            #expect(try node.log(of: place).reason == "relay.closed client")
        }
    }

    @Test("R15: RST of the client is passed on as RST, and named")
    func resetByClient() throws {
        let pair = try Pair()
        try pair.client.send("x")
        #expect(try pair.backend.receive(exactly: 1) == Array("x".utf8))
        pair.client.reset()
        #expect(try pair.backend.receiveToEnd().ending == .reset)
        #expect(try pair.log().reason == "relay.reset client")
    }

    @Test("R15: RST of the backend is passed on as RST, and named")
    func resetByBackend() throws {
        let pair = try Pair()
        try pair.backend.send("x")
        #expect(try pair.client.receive(exactly: 1) == Array("x".utf8))
        pair.backend.reset()
        #expect(try pair.client.receiveToEnd().ending == .reset)
        #expect(try pair.log().reason == "relay.reset upstream")
    }

    @Test("R14: a half-open connection without a byte ends at half_close_timeout")
    func halfCloseTimeout() throws {
        let pair = try Pair(settings: ["half_close_timeout 1s"])
        pair.client.finish()
        #expect(try pair.backend.receiveToEnd().ending == .fin)
        #expect(try pair.client.receiveToEnd().ending == .reset)
        let line = try pair.log()
        #expect(line.reason == "relay.half_close_timeout upstream")
        #expect(line.durationMilliseconds >= 1000, "\(line)")
    }

    @Test("R15, R27: a slow reader against a fast writer keeps the node's memory flat, and gets every byte")
    func slowReader() throws {
        let pair = try Pair(receiveBuffer: 65536)
        let before = try pair.node.residentBytes
        let sent = concurrently { try Self.pour(pair.backend) }
        var sum = Checksum()
        var largest = before
        // The writer is held up all the time: what isn't read is in two sockets' buffers and one pipe.
        var reads = 0
        reading: while true {
            switch try pair.client.receive(atMost: 16384) {
            case .bytes(let chunk):
                sum.add(chunk)
                reads += 1
                if reads % 64 == 0 { largest = max(largest, try pair.node.residentBytes) }
            case .ended(let ending):
                #expect(ending == .fin)
                break reading
            }
        }
        #expect(try sent.value() == sum)
        let growth = largest - before
        #expect(growth < 4 << 20, "the node grew by \(growth) bytes over \(before)")
    }

    @Test("R15, R27: a reader that reads nothing for long holds up the writer, not the node")
    func stalledReader() throws {
        let pair = try Pair(receiveBuffer: 65536)
        let before = try pair.node.residentBytes
        // As much as the sockets on the way take, and no more: the writer must come to a stop.
        let sent = try pair.backend.fill(with: Self.megabyte)
        #expect(try pair.node.residentBytes - before < 4 << 20)
        var received = 0
        pair.backend.finish()
        while case .bytes(let chunk) = try pair.client.receive() { received += chunk.count }
        #expect(received == sent)
    }
}
