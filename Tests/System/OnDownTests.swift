import Foundation
import Testing

/// What `on_down` and `on_up` do to established connections, beside HAProxy's `on-marked-down shutdown-sessions` and
/// `on-marked-up shutdown-backup-sessions` in the same run.
@Suite("Established connections of a backend that goes down or comes back, beside HAProxy")
struct OnDownTests {
    /// A server that says its name and stays; what it has accepted goes on when its listener is gone.
    private final class Staying {
        let place: Place
        private let name: String
        private var server: Server?

        init(_ name: String) throws {
            self.name = name
            place = Place("::1", try FreePort.take())
            try start()
        }

        func start() throws {
            let name = name
            server = try Server(port: place.port) { socket in
                try socket.send(name)
                while case .bytes(let chunk) = try socket.receive() { try socket.send(chunk) }
            }
        }

        func stop() throws {
            server = nil
            try place.waitUntilNobodyListens()
        }
    }

    private func node(_ entry: Place, _ backends: [String], _ health: [String]) throws -> Node {
        let lines = ["probe tcp", "interval 200ms", "fall 2", "rise 2"] + health
        return try Node(
            ConfigText(
                settings: ["connect_timeout 300ms"], rawListeners: [entry], backend: "round_robin, health web",
                routes: [RouteText(id: "rt", port: entry.port, backends: [], more: backends.map { "backend \($0)" })],
                more: "\nhealth web {\n" + lines.map { "    \($0)\n" }.joined() + "}\n"
            ).description)
    }

    private func haproxy(_ entry: Place, _ servers: [String]) throws -> HAProxy {
        try HAProxy(
            """
            defaults
                mode tcp
                timeout connect 300ms
                timeout client 60s
                timeout server 60s
            listen web
                bind \(entry)
            \(servers.map { "    server \($0)\n" }.joined())
            """, ready: entry)
    }

    /// A connection, and who answered it.
    private func open(_ entry: Place) throws -> (client: Socket, name: String) {
        let client = try Socket.connect(to: entry)
        return (client, String(decoding: try client.receive(exactly: 1), as: UTF8.self))
    }

    private func lives(_ client: Socket) throws -> Bool {
        try client.send("x")
        return try client.receive(exactly: 1) == Array("x".utf8)
    }

    private static func noticed(_ peer: HAProxy, _ text: String) throws {
        _ = try peer.child.wait(text) { lines in lines.contains { $0.text.contains(text) } ? true : nil }
    }

    @Test("on_down end resets the connections of a backend that its probes take out, and no others; keep keeps them")
    func down() throws {
        let (a, b) = (try Staying("a"), try Staying("b"))
        let entries = try (0..<3).map { _ in Place("::1", try FreePort.take()) }
        let ending = try node(entries[0], ["\(a.place)", "\(b.place)"], ["on_down end"])
        let keeping = try node(entries[1], ["\(a.place)", "\(b.place)"], [])
        let check = "check inter 200ms fall 2 rise 2 on-marked-down shutdown-sessions"
        let peer = try haproxy(entries[2], ["a \(a.place) \(check)", "b \(b.place) \(check)"])
        let open = try entries.map { entry in
            Dictionary(
                try (0..<4).map { _ in try self.open(entry) }.map { ($0.name, $0.client) }, uniquingKeysWith: { $1 })
        }
        #expect(open.allSatisfy { $0.count == 2 })
        try a.stop()
        for node in [ending, keeping] { _ = try node.event("backend_down", of: a.place) }
        try Self.noticed(peer, "Server web/a is DOWN")
        for relay in [0, 2] {
            let gone = try open[relay]["a"].unwrap("a client of a")
            // HAProxy ends it too; how, is its own affair.
            let end = try gone.receiveToEnd().ending
            if relay == 0 { #expect(end == .reset) }
            #expect(try lives(try open[relay]["b"].unwrap("a client of b")))
        }
        _ = try ending.log("the end") { $0.reason == "backend.down upstream" }
        #expect(try lives(try open[1]["a"].unwrap("a client of a")))
        #expect(!keeping.child.lines.contains { $0.text.contains("backend.down ") })
        // It is no drain: as soon as it is back it serves.
        try a.start()
        _ = try ending.event("backend_up", of: a.place)
        let names = Set(try (0..<2).map { _ in try self.open(entries[0]).name })
        #expect(names == ["a", "b"])
    }

    @Test("on_up end_backup resets the connections of backups when a primary is back; new ones go to the primary")
    func up() throws {
        let (primary, spare) = (try Staying("p"), try Staying("s"))
        let (ours, theirs) = (Place("::1", try FreePort.take()), Place("::1", try FreePort.take()))
        let node = try node(ours, ["\(primary.place)", "\(spare.place) backup"], ["on_up end_backup"])
        let check = "check inter 200ms fall 2 rise 2"
        let peer = try haproxy(
            theirs,
            [
                "p \(primary.place) \(check) on-marked-up shutdown-backup-sessions", "s \(spare.place) \(check) backup",
            ])
        try primary.stop()
        _ = try node.event("backend_down", of: primary.place)
        try Self.noticed(peer, "Server web/p is DOWN")
        let held = try [ours, theirs].map { try open($0) }
        #expect(held.map(\.name) == ["s", "s"])
        try primary.start()
        _ = try node.event("backend_up", of: primary.place)
        try Self.noticed(peer, "Server web/p is UP")
        #expect(try held[0].client.receiveToEnd().ending == .reset)
        _ = try held[1].client.receiveToEnd()
        _ = try node.log("the end") { $0.reason == "backend.primary_back node" }
        #expect(try [ours, theirs].map { try open($0).name } == ["p", "p"])
    }
}
