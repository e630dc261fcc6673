import Foundation
import Glibc
import TestSupport
import Testing

/// Workers with tables of descriptors of their own, and with the process's: what is where, and that listeners come and go
/// the same.
@Suite("R27: descriptors, in a table for each worker and in one for all")
struct DescriptorTableTests {
    struct Site {
        let folder: TemporaryFolder
        let server: ManualServer
        let kept: Place
        let other: Place
        let tables: String

        init(_ tables: String) throws {
            self.tables = tables
            folder = try TemporaryFolder()
            server = try ManualServer()
            kept = Place("::1", try FreePort.take())
            other = Place("::1", try FreePort.take())
        }

        func config(_ entries: [Place]) -> String {
            let routes = entries.enumerated().map { number, entry in
                RouteText(host: nil, id: "rt_\(number)", port: entry.port, backends: [server.place])
            }
            return ConfigText(
                settings: ["descriptors \(tables)", "spare_sockets 0 per worker"], workers: 2, rawListeners: entries,
                routes: routes
            ).description
        }

        func start(_ entries: [Place]) throws -> Node { try Node(config(entries), folder: folder) }

        func reload(_ node: Node, _ entries: [Place]) throws {
            let line = try node.reload(config(entries))
            #expect(line.isEvent("reloaded"), "\(line.text)")
        }

        /// A byte each way.
        func connect(_ entry: Place) throws -> (client: Socket, backend: Socket) {
            let client = try Socket.connect(to: entry)
            try client.send("a")
            let backend = try server.accept()
            _ = try backend.receive(exactly: 1)
            try backend.send("b")
            _ = try client.receive(exactly: 1)
            return (client, backend)
        }

        /// Somebody else can have the port, and not only beside the node.
        func waitUntilFree(_ place: Place) throws {
            try awaitUntil("\(place) is not the node's any more") { (try? Socket.listen(at: place)) != nil }
        }
    }

    @Test("a connection is in its worker's table; in the process's only where it is shared")
    func whereConnectionsAre() throws {
        for (tables, isShared) in [("per_worker", false), ("shared", true)] {
            let site = try Site(tables)
            let node = try site.start([site.kept])
            let first = try site.connect(site.kept)
            try node.settle()
            let before = try node.processDescriptorCount
            let held = try (0..<20).map { _ in try site.connect(site.kept) }
            let expected = before + (isShared ? 2 * held.count : 0)
            try awaitUntil("\(expected) descriptors, \(tables)") { try node.processDescriptorCount == expected }
            first.client.finish()
            for pair in held { pair.client.finish() }
        }
    }

    @Test(
        "listeners come and go by reloads: new ones serve, the port of one that went is free, what stays notices nothing",
        arguments: ["per_worker", "shared"])
    func listenersComeAndGo(tables: String) throws {
        let site = try Site(tables)
        let node = try site.start([site.kept])
        let long = try site.connect(site.kept)
        try node.settle()
        let before = try node.descriptorCount
        for _ in 0..<5 {
            try site.reload(node, [site.kept, site.other])
            let pair = try site.connect(site.other)
            try site.reload(node, [site.kept])
            try site.waitUntilFree(site.other)
            try pair.client.send("c")
            #expect(try pair.backend.receive(exactly: 1) == Array("c".utf8))
            pair.client.finish()
            #expect(try pair.backend.receiveToEnd().ending == .fin)
            pair.backend.finish()
            #expect(try pair.client.receiveToEnd().ending == .fin)
        }
        _ = try node.logs(5)
        try long.client.send("d")
        #expect(try long.backend.receive(exactly: 1) == Array("d".utf8))
        let more = try site.connect(site.kept)
        // One connection more, with its two descriptors; no listener stays behind.
        try awaitUntil("\(before + 2) descriptors") { try node.descriptorCount <= before + 2 }
        withExtendedLifetime(more) {}
    }

    @Test("while a node drains, its port is free for the next one", arguments: ["per_worker", "shared"])
    func drainsOffItsPort(tables: String) throws {
        let site = try Site(tables)
        let node = try site.start([site.kept])
        let long = try site.connect(site.kept)
        node.child.signal(SIGTERM)
        try node.waitForEvent("draining")
        try site.waitUntilFree(site.kept)
        try long.backend.send("still here")
        #expect(try long.client.receive(exactly: 10) == Array("still here".utf8))
        long.client.finish()
        #expect(try long.backend.receiveToEnd().ending == .fin)
        long.backend.finish()
        #expect(try node.child.waitForExit() == .code(0))
    }
}
