import Foundation
import TestSupport
import Testing

/// A side that resets: what it had said before arrives, and its end is told at once and as what it was (R13, R15, R28).
@Suite("Sides that are gone", .serialized)
struct LossTests {
    private struct Pair {
        let node: Node
        let client: Socket
        let place: Place
        let backend: Socket

        init(_ node: Node, _ entry: Place, _ server: ManualServer, receiveBuffer: Int32? = nil) throws {
            self.node = node
            client = try Socket.connect(to: entry, receiveBuffer: receiveBuffer)
            place = try client.local
            backend = try server.accept()
        }
    }

    /// Well before anything else would end a connection. That it is a second where nothing else runs the simulation shows.
    private static let soon = 20.0

    private static func start(_ settings: [String] = [], backends: [Place], more: String = "") throws -> (Node, Place) {
        let entry = Place("::1", try FreePort.take())
        let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: backends)
        let config = ConfigText(settings: settings, rawListeners: [entry], routes: [route], more: more)
        return (try Node(config.description), entry)
    }

    /// The node holds bytes for a side that doesn't read.
    private static func fill(_ socket: Socket) throws { _ = try socket.fill(with: pattern(1 << 20)) }

    @Test("R15: a server's answer to an upload that it doesn't read arrives before its reset, each time")
    func answerBeforeReset() throws {
        let server = try ManualServer()
        let (node, entry) = try Self.start(backends: [server.place])
        let answer = Array("HTTP/1.1 413 Content Too Large\r\n\r\n".utf8)
        for number in 0..<20 {
            let pair = try Pair(node, entry, server)
            try Self.fill(pair.client)
            try pair.backend.send(answer)
            // With unread bytes: Linux resets at once.
            pair.backend.reset()
            let seen = try pair.client.receiveToEnd()
            #expect(seen.bytes == answer && seen.ending == .reset, "\(number): \(seen)")
            #expect(try node.log(of: pair.place).reason == "relay.reset upstream")
        }
    }

    @Test("R15: of uploads that are answered while they run, none loses its answer")
    func answerWhileUploading() throws {
        let answer = Array("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n".utf8)
        let server = try Server { socket in
            _ = try socket.receive(atMost: 65536)
            try socket.send(answer)
            socket.reset()
        }
        let (node, entry) = try Self.start(backends: [server.place])
        let chunk = pattern(1 << 16)
        var answered = 0
        for _ in 0..<60 {
            let client = try Socket.connect(to: entry)
            for _ in 0..<128 { guard (try? client.send(chunk)) != nil else { break } }
            if try client.receiveToEnd().bytes == answer { answered += 1 }
        }
        #expect(answered == 60)
        withExtendedLifetime(node) {}
    }

    @Test("R15: a client's last words before its reset reach the backend, while it is being written to")
    func lastWordsOfClient() throws {
        let server = try ManualServer()
        let (node, entry) = try Self.start(backends: [server.place])
        for number in 0..<20 {
            let pair = try Pair(node, entry, server, receiveBuffer: 4096)
            let pours = concurrently { () -> String in
                let chunk = pattern(1 << 16)
                do {
                    while true { try pair.backend.send(chunk) }
                } catch {
                    return "\(error)"
                }
            }
            _ = try pair.client.receive(exactly: 65536)
            let words = pattern(3000, seed: UInt32(number))
            try pair.client.send(words)
            pair.client.reset()
            let seen = try pair.backend.receiveToEnd()
            // The reset is told once: to whoever asks first.
            let error = try pours.value()
            #expect(seen.bytes == words, "\(number): \(seen.bytes.count)")
            #expect(seen.ending == .reset || error.contains("reset by peer"), "\(number): \(seen.ending), \(error)")
            #expect(try node.log(of: pair.place).reason == "relay.reset client")
        }
    }

    @Test(
        "R13: a client that resets while its backends are being connected to is missed at once, and blames nobody"
    )
    func resetWhileConnecting() throws {
        let silent = try (0..<3).map { _ in try ManualServer(backlog: 1) }
        let fillers = try silent.flatMap { try $0.fill() }
        let folder = try TemporaryFolder()
        let admin = folder.path + "/admin.sock"
        let (node, entry) = try Self.start(
            ["connect_timeout 60s", "admin unix:\(admin)"], backends: silent.map(\.place))
        let client = try Socket.connect(to: entry)
        let place = try client.local
        try client.send("hello")
        try awaitUntil("it is in the node's hands") { try NodeStatus.total("connect_attempts", admin) == 1 }
        let began = Date()
        client.reset()
        let line = try node.log(of: place)
        #expect(line.reason == "backend.abandoned client" && line.attempts == 1, "\(line)")
        #expect(try line.seconds(after: began) < Self.soon, "\(line)")
        withExtendedLifetime(fillers) {}
    }

    @Test("R13: one that is there for longer, and then resets, is missed at once as well")
    func resetLater() throws {
        let silent = try ManualServer(backlog: 1)
        let fillers = try silent.fill()
        let clock = try NodeClock("600ms")
        let (node, entry) = try Self.start(["connect_timeout 60s"], backends: [silent.place], more: clock.config)
        let client = try Socket.connect(to: entry)
        let place = try client.local
        // A client is watched only once its backend has been slow.
        try clock.pass(node)
        let began = Date()
        client.reset()
        let line = try node.log(of: place)
        #expect(line.reason == "backend.abandoned client", "\(line)")
        #expect(try line.seconds(after: began) < Self.soon, "\(line)")
        withExtendedLifetime(fillers) {}
    }

    @Test("R13, R15: a client that resets while its upload stands still is missed at once, by a reset")
    func resetOfStalledUpload() throws {
        let server = try ManualServer()
        let (node, entry) = try Self.start(backends: [server.place])
        let pair = try Pair(node, entry, server)
        try Self.fill(pair.client)
        let began = Date()
        pair.client.reset()
        let line = try node.log(of: pair.place)
        #expect(line.reason == "relay.reset client", "\(line)")
        #expect(try line.seconds(after: began) < Self.soon, "\(line)")
        // What it had sent and the backend's socket has taken is there, and then the reset.
        let seen = try pair.backend.receiveToEnd()
        #expect(!seen.bytes.isEmpty && seen.ending == .reset)
    }

    @Test("R15: a backend that resets keeps its words for a client that reads late")
    func lateReader() throws {
        let server = try ManualServer()
        let (node, entry) = try Self.start(backends: [server.place])
        let pair = try Pair(node, entry, server, receiveBuffer: 4096)
        let words = pattern(300_000)
        let sent = try pair.backend.sendSome(words[...]).unwrap("socket that takes bytes")
        // All of it is with the node, or on its way to the client.
        try pair.client.send("go on")
        _ = try pair.backend.receive(exactly: 5)
        pair.backend.reset()
        // A client that has gone since, and whose own words nobody takes, has been given up: a backend's are kept for longer.
        let other = try Pair(node, entry, server)
        try Self.fill(other.client)
        other.client.reset()
        #expect(try node.log(of: other.place).reason == "relay.reset client")
        let seen = try pair.client.receiveToEnd()
        #expect(seen.bytes == Array(words[..<seen.bytes.count]) && seen.ending == .reset)
        #expect(sent > 0 && !seen.bytes.isEmpty)
        #expect(try node.log(of: pair.place).reason == "relay.reset upstream")
    }
}
