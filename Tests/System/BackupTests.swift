import Foundation
import Testing

/// Backups and priorities of a running node, beside an HAProxy with the same servers in the same run.
@Suite("Backups, beside HAProxy")
struct BackupTests {
    /// A server that can be taken away and come back at its port.
    private final class Named {
        let name: String
        let place: Place
        private var server: Server?

        init(_ name: String) throws {
            self.name = name
            let server = try Server.saying(name)
            place = server.place
            self.server = server
        }

        func stop() throws {
            server = nil
            try place.waitUntilNobodyListens()
        }

        func start() throws {
            let name = name
            server = try Server(port: place.port) { socket in
                try socket.send(name)
                socket.finish()
                _ = try socket.receiveToEnd()
            }
        }
    }

    private static let health = """

        health web {
            probe     tcp
            interval  200ms
            fall      2
            rise      2
        }

        """

    private func node(_ entry: Place, _ lines: [String]) throws -> Node {
        let route = RouteText(id: "rt", port: entry.port, backends: [], more: lines)
        return try Node(
            ConfigText(
                settings: ["connect_timeout 300ms"], rawListeners: [entry], backend: "round_robin, health web",
                routes: [route], more: Self.health
            ).description)
    }

    private func haproxy(_ entry: Place, options: [String] = [], _ servers: [String]) throws -> HAProxy {
        try HAProxy(
            """
            defaults
                mode tcp
                timeout connect 300ms
                timeout client 10s
                timeout server 10s
                timeout queue 300ms
                retries 0
            listen web
                bind \(entry)
            \((options + servers.map { "server " + $0 }).map { "    \($0)\n" }.joined())
            """, ready: entry)
    }

    /// Who answers `count` connections; an empty name is a connection that nobody answered.
    private func answers(_ entry: Place, _ count: Int = 12) throws -> Set<String> {
        Set(
            try (0..<count).map { _ in
                String(decoding: try Socket.connect(to: entry).receiveToEnd().bytes, as: UTF8.self)
            })
    }

    @Test("backups serve only while all primaries are down: the same, but for HAProxy's `option allbackups`")
    func onlyWhenAllAreDown() throws {
        let (one, two, spare, other) = (try Named("1"), try Named("2"), try Named("spare"), try Named("other"))
        let entries = try (0..<3).map { _ in Place("::1", try FreePort.take()) }
        let node = try node(
            entries[0],
            ["backend \(one.place) \(two.place)", "backend \(spare.place) backup", "backend \(other.place) backup"])
        let check = "check inter 200ms fall 2 rise 2"
        let servers = [
            "one \(one.place) \(check)", "two \(two.place) \(check)", "spare \(spare.place) \(check) backup",
            "other \(other.place) \(check) backup",
        ]
        let first = try haproxy(entries[1], servers)
        let all = try haproxy(entries[2], options: ["option allbackups"], servers)

        func noticed(_ name: String, _ count: Int, isUp: Bool, of place: Place) throws {
            for peer in [first, all] {
                _ = try peer.child.wait("\(name) is noticed") { lines in
                    lines.count { $0.text.contains("Server web/\(name) is \(isUp ? "UP" : "DOWN")") } >= count
                        ? true : nil
                }
            }
            _ = try node.event(isUp ? "backend_up" : "backend_down", of: place)
        }

        #expect(try entries.map { try answers($0) } == [["1", "2"], ["1", "2"], ["1", "2"]])
        try one.stop()
        try noticed("one", 1, isUp: false, of: one.place)
        #expect(try entries.map { try answers($0) } == [["2"], ["2"], ["2"]])
        try two.stop()
        try noticed("two", 1, isUp: false, of: two.place)
        // All of a priority share; HAProxy uses one backup, or all of them if told to.
        #expect(try entries.map { try answers($0) } == [["spare", "other"], ["spare"], ["spare", "other"]])
        let said = try node.child.wait("that a backup is in use") { $0.first { $0.isEvent("routes_on_backup") } }
        #expect(said.text.contains("no backend of priority 0 is usable: new connections go to backup"))
        try one.start()
        try noticed("one", 1, isUp: true, of: one.place)
        #expect(try entries.map { try answers($0) } == [["1"], ["1"], ["1"]])
        try node.waitForEvent("routes_on_primary")
    }

