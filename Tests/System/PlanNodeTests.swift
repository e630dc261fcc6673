import Foundation
import Glibc
import TestSupport
import Testing

/// `plan` and `check` against what a real node has, with live connections, while it serves.
@Suite("`plan --admin`: from what a node has, with its connections")
struct PlanNodeTests {
    private struct Site: KeptSite {
        let folder: TemporaryFolder
        let entry: Place
        let server: Server

        init() throws {
            folder = try TemporaryFolder()
            entry = Place("::1", try FreePort.take())
            server = try Server.echo()
        }

        func env(_ id: String) -> String { "{\"env_id\":\"\(id)\",\"app_id\":\"a\",\"org_id\":\"o\"}" }
        func instance(_ id: String, _ env: String, _ status: String = "ready") -> String {
            "{\"instance_id\":\"\(id)\",\"env_id\":\"\(env)\",\"process_type\":\"w\",\"overlay_ipv6\":\"::1\","
                + "\"status\":\"\(status)\"}"
        }
        func route(_ id: String, _ env: String) -> String {
            "{\"route_id\":\"\(id)\",\"env_id\":\"\(env)\",\"listen_port\":\(entry.port),\"protocol_hint\":\"tcp_raw\","
                + "\"backend_process_type\":\"w\",\"backend_port\":\(server.place.port)}"
        }
        var document: String {
            "{\"format\":\"pipelined.state/1\",\"revision\":1,\"envs\":[\(env("e")),\(env("f"))],"
                + "\"instances\":[\(instance("i", "e"))],\"routes\":[\(route("r", "e"))]}"
        }
        func change(base: Int = 1, put: String, delete: String = "") -> String {
            "{\"format\":\"pipelined.change/1\",\"revision\":2,\"base\":\(base),\"put\":{\(put)},\"delete\":{\(delete)}}"
        }

        func plan(_ words: [String], _ input: String) throws -> (exit: Child.Exit, out: String, error: String) {
            try Binary.run(["plan"] + words, input: input)
        }
    }

