import Foundation
import TestSupport
import Testing

/// An attacker with a large network against a small table (R27).
@Suite("Many sources", .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
struct ManySourcesTests {
    private static let sources = 20_000
    private static let burst = 2
    private static let threads = 4

    /// The `number`-th address of the network that is all local in the namespace.
    private static func source(_ number: Int) -> Place {
        Place("fd99:0:\(String(number >> 12, radix: 16)):\(String(number & 0xFFF, radix: 16))::7", 0)
    }

    /// Each source of `range` connects once; the numbers of those that were served.
    private static func visit(_ entry: Place, _ range: Range<Int>, in namespace: Namespace) throws -> [Int] {
        let parts = (0..<threads).map { part in
            namespace.concurrently {
                var served: [Int] = []
                for number in range where number % threads == part {
                    let client = try Socket.connect(to: entry, from: source(number))
                    if case .bytes = try client.receive(atMost: 1) { served.append(number) }
                    // No TIME_WAIT: the ports are needed again.
                    client.reset()
                }
                return served
            }
        }
        return try parts.flatMap { try $0.value(Deadline(seconds: 300), "end of the sources") }
    }

    @Test("20,000 IPv6 sources against a 2,000-entry table: memory stays flat, and no source exceeds its limit")
    func attack() throws {
        let namespace = try Namespace()
        try namespace.ip("-6 route add local fd99::/32 dev lo")
        try namespace.allowAnySource()
        let server = try Server(namespace.near) { socket in
            try socket.send("x")
            _ = try socket.receiveToEnd()
        }
        let entry = Place(namespace.host, try FreePort.take())
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let limit = "\nlimit tested {\n    key client/128\n    rate 1/h burst \(Self.burst)\n    table 2k\n}\n"
        let node = try Node(
            ConfigText(
                settings: ["log off", "admin unix:\(admin)"], workers: 2, rawListeners: [entry],
                firstStages: ["rate_limit tested"],
                routes: [RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])], more: limit
            ).description, folder: folder, in: namespace.name)
        var counts: [Int: Int] = [:]
        let visit = { (range: Range<Int>) in
            for number in try Self.visit(entry, range, in: namespace) { counts[number, default: 0] += 1 }
        }
        // As many as fill the table.
        try visit(0..<2_500)
        let before = try node.residentBytes
        try visit(2_500..<Self.sources)
        // Those that are in it, twice more.
        for _ in 0..<2 { try visit(0..<2_500) }
        let after = try node.residentBytes
        print("many sources: \(counts.count) served, memory \(before) -> \(after)")
        #expect(counts.values.allSatisfy { $0 <= Self.burst })
        #expect(counts.values.contains(Self.burst))
        // Full when about four fifths are in use, at the earliest.
        #expect((1_500...2_000).contains(counts.count), "\(counts.count) sources have an entry")
        #expect(after - before < 256 << 10, "\(before) bytes before, \(after) after")
        let reasons = try (Admin.json(["status"], admin)["reasons"] as? [[String: Any]]).unwrap("reasons")
        let count = { (reason: String) in
            reasons.first { $0["reason"] as? String == reason }?["count"] as? Int ?? 0
        }
        #expect(count("rate_limit.table_full node") >= Self.sources - 2_500)
        #expect(count("rate_limit.rate_exceeded client") > 0)
        let served = counts.values.reduce(0, +)
        #expect(
            count("rate_limit.table_full node") + count("rate_limit.rate_exceeded client") == Self.sources + 5_000
                - served)
    }
}