    @Test("a primary at its limit: neither uses the backup; HAProxy queues first, this node refuses")
    func fullPrimary() throws {
        // Says its name, and stays.
        let staying = { (name: String) in
            try Server { socket in
                try socket.send(name)
                _ = try socket.receiveToEnd()
            }
        }
        let (primary, spare) = (try staying("p"), try staying("s"))
        let (ours, theirs) = (Place("::1", try FreePort.take()), Place("::1", try FreePort.take()))
        let node = try node(ours, ["backend \(primary.place) max 1", "backend \(spare.place) backup"])
        let peer = try haproxy(theirs, ["one \(primary.place) maxconn 1", "two \(spare.place) backup"])
        let held = try [ours, theirs].map { try Socket.connect(to: $0) }
        for client in held { #expect(try client.receive(exactly: 1) == Array("p".utf8)) }
        #expect(try answers(ours, 3) == [""])
        #expect(try answers(theirs, 1) == [""])
        _ = try node.log("the refusal") { $0.reason == "backend.backends_full upstream" }
        #expect(!peer.child.hasEnded)
    }

    @Test("R13: a connection that no primary takes goes on to the backup; HAProxy's is lost until a check fails")
    func inOneConnection() throws {
        let dead = Place("::1", try FreePort.take())
        let spare = try Named("spare")
        let (ours, theirs) = (Place("::1", try FreePort.take()), Place("::1", try FreePort.take()))
        let route = RouteText(
            id: "rt", port: ours.port, backends: [], more: ["backend \(dead)", "backend \(spare.place) priority 3"])
        let node = try Node(ConfigText(rawListeners: [ours], routes: [route]).description)
        let peer = try haproxy(theirs, ["one \(dead)", "two \(spare.place) backup"])
        #expect(try answers(ours, 8) == ["spare"])
        #expect(try answers(theirs, 8) == [""])
        let lines = try node.logs(8).values
        // Five failures eject it; after that nobody has to try twice.
        #expect(lines.allSatisfy { $0.backend == spare.place.description } && lines.count { $0.attempts == 2 } >= 5)
        #expect(!peer.child.hasEnded)
    }

    @Test("weight 0 means none, and says so: in `check`, `explain`, `routes` and `backends`")
    func weightZero() throws {
        let (server, idle) = (try Named("x"), try Named("y"))
        let folder = try TemporaryFolder()
        let entry = Place("::1", try FreePort.take())
        func text(_ weight: Int) -> String {
            let route = RouteText(
                id: "rt", port: entry.port, backends: [],
                more: ["backend \(server.place) weight \(weight)", "backend \(idle.place) weight 0"])
            return ConfigText(
                settings: ["admin unix:\(folder.path)/admin"], rawListeners: [entry], routes: [route]
            ).description
        }
        let node = try Node(text(1), folder: folder)
        #expect(try answers(entry) == ["x"])
        let admin = "\(folder.path)/admin"
        #expect(try Binary.run(["routes", "--admin", admin]).out.contains("1/2"))
        #expect(try Binary.run(["backends", "--admin", admin]).out.contains("0 (none)"))
        _ = try node.reload(text(0))
        #expect(try answers(entry) == [""])
        _ = try node.log("the refusal") { $0.reason == "backend.no_healthy_backend upstream" }
        #expect(try Binary.run(["check", node.config]).error.contains("every backend of the route has `weight 0`"))
        let why = try Binary.run(["explain", node.config, "--to", "\(entry)", "--from", "[::1]:9"]).out
        #expect(why.contains("weight 0: no new connections"), "\(why)")
    }

    @Test("a `backends` block has backups and health for all its routes; a route's own holds where the block has none")
    func blockOfBackends() throws {
        let dead = Place("::1", try FreePort.take())
        let (spare, other) = (try Named("spare"), try Named("other"))
        let entries = try (0..<3).map { _ in Place("::1", try FreePort.take()) }
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin"
        let routes = [("a", ["backends one"]), ("b", ["backends one"]), ("c", ["backends two", "health off"])]
            .enumerated().map { RouteText(id: $1.0, port: entries[$0].port, backends: [], more: $1.1) }
        let groups = """
            backends one {
                backend  \(dead)
                backend  \(spare.place) backup
                health   web
            }

            backends two {
                backend  \(dead) weight 0
                backend  \(other.place) priority 2
            }

            """
        // The stage has no probes: what is down here is so by the block's.
        let node = try Node(
            ConfigText(
                settings: ["admin unix:\(admin)"], rawListeners: entries, routes: routes, more: Self.health + groups
            ).description, folder: folder)
        let down = try node.event("backend_down", of: dead).text
        #expect(down.contains("\"health\":\"web\""), "\(down)")
        #expect(try entries.map { try answers($0, 4) } == [["spare"], ["spare"], ["other"]])
        // No connection had to try the dead one first.
        #expect(try node.logs(12).values.allSatisfy { $0.attempts == 1 })
        let rows = try Admin.json(["routes"], admin)["routes"] as? [[String: Any]] ?? []
        let seen = rows.sorted { ($0["id"] as? String ?? "") < ($1["id"] as? String ?? "") }
            .map { "\($0["group"] ?? "") \($0["priority_in_use"] ?? "")" }
        #expect(seen == ["one 15", "one 15", "two 2"], "\(rows)")
        let text = try Binary.run(["routes", "--admin", admin]).out
        #expect(text.contains("one 1/2 backup"), "\(text)")
    }
}
