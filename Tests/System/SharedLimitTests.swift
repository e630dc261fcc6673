import TestSupport
import Testing

@Suite("One address with several limits") struct SharedLimitTests {
    @Test("connections count together, each route holds to its own number, and `backends` and `check` say so")
    func shared() throws {
        let server = try ManualServer("127.0.0.1")
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let entries = try (0..<2).map { _ in Place("127.0.0.1", try FreePort.take()) }
        let routes = zip(entries, [1, 3]).map { entry, limit in
            RouteText(
                id: "rt_\(limit)", port: entry.port, backends: [], more: ["backend \(server.place) max \(limit)"])
        }
        let node = try Node(
            ConfigText(settings: ["admin unix:\(admin)"], rawListeners: entries, routes: routes).description,
            folder: folder)
        let first = try Socket.connect(to: entries[1])
        let served = try server.accept()
        let refused = try Socket.connect(to: entries[0])
        #expect(try node.log(of: refused.local).reason == "backend.backends_full upstream")
        let second = try Socket.connect(to: entries[1])
        let more = try server.accept()
        let row = try (Admin.json(["backends"], admin)["backends"] as? [[String: Any]])?.first.unwrap("row")
        #expect(row?["max_connections"] as? Int == 1 && row?["max_connections_highest"] as? Int == 3, "\(row ?? [:])")
        let table = try Binary.run(["backends", "--admin", admin]).out.split(separator: "\n").map {
            $0.split(separator: " ")
        }
        let column = try table[0].firstIndex(of: "MAX").unwrap("MAX")
        #expect(column > 0 && table[1].contains("1-3"), "\(table)")
        let check = try Binary.run(["check", node.config])
        #expect(check.exit == .code(0) && (check.out + check.error).contains("has `max 3` here and `max 1` elsewhere"))
        withExtendedLifetime((first, second, served, more)) {}
    }
}
