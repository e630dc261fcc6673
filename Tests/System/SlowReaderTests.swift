import Foundation
import TestSupport
import Testing

/// Dead is a peer whose TCP is silent, and no other (R14).
@Suite("Slow readers and dead ones", .serialized)
struct SlowReaderTests {
    private static func start(_ server: Place, _ entry: Place, in namespace: String? = nil, more: String = "") throws
        -> Node
    {
        try Node(
            ConfigText(
                settings: ["user_timeout 2s"], rawListeners: [entry],
                routes: [RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server])], more: more
            ).description, in: namespace)
    }

    @Test("R14: a reader of 100 KB/s after a fast start outlives user_timeout by far, and gets all")
    func slowReader() throws {
        let chunk = pattern(1 << 20)
        let count = 64
        let server = try Server { socket in
            for _ in 0..<count { try socket.send(chunk) }
            socket.finish()
            _ = try socket.receiveToEnd()
        }
        let entry = Place("::1", try FreePort.take())
        let node = try Self.start(server.place, entry)
        let client = try Socket.connect(to: entry)
        // So fast that the receiver's buffer grows to megabytes: its window then opens once in seconds.
        var seen = 0
        while seen < 40 << 20 { seen += try client.receive(exactly: 1 << 20).count }
        // Five times user_timeout, a little every tenth of a second.
        var pace = Pace(perSecond: 10)
        for _ in 0..<100 {
            pace.wait()
            seen += try client.receive(exactly: 10_000).count
        }
        let rest = try client.receiveToEnd()
        seen += rest.bytes.count
        #expect(rest.ending == .fin && seen == count << 20, "\(rest.ending) after \(seen)")
        withExtendedLifetime(node) {}
    }

    @Test("R14: a client that reads nothing for four times user_timeout, and then reads, gets all")
    func pausedReader() throws {
        let bytes = pattern(16 << 20)
        let server = try Server { socket in
            try socket.send(bytes)
            socket.finish()
            _ = try socket.receiveToEnd()
        }
        let entry = Place("::1", try FreePort.take())
        let clock = try NodeClock("8s")
        let node = try Self.start(server.place, entry, more: clock.config)
        let client = try Socket.connect(to: entry, receiveBuffer: 65536)
        _ = client.becomesReadable(Deadline())
        try clock.pass(node)
        let seen = try client.receiveToEnd()
        #expect(seen.bytes == bytes && seen.ending == .fin, "\(seen.ending) after \(seen.bytes.count)")
        withExtendedLifetime(node) {}
    }

    @Test(
        "R14: a peer that vanishes with something owed to it is dead after user_timeout, and not much later",
        .enabled(if: Namespace.obstacle == nil, "no network namespace here"), arguments: ["client", "upstream"])
    func vanished(side: String) throws {
        let namespace = try Namespace()
        try namespace.nft("add table inet t; add chain inet t c { type filter hook input priority 0; }")
        try namespace.nft("add chain inet t o { type filter hook output priority 0; }")
        let server = try namespace.concurrently { [host = namespace.host] in try ManualServer(host) }.value()
        let near = try ManualServer()
        let entry = Place(side == "client" ? namespace.near : "::1", try FreePort.take())
        let node = try Self.start(side == "client" ? near.place : server.place, entry)
        let client =
            side == "client"
            ? try namespace.concurrently { try Socket.connect(to: entry) }.value() : try Socket.connect(to: entry)
        let place = try client.local
        let backend = try (side == "client" ? near : server).accept()
        // Both know each other.
        try client.send("a")
        #expect(try backend.receive(exactly: 1) == Array("a".utf8))
        try backend.send("b")
        #expect(try client.receive(exactly: 1) == Array("b".utf8))
        try namespace.nft("add rule inet t c meta l4proto tcp drop; add rule inet t o meta l4proto tcp drop")
        let began = Deadline.now()
        try (side == "client" ? backend : client).send("is anybody there?")
        let line = try node.log(of: place)
        let seconds = Double(Deadline.now() - began) / 1e9
        #expect(line.reason == "relay.dead \(side)", "\(line)")
        #expect(seconds > 1.9 && seconds < 30, "\(seconds)")
        #expect(try (side == "client" ? backend : client).receiveToEnd().ending == .reset)
    }
}
