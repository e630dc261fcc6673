import Foundation
import TestSupport
import Testing

@Suite("R27: who waits for a place holds a slot, and one network's do not hold all") struct QueueRoomTests {
    @Test("no slot is left: the network with most that wait loses its newest, down to a crowd; few are left alone")
    func room() throws {
        let server = try ManualServer("127.0.0.1")
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let entry = Place("127.0.0.1", try FreePort.take())
        let route = RouteText(
            host: "a.example.com", id: "rt", port: entry.port, backends: [],
            more: ["backend \(server.place) max 1", "queue 1000 for 1m"])
        let node = try Node(
            ConfigText(
                settings: ["connections 20 per worker", "admin unix:\(admin)"], tlsListeners: [entry], routes: [route]
            ).description, folder: folder)
        // A whole hello: these are neither silent nor undecided.
        func connect(_ host: String) throws -> Socket {
            let client = try Socket.connect(to: entry, from: Place(host, 0))
            // It may be refused before.
            try? client.send(clientHello("a.example.com"))
            return client
        }
        func waitUntil(queued count: Int) throws {
            try awaitUntil("\(count) wait") { try NodeStatus.total("connections_queued", admin) == count }
        }
        let holder = try connect("127.0.0.2")
        let served = try server.accept()
        var greedy: [Socket] = []
        for count in 1...19 {
            greedy.append(try connect("127.0.0.3"))
            try waitUntil(queued: count)
        }
        // Its own newcomers gain nothing, and each of four others takes a place of the newest.
        greedy.append(try connect("127.0.0.3"))
        _ = try node.logs(1)
        let others = try (0..<4).map { try connect("127.0.0.\(10 + $0)") }
        let lines = try node.logs(5)
        #expect(lines.values.allSatisfy { $0.reason == "limits.queued node" && $0.attempts == 0 }, "\(lines)")
        let lost = [greedy[18], greedy[19], greedy[17], greedy[16], greedy[15]]
        #expect(Set(lines.keys) == Set(try lost.map { try $0.local.description }))
        try waitUntil(queued: 19)
        // 15 of one network are no crowd any more.
        let last = try connect("127.0.0.99")
        #expect(try node.log(of: last.local).reason == "limits.connections node")
        #expect(try NodeStatus.total("connections_queued", admin) == 19)
        // What runs goes on.
        try served.send("x")
        #expect(try holder.receive(exactly: 1) == Array("x".utf8))
        withExtendedLifetime(others) {}
    }
}
