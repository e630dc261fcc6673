import TestSupport
import Testing

/// `idle_timeout` of routes and of `backends` blocks (R14), in place of the stage's.
@Suite("Idle connections by route") struct RouteIdleTests {
    private struct Site {
        let server: ManualServer
        let entries: [Place]
        let node: Node

        static func config(_ entries: [Place], _ server: Place, kept: String = "off") -> String {
            let lines = [
                ["backend \(server)", "idle_timeout 1s"], ["backends web"], ["backends web", "idle_timeout \(kept)"],
                ["backend \(server)"],
            ]
            let routes = lines.enumerated().map {
                RouteText(id: "rt_\($0)", port: entries[$0].port, backends: [], more: $1)
            }
            return ConfigText(
                rawListeners: entries, backend: "round_robin, idle_timeout 1h", routes: routes,
                more: "\nbackends web {\n    backend \(server)\n    idle_timeout 1s\n}\n"
            ).description
        }

        init() throws {
            server = try ManualServer()
            entries = try (0..<4).map { _ in Place("::1", try FreePort.take()) }
            node = try Node(Site.config(entries, server.place))
        }

        func connect(_ index: Int) throws -> (client: Socket, backend: Socket) {
            (try Socket.connect(to: entries[index]), try server.accept())
        }
    }

    @Test(
        "R14: the route's wins over its block's, that over the stage's; `off` is none; what lives keeps what it began with"
    )
    func precedence() throws {
        let site = try Site()
        let (byRoute, byBlock, off, byStage) = (
            try site.connect(0), try site.connect(1), try site.connect(2), try site.connect(3)
        )
        for one in [byRoute, byBlock] {
            #expect(try one.client.receiveToEnd().ending == .reset)
            let line = try site.node.log(of: one.client.local)
            #expect(line.reason == "relay.idle_timeout client" && line.durationMilliseconds >= 1000, "\(line)")
        }
        let reloaded = try site.node.reload(Site.config(site.entries, site.server.place, kept: "1s"))
        #expect(reloaded.isEvent("reloaded"))
        let later = try site.connect(2)
        #expect(try later.client.receiveToEnd().ending == .reset)
        for one in [off, byStage] {
            try one.client.send("x")
            #expect(try one.backend.receive(exactly: 1) == Array("x".utf8))
        }
    }
}