    @Test("a change that gives a port to another env: exit 4, with the connections of the route; nothing is changed")
    func moves() throws {
        let site = try Site()
        let node = try Node(site.config(), folder: site.folder)
        #expect(try Binary.run(["apply", "-", "--admin", site.admin], input: site.document).exit == .code(0))
        let clients = try (0..<3).map { _ in try Socket.connect(to: site.entry) }
        for client in clients {
            try client.send("a")
            #expect(try client.receive(exactly: 1) == Array("a".utf8))
        }
        let move = site.change(
            put: "\"instances\":[\(site.instance("i", "f"))],\"routes\":[\(site.route("s", "f"))]",
            delete: "\"routes\":[\"r\"]")
        // CONFIG is the node's own.
        let plan = try site.plan(["--admin", site.admin, "-"], move)
        #expect(plan.exit == .code(4), "\(plan)")
        #expect(plan.out.contains("port \(site.entry.port): o/a/e -> o/a/f (3 connections)"), "\(plan.out)")
        #expect(
            plan.out.contains("- r: :\(site.entry.port), o/a/e, its connections go on (3 connections)"), "\(plan.out)")
        #expect(plan.out.contains("the base is what was applied last: revision 1 from push"), "\(plan.out)")
        #expect(!plan.out.contains("the node's program is not"), "\(plan.out)")
        let json = try JSONSerialization.jsonObject(
            with: Data(try site.plan(["--admin", site.admin, node.config, "-", "--json"], move).out.utf8))
        let changes = try ((json as? [String: Any])?["changes"] as? [[String: Any]]).unwrap("changes")
        let owner = try changes.first { $0["kind"] as? String == "ownership" && $0["what"] as? String == "port" }
            .unwrap("a port that moves")
        #expect(owner["connections"] as? Int == 3 && owner["to"] as? String == "o/a/f")
        // What goes on, goes on; and the change that was planned does as the plan said.
        for client in clients {
            try client.send("b")
            #expect(try client.receive(exactly: 1) == Array("b".utf8))
        }
        #expect(try Admin.json(["status"], site.admin)["revision"] as? Int == 1)
        let stale = try site.plan(["--admin", site.admin, "-"], site.change(base: 9, put: "\"routes\":[]"))
        #expect(stale.exit == .code(1) && stale.error.contains("stands on revision 9"), "\(stale)")
        #expect(try Binary.run(["apply", "-", "--admin", site.admin], input: move).exit == .code(0))
        let routes = try Admin.json(["routes"], site.admin)["routes"] as? [[String: Any]] ?? []
        #expect(routes.map { $0["owner"] as? String } == ["o/a/f"])
    }

    @Test("who had a port first has it in the plan: kept by the node, and in its directory once it is gone")
    func remembers() throws {
        let site = try Site()
        let node = try Node(site.config(), folder: site.folder)
        #expect(try Binary.run(["apply", "-", "--admin", site.admin], input: site.document).exit == .code(0))
        let claim = site.change(put: "\"routes\":[\(site.route("a", "f"))]")
        let expected = "belongs to the raw route of o/a/e"
        for words in [["--admin", site.admin, "-"], [node.config, "-"]] {
            // The directory is read while the node has it.
            let plan = try site.plan(words, claim)
            #expect(plan.exit == .code(0) && plan.out.contains(expected), "\(plan)")
        }
        #expect(try Binary.run(["apply", "-", "--admin", site.admin], input: claim).exit == .code(5))
        try node.kill()
        let files = try FileManager.default.contentsOfDirectory(atPath: site.data).sorted()
        // The owner lets go: who waits has it.
        let freed = "{\"format\":\"pipelined.change/1\",\"revision\":3,\"base\":2,\"delete\":{\"routes\":[\"r\"]}}"
        let plan = try site.plan([node.config, "-"], freed)
        #expect(plan.exit == .code(4) && plan.out.contains("port \(site.entry.port): o/a/e -> o/a/f"), "\(plan)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: site.data).sorted() == files)
        let check = try Binary.run(["check", node.config])
        #expect(check.exit == .code(0), "\(check)")
        #expect(check.error.contains("judged by the last good state in \(site.data), revision 2"), "\(check)")
        #expect(check.error.contains(expected) && !check.error.contains("served for nobody"), "\(check)")
        // It can still be opened by a node.
        let again = try Node(site.config(), folder: site.folder)
        #expect(try Admin.json(["status"], site.admin)["revision"] as? Int == 2)
        withExtendedLifetime(again) {}
    }

    @Test("a config with another listener, and a setting that needs a restart; a node that is away is exit 3")
    func configs() throws {
        let site = try Site()
        let node = try Node(site.config(), folder: site.folder)
        #expect(try Binary.run(["apply", "-", "--admin", site.admin], input: site.document).exit == .code(0))
        let other = Place("::1", try FreePort.take())
        let new = site.config().replacing("workers  1", with: "workers  2") + "listen \(other) tcp_raw via raw\n"
        let plan = try site.plan(["--admin", site.admin, "-"], new)
        #expect(plan.exit == .code(0), "\(plan)")
        #expect(plan.out.contains("listener    + \(other): tcp_raw via raw"), "\(plan.out)")
        #expect(plan.out.contains("workers 1 -> 2, needs a restart"), "\(plan.out)")
        // The file is changed behind the node's back: it says so.
        try new.write(toFile: node.config, atomically: true, encoding: .utf8)
        let changed = try site.plan(["--admin", site.admin, "-"], new)
        #expect(changed.out.contains("the node's program is not what its config says now"), "\(changed.out)")
        try node.kill()
        #expect(try site.plan(["--admin", site.admin, "-"], new).exit == .code(3))
        #expect(try site.plan([node.config], new).exit == .code(2))
    }
}
