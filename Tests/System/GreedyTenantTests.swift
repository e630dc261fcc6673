import Foundation
import TestSupport
import Testing

/// R27: one tenant's stalled connections take no buffer that another's needs, and nobody who is served is reset for one.
@Suite("A tenant that stalls", .serialized)
struct GreedyTenantTests {
    /// Fills a stream whose other end reads nothing, until nothing more fits.
    private static func fill(_ socket: Socket, _ bytes: [UInt8]) throws {
        while try (socket.sendSome(bytes[...]).unwrap("open stream")) > 0 {}
    }

    @Test("another tenant's streams go on, whole, beside as many stalled ones as there is room for")
    func stalled() throws {
        let folder = try TemporaryFolder()
        let admin = folder.path + "/admin.sock"
        let (silent, echo) = (try ManualServer(), try Server.echo())
        let entries = try (0..<2).map { _ in Place("::1", try FreePort.take()) }
        let node = try Node(
            ConfigText(
                settings: ["connections 64 per worker", "admin unix:\(admin)"], rawListeners: entries,
                routes: [
                    RouteText(id: "rt_greedy", port: entries[0].port, backends: [silent.place]),
                    RouteText(id: "rt_quiet", port: entries[1].port, backends: [echo.place]),
                ]
            ).description, folder: folder)
        // Both ways, in blocks and in pipes. (A pool that is empty is the simulation's: S35.)
        let chunk = pattern(60_000)
        let greedy = try (0..<58).map { _ in
            let client = try Socket.connect(to: entries[0], receiveBuffer: 4096)
            try client.send("a")
            return (client: client, backend: try silent.accept())
        }
        for _ in 0..<3 {
            for pair in greedy {
                try Self.fill(pair.client, chunk)
                try Self.fill(pair.backend, chunk)
            }
        }
        try awaitUntil("as many of the greedy tenant's streams stand still as it has connections") {
            try NodeStatus.total("buffers_in_use", admin) + NodeStatus.total("pipes_in_use", admin) >= greedy.count
        }
        let quiet = try (0..<5).map { _ in try Socket.connect(to: entries[1], receiveBuffer: 4096) }
        // More than the sockets between take at once: what comes back waits in the node until it is read.
        let payload = pattern(100_000, seed: 7)
        for _ in 0..<3 {
            for client in quiet { try client.send(payload) }
            for client in quiet { #expect(try client.receive(exactly: payload.count) == payload) }
        }
        // An eighth of 128 is for accepts and first bytes.
        #expect(try NodeStatus.total("buffers_in_use", admin) <= 112)
        #expect(node.child.lines.allSatisfy { !$0.text.contains("limits.sniff_buffers") })
    }

    @Test("half a signature holds no buffer, and its other half is not lost")
    func halfSignatures() throws {
        let folder = try TemporaryFolder()
        let admin = folder.path + "/admin.sock"
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let node = try Node(
            ConfigText(
                settings: ["connections 64 per worker", "admin unix:\(admin)"], rawListeners: [entry],
                firstStages: ["anti_spoof refuse others"],
                routes: [RouteText(id: "rt_raw", port: entry.port, backends: [echo.place])]
            ).description, folder: folder)
        let clients = try (0..<60).map { _ in try Socket.connect(to: entry) }
        for client in clients { try client.send("PRO") }
        try awaitUntil("all have come") { try NodeStatus.total("connections_active", admin) == 60 }
        try awaitUntil("no buffer is in use") { try NodeStatus.total("buffers_in_use", admin) == 0 }
        for (number, client) in clients.enumerated() {
            try client.send(number % 2 == 0 ? "FIT" : "XY ")
            if number % 2 == 0 {
                #expect(try client.receive(exactly: 6) == Array("PROFIT".utf8))
            } else {
                #expect(try client.receiveToEnd().bytes == [])
                #expect(try node.log(of: client.local).reason == "anti_spoof.spoofed client")
            }
        }
    }
}
