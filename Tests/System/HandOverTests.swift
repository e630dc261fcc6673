import Foundation
import Glibc
import TestSupport
import Testing

/// A node starts where another one drains: no connection waits for the old one's last (R26).
@Suite("A node beside one that drains")
struct HandOverTests {
    private struct Site {
        let folder: TemporaryFolder
        let admin: String
        let config: String
        let entry: Place
        let backend: ManualServer

        init(_ settings: [String] = []) throws {
            folder = try TemporaryFolder()
            admin = folder.path + "/admin.sock"
            backend = try ManualServer()
            entry = Place("::1", try FreePort.take())
            let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [backend.place])
            config =
                ConfigText(settings: ["admin unix:\(admin)"] + settings, rawListeners: [entry], routes: [route])
                .description
        }

        func start() throws -> Node { try Node(config, folder: folder) }

        func exchange(_ client: Socket, _ server: Socket) throws {
            try client.send("ask")
            #expect(try server.receive(exactly: 3) == Array("ask".utf8))
            try server.send("answer")
            #expect(try client.receive(exactly: 6) == Array("answer".utf8))
        }

        func pid(_ path: String) throws -> Int { try Admin.json(["status"], path)["pid"] as? Int ?? 0 }

        /// It drains, and nobody listens.
        func drain(_ node: Node) throws {
            node.child.signal(SIGTERM)
            try node.waitForEvent("draining")
            try entry.waitUntilNobodyListens()
        }
    }

    @Test("it takes listeners and admin socket; the old one answers beside it until its connections end")
    func takesOver() throws {
        let site = try Site()
        let old = try site.start()
        let held = try Socket.connect(to: site.entry)
        let heldServer = try site.backend.accept()
        try site.drain(old)
        let new = try site.start()
        let client = try Socket.connect(to: site.entry)
        try site.exchange(client, try site.backend.accept())
        try site.exchange(held, heldServer)
        #expect(try site.pid(site.admin) == Int(new.child.pid))
        #expect(try site.pid(site.admin + ".draining") == Int(old.child.pid))
        try old.waitForEvent("handed_over")
        held.finish()
        heldServer.finish()
        #expect(try old.child.waitForExit() == .code(0))
        // It takes away what is its own alone.
        #expect(!FileManager.default.fileExists(atPath: site.admin + ".draining"))
        #expect(try site.pid(site.admin) == Int(new.child.pid))
        new.child.signal(SIGTERM)
        client.finish()
        #expect(try new.child.waitForExit() == .code(0))
        #expect(!FileManager.default.fileExists(atPath: site.admin))
    }

    @Test("three in a row, two of them draining: each ends by itself, and the last one's socket stays")
    func three() throws {
        let site = try Site()
        var nodes: [(node: Node, client: Socket, server: Socket)] = []
        for _ in 0..<3 {
            if let last = nodes.last { try site.drain(last.node) }
            let node = try site.start()
            nodes.append((node, try Socket.connect(to: site.entry), try site.backend.accept()))
        }
        // Each stays within reach.
        #expect(try site.pid(site.admin + ".draining") == Int(nodes[0].node.child.pid))
        #expect(try site.pid(site.admin + ".draining.2") == Int(nodes[1].node.child.pid))
        for one in nodes {
            try site.exchange(one.client, one.server)
            #expect(try site.pid(site.admin) == Int(nodes[2].node.child.pid))
            guard one.node.child.pid != nodes[2].node.child.pid else { break }
            one.client.finish()
            one.server.finish()
            #expect(try one.node.child.waitForExit() == .code(0))
        }
    }

    @Test("a new node that can't start takes nothing over: the one that drains stays within reach")
    func failing() throws {
        let site = try Site()
        let old = try site.start()
        let held = try Socket.connect(to: site.entry)
        let heldServer = try site.backend.accept()
        try site.drain(old)
        // Somebody else has the port, for himself alone.
        let other = try Socket.listen(at: site.entry)
        let second = try Child(Binary.path, ["run", old.config])
        #expect(try second.waitForExit() == .code(1))
        #expect(second.output.contains("not_started"), "\(second.output)")
        #expect(try site.pid(site.admin) == Int(old.child.pid))
        #expect(!old.child.output.contains("handed_over"))
        try site.exchange(held, heldServer)
        withExtendedLifetime(other) {}
    }

    @Test("a node that serves hands nothing over: the second one does not start, and says why")
    func serving() throws {
        let site = try Site()
        let node = try site.start()
        let second = try Child(Binary.path, ["run", node.config])
        #expect(try second.waitForExit() == .code(1))
        #expect(second.output.contains("another process answers on it"), "\(second.output)")
        #expect(try site.pid(site.admin) == Int(node.child.pid))
    }

    @Test("R21: both write to one ledger, each what it relayed: nothing is lost, nothing counts twice")
    func ledger() throws {
        let ledgerSite = try LedgerSite()
        let folder = ledgerSite.folder
        let admin = folder.path + "/admin.sock"
        let config = ledgerSite.config(ledgerSite.ledger, every: "1s")
            .replacing("node test {\n", with: "node test {\n    admin unix:\(admin)\n")
        let old = try ledgerSite.start(config)
        let first = try Socket.connect(to: ledgerSite.entry)
        let firstServer = try ledgerSite.server.accept()
        try first.send([UInt8](repeating: 1, count: 100_000))
        _ = try firstServer.receive(exactly: 100_000)
        old.child.signal(SIGTERM)
        try old.waitForEvent("draining")
        try ledgerSite.entry.waitUntilNobodyListens()
        let new = try ledgerSite.start(config)
        let second = try Socket.connect(to: ledgerSite.entry)
        let secondServer = try ledgerSite.server.accept()
        for (client, server) in [(first, firstServer), (second, secondServer)] {
            try client.send([UInt8](repeating: 2, count: 200_000))
            _ = try server.receive(exactly: 200_000)
            client.finish()
            server.finish()
        }
        #expect(try old.child.waitForExit() == .code(0))
        new.child.signal(SIGTERM)
        #expect(try new.child.waitForExit() == .code(0))
        let total = try ledgerSite.total()
        #expect(total.out == 500_000 && total.connections == 2, "\(total)")
        for node in [old, new] {
            for event in ["ledger_failed", "ledger_set_aside", "ledger_changed"] {
                #expect(!node.child.output.contains(event), "\(node.child.output)")
            }
        }
    }

    @Test(
        "R21: datagrams are counted by the old one, then by the new one: once",
        .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
    func conntrack() throws {
        let site = try ConntrackNodeTests.Site()
        let lab = site.lab
        let echo = try lab.inside(lab.server) { try DatagramEcho(Place("2001:db8:9::2", 5353)) }
        defer { echo.stop() }
        let server = try lab.inside(lab.server) { try ManualServer("2001:db8:9::2") }
        let held = try lab.inside(lab.alpha) { try Socket.connect(to: server.place) }
        try site.waitForDumps(1)
        try site.exchange(100)
        site.node.child.signal(SIGTERM)
        try site.node.waitForEvent("draining")
        let new = try Node(
            try String(contentsOfFile: site.node.config, encoding: .utf8), folder: lab.folder, in: lab.node)
        try site.waitForDumps(1)
        // The old one is still there, and would count them as well.
        try site.exchange(100)
        try site.waitForDumps(2)
        #expect(!site.node.child.hasEnded)
        held.finish()
        #expect(try site.node.child.waitForExit() == .code(0))
        let two = ConntrackNodeTests.Site.Sum(out: 200 * 1048, into: 200 * 1048, connections: 2)
        #expect(try site.settled("port", "5353/udp") { $0.into >= two.into } == two)
        withExtendedLifetime((server, new)) {}
    }

    @Test(
        "R26: rules of interception are the new one's: the old one does not put back its own",
        .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
    func rules() throws {
        let lab = try EgressLab()
        let server = try lab.inside(lab.server) { try ManualServer("2001:db8:9::2") }
        let old = try lab.startNode(
            setting: "intercept rules manage\n    admin unix:\(lab.folder.path)/admin.sock", isApplied: false)
        try old.waitForEvent("interception_applied")
        let held = try lab.inside(lab.alpha) { try Socket.connect(to: server.place) }
        _ = try server.accept()
        old.child.signal(SIGTERM)
        try old.waitForEvent("draining")
        // The thread that puts rules back is over before the new one's come.
        try awaitUntil("the old one watches no rules") { try !old.threads.contains("interception") }
        let text = try String(contentsOfFile: old.config, encoding: .utf8)
        let new = try Node(text.replacing(":15001", with: ":15003"), folder: lab.folder, in: lab.node)
        try new.waitForEvent("interception_applied")
        let client = try lab.inside(lab.alpha) { try Socket.connect(to: server.place) }
        _ = try server.accept()
        let check = try lab.attemptRules(new.config, "--check")
        #expect(check.exit == .code(0), "\(check.output)")
        #expect(!old.child.hasEnded && !(old.child.output + new.child.output).contains("interception_lost"))
        withExtendedLifetime((held, client)) {}
    }
}
