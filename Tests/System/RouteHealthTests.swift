import Foundation
import TestSupport
import Testing

/// `health` of a route, and agents: what a running node makes of them.
@Suite("Health of a route's own, and agents")
struct RouteHealthTests {
    private static let lines = "    interval  200ms\n    timeout   200ms\n    fall      1\n    rise      1\n"

    @Test("a route's block holds in place of its pipeline's; off is neither probed nor ejected")
    func ofRoutes() throws {
        let server = try Server.echo()
        let gone = Place("::1", try FreePort.take())
        let entries = try (0..<3).map { _ in Place("::1", try FreePort.take()) }
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin"
        let dead = Place("::1", try FreePort.take())
        let text = ConfigText(
            settings: ["admin unix:\(admin)"], rawListeners: entries, backend: "round_robin, health usual",
            routes: [
                RouteText(id: "usual", port: entries[0].port, backends: [gone]),
                RouteText(id: "own", port: entries[1].port, backends: [server.place], more: ["health strict"]),
                RouteText(id: "off", port: entries[2].port, backends: [dead], more: ["health off"]),
            ],
            more: """

                health usual {
                    probe  tcp
                \(Self.lines)}

                health strict {
                    probe  redis
                    panic  use_all
                \(Self.lines)}

                """)
        let node = try Node(text.description, folder: folder)
        let strict = try node.event("backend_down", of: server.place).text
        #expect(
            strict.contains("\"health\":\"strict\"") && strict.contains("\"reason\":\"unexpected answer\""), "\(strict)"
        )
        _ = try node.event("backend_down", of: gone)
        // Its own panic, too.
        let client = try Socket.connect(to: entries[1])
        try client.send("x")
        #expect(try client.receive(exactly: 1) == Array("x".utf8))
        for _ in 0..<8 { #expect(try Socket.connect(to: entries[2]).receiveToEnd().ending == .reset) }
        let refused = try node.child.wait("eight refusals") { lines in
            let all = lines.compactMap { $0.stream == .out ? LogLine($0.text) : nil }.filter { $0.route == "off" }
            return all.count >= 8 ? all : nil
        }
        #expect(refused.allSatisfy { $0.reason == "backend.refused upstream" && $0.attempts == 1 })
        let rows = try Admin.json(["backends"], admin)["backends"] as? [[String: Any]] ?? []
        let off = rows.first { $0["address"] as? String == dead.description }
        #expect(off?["probe"] as? String == "unknown" && off?["ejected_for_ms"] as? Int == 0, "\(off ?? [:])")
    }

    /// An agent that says what it is told to.
    private final class Agent: @unchecked Sendable {
        private let lock = NSLock()
        private var text: String
        private(set) var server: Server?
        init(_ text: String) throws {
            self.text = text
            server = try Server { [weak self] socket in
                try socket.send((self?.word ?? "") + "\n")
                socket.finish()
            }
        }
        var word: String {
            get { lock.withLock { text } }
            set { lock.withLock { text = newValue } }
        }
        var port: UInt16 { server?.place.port ?? 0 }
    }

    @Test("agent: drain keeps new connections away and no old one, and a percentage is a part of the share: as HAProxy")
    func agents() throws {
        let agent = try Agent("up")
        let (one, two) = (try Server.saying("1"), try Server.saying("2"))
        let (ours, theirs) = (Place("::1", try FreePort.take()), Place("::1", try FreePort.take()))
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin"
        let node = try Node(
            ConfigText(
                settings: ["admin unix:\(admin)"], rawListeners: [ours], backend: "round_robin, health agents",
                routes: [
                    // Only the first one has the agent.
                    RouteText(
                        id: "rt", port: ours.port, backends: [],
                        more: ["backend \(one.place)", "backend \(two.place) backup"])
                ],
                more: "\nhealth agents {\n    probe  agent\n    port   \(agent.port)\n\(Self.lines)}\n"
            ).description, folder: folder)
        let peer = try HAProxy(
            """
            defaults
                mode tcp
                timeout connect 1s
                timeout client 10s
                timeout server 10s
            listen web
                bind \(theirs)
                server one \(one.place) agent-check agent-addr ::1 agent-port \(agent.port) agent-inter 200ms
                server two \(two.place) backup

            """, ready: theirs)
        let asks = { (entry: Place) in
            String(decoding: try Socket.connect(to: entry).receiveToEnd().bytes, as: UTF8.self)
        }
        #expect(try [ours, theirs].map(asks) == ["1", "1"])
        agent.word = "drain"
        for server in [one, two] { _ = try node.event("backend_drained", of: server.place) }
        // Both have the same agent here, so nobody is left; HAProxy's backup has none, and serves.
        try awaitUntil("HAProxy has heard it") { try asks(theirs) == "2" }
        #expect(try asks(ours).isEmpty)
        #expect(!node.child.lines.contains { $0.isEvent("backend_down") }, "drained is not down")
        agent.word = "up 40%"
        for server in [one, two] { _ = try node.event("backend_undrained", of: server.place) }
        try awaitUntil("its part is shown") {
            let rows = try Admin.json(["backends"], admin)["backends"] as? [[String: Any]] ?? []
            return rows.contains { $0["agent_percent"] as? Int == 40 }
        }
        agent.word = "down #broken"
        let down = try node.event("backend_down", of: one.place).text
        #expect(down.contains("\"answer\":\"down #broken\""), "\(down)")
        #expect(!peer.child.hasEnded)
    }
}
