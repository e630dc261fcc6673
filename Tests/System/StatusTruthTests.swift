import Foundation
import Glibc
import TestSupport
import Testing

/// What status, logs and events say is what is (R28).
@Suite("Status, reasons and events say what is")
struct StatusTruthTests {
    /// A node whose raw route comes from a state file.
    fileprivate final class Site {
        let node: Node
        let admin: String
        let entry: Place
        let server: Server
        var state: DesiredState
        private let folder: TemporaryFolder

        init(settings: [String] = []) throws {
            folder = try TemporaryFolder()
            admin = "\(folder.path)/admin.sock"
            server = try Server.echo()
            entry = Place("::1", try FreePort.take())
            state = DesiredState(
                backendPort: server.place.port, instances: [.init(id: "i_1", grace: 600)],
                routes: [.init(id: "rt_x", port: entry.port)])
            try folder.write("state.json", state.description)
            var config = ConfigText(settings: settings + ["admin unix:\(admin)"], workers: 1, rawListeners: [entry])
            config.more = "routes file state.json\n"
            node = try Node(config.description, folder: folder)
        }

        func apply(_ change: (inout DesiredState) -> Void) throws {
            change(&state)
            state.revision += 1
            try folder.write("state.json", state.description)
            try node.reload(revision: state.revision)
        }

        func open() throws -> Socket {
            let client = try Socket.connect(to: entry)
            try client.send("ping")
            guard try client.receive(exactly: 4) == Array("ping".utf8) else { throw Failure("no echo") }
            return client
        }

        func rows(_ command: String) throws -> [[String: Any]] {
            try (Admin.json([command], admin)[command] as? [[String: Any]]).unwrap(command)
        }
        func row(_ command: String) throws -> [String: Any] { try rows(command).first.unwrap("row of \(command)") }
    }

    @Test("`routes` counts the sessions that are held, whether or not the route has a limit")
    func heldSessions() throws {
        let site = try Site()
        let held = try (0..<4).map { _ in try site.open() }
        var row = try site.row("routes")
        #expect(row["active"] as? Int == 4 && row["connections"] as? Int == 4, "\(row)")
        for client in held { client.finish() }
        for client in held { _ = try client.receiveToEnd() }
        _ = try site.node.logs(4)
        try awaitUntil("none is left") { try site.row("routes")["active"] as? Int == 0 }
        row = try site.row("routes")
        #expect(row["connections"] as? Int == 4, "\(row)")
        #expect(try Binary.run(["routes", "--admin", site.admin]).out.contains("rt_x"))
    }

    @Test("a drained instance stays in `backends` for as long as it has sessions")
    func drainedInstance() throws {
        let site = try Site()
        let client = try site.open()
        #expect(try site.row("backends")["status"] as? String == "ready")
        try site.apply { $0.instances[0].status = "draining" }
        let row = try site.row("backends")
        #expect(row["status"] as? String == "draining" && row["active"] as? Int == 1, "\(row)")
        #expect(row["address"] as? String == site.server.place.description && row["eligible"] as? Bool == false)
        #expect(try Binary.run(["backends", "--admin", site.admin]).out.contains("draining"))
        client.finish()
        _ = try client.receiveToEnd()
        try awaitUntil("it is gone") { try site.rows("backends").isEmpty }
    }

    @Test("so does one that is removed without a grace")
    func removedInstance() throws {
        let site = try Site()
        let client = try site.open()
        try site.apply { $0.instances = [] }
        try awaitUntil("it is there, and gone from the routes") {
            let row = try site.rows("backends").first
            return row?["status"] as? String == "gone" && row?["active"] as? Int == 1
        }
        client.finish()
        _ = try client.receiveToEnd()
        try awaitUntil("it is gone") { try site.rows("backends").isEmpty }
    }

    @Test("the last backend of a route goes, and comes back: each is said once")
    func lastBackend() throws {
        let site = try Site()
        _ = try site.open()
        for round in 1...2 {
            try site.apply { $0.instances[0].status = "stopped" }
            let down = try site.node.child.waitForError("routes_down") { lines in
                let found = lines.filter { $0.isEvent("routes_down") }
                return found.count == round ? found.last?.text : nil
            }
            #expect(down.contains("\"routes\":[\"rt_x\"]") && down.contains("\"env\":\"e\""), "\(down)")
            try site.apply { $0.instances[0].status = "ready" }
            _ = try site.node.child.waitForError("routes_up") { lines in
                lines.count { $0.isEvent("routes_up") } == round ? true : nil
            }
        }
        // A change that is none of its business.
        try site.apply { _ in }
        #expect(site.node.child.lines.count { $0.isEvent("routes_down") } == 2)
    }

    @Test("who leaves before the hello is whole was asked for it: `incomplete`")
    func incompleteHello() throws {
        let server = try Server.echo()
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let entry = Place("::1", try FreePort.take())
        let node = try Node(
            ConfigText(
                settings: ["admin unix:\(admin)"], tlsListeners: [entry],
                routes: [RouteText(host: "a.example.com", id: "rt_a", port: entry.port, backends: [server.place])]
            ).description, folder: folder)
        for end in [{ (client: Socket) in client.finish() }, { $0.reset() }] {
            let client = try Socket.connect(to: entry)
            let place = try client.local
            try client.send(Array(clientHello("a.example.com").prefix(20)))
            // It is counted while it is waited for.
            try awaitUntil("it sniffs") {
                let workers = try Admin.json(["status"], admin)["workers"] as? [[String: Any]]
                return workers?.first?["connections_sniffing"] as? Int == 1
            }
            end(client)
            let line = try node.log(of: place)
            #expect(line.sniff == "incomplete", "\(line)")
            #expect(["sni.closed client", "relay.reset client"].contains(line.reason), "\(line)")
        }
        try awaitUntil("nobody is waited for") {
            let workers = try Admin.json(["status"], admin)["workers"] as? [[String: Any]]
            return workers?.first?["connections_sniffing"] as? Int == 0
        }
    }

    @Test("connections that find no room in a listen queue are counted")
    func queueDrops() throws {
        let site = try Site(settings: ["backlog 1"])
        let before = try site.row("listeners", in: "status")
        #expect(before["queue_drops"] as? Int == 0, "\(before)")
        site.node.child.signal(SIGSTOP)
        // Each asks once at least: its SYN has been looked at when `connect` returns.
        var waiting: [Int32] = []
        for _ in 0..<8 {
            let fd = socket(AF_INET6, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            _ = try site.entry.withAddress { connect(fd, $0, $1) }
            waiting.append(fd)
        }
        site.node.child.signal(SIGCONT)
        defer { for fd in waiting { close(fd) } }
        try awaitUntil("they are counted") {
            try site.row("listeners", in: "status")["queue_drops"] as? Int ?? 0 > 0
        }
    }
}

extension StatusTruthTests.Site {
    fileprivate func row(_ list: String, in command: String) throws -> [String: Any] {
        try (Admin.json([command], admin)[list] as? [[String: Any]])?.first ?? [:]
    }
}
