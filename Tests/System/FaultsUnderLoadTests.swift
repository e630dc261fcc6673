import Foundation
import Glibc
import TestSupport
import Testing

/// Backends fail in every way while clients come as fast as they can (R12, R13).
@Suite("Faults under load", .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
struct FaultsUnderLoadTests {
    private static let health = """

        health web {
            probe     tcp
            interval  1s jitter 10%
            timeout   1s
            rise      3
            fall      2
            eject     after 3 for 500ms
        }

        """
    /// No later than the last good probe of `rise` can be, jitter and timeout included; what a busy machine takes to
    /// run the threads comes on top.
    private static let latest: TimeInterval = 3 * 1.0 * 1.1 + 1.0 + 20

    private static func nginx(_ name: String, _ place: Place, in namespace: Namespace) throws -> Nginx {
        try Nginx(
            seen: "$request", http: "server { listen \(place) backlog=4096; location / { return 200 \(name); } }",
            in: namespace.name, ready: place)
    }

    @Test(
        "R12, R13: one killed, one blackholed, one reset: no client fails while one is good, but those that a dying backend had already accepted"
    )
    func killedBlackholedReset() throws {
        let namespace = try Namespace()
        let places = try (0..<3).map { _ in Place(namespace.host, try FreePort.take()) }
        let names = ["one", "two", "three"]
        var servers = try zip(names, places).map { try Self.nginx($0, $1, in: namespace) }
        try namespace.nft("add table inet t; add chain inet t c { type filter hook input priority 0; }")
        let entry = Place("::1", try FreePort.take())
        let node = try Node(
            ConfigText(
                settings: ["connect_timeout 300ms"], workers: 2, rawListeners: [entry],
                backend: "round_robin, health web",
                routes: [RouteText(id: "rt_web", port: entry.port, backends: places)], more: Self.health
            ).description)
        let load = Load(threads: 6, at: entry, names: Set(names))

        servers[0].child.signal(SIGKILL)
        let killed = try node.event("backend_down", of: places[0])
        #expect(killed.text.contains("\"reason\":\"refused\",\"probes\":2"), "\(killed.text)")

        // While the first is still gone.
        try namespace.nft("add rule inet t c tcp dport \(places[1].port) drop")
        let dark = try node.event("backend_down", of: places[1])
        #expect(dark.text.contains("\"reason\":\"timeout\",\"probes\":2"), "\(dark.text)")

        servers[0] = try Self.nginx("one", places[0], in: namespace)
        var recovered = Date()
        try expectInTime(node.event("backend_up", of: places[0]), recovered)

        // The second is still dark.
        try namespace.nft("add rule inet t c tcp dport \(places[2].port) reject with tcp reset")
        let resets = try node.event("backend_down", of: places[2])
        #expect(resets.text.contains("\"reason\":\"refused\",\"probes\":2"), "\(resets.text)")

        recovered = Date()
        try namespace.nft("flush chain inet t c")
        for place in places[1...] { try expectInTime(node.event("backend_up", of: place), recovered) }

        let outcome = try load.end()
        // One that was ejected last may be so for a while.
        var (seen, asked) = (Set<String>(), 0)
        try awaitUntil("each has answered: \(seen)") {
            asked += 1
            seen.insert(try Load.ask(entry))
            return seen == Set(names)
        }
        try expectFailures(outcome, asked, node, lossy: [places[0], places[2]], threads: load.threads)
    }

    private func expectInTime(_ up: BackendEvent, _ recovered: Date) {
        #expect(up.probes == 3, "\(up.text)")
        #expect(up.time.timeIntervalSince(recovered) <= Self.latest, "\(up.text)")
    }

    /// R13: a connection that a backend had accepted when it died can't be given to another. Nothing else fails, and the
    /// log names each client that saw something.
    private func expectFailures(_ outcome: Load.Outcome, _ asked: Int, _ node: Node, lossy: [Place], threads: Int)
        throws
    {
        node.child.signal(SIGTERM)
        try node.child.waitForExit()
        let out = node.child.lines.filter { $0.stream == .out }
        let lines = out.filter { !$0.isMark }
        // Beside other work the log may come too late, and says so: what is missing is counted.
        let missing = out.filter(\.isMark).compactMap { $0.number("count") }.reduce(0, +)
        let silent = lines.count { $0.text.contains("\"bytes_to_client\":0,") }
        // Its answer may have come whole, and a reset in place of the end.
        let failed = lines.filter {
            $0.text.contains("\"bytes_to_client\":0,") || $0.text.contains("\"relay.reset upstream\"")
        }.compactMap { LogLine($0.text) }
        let retried = lines.filter { !$0.text.contains("\"attempts\":1,") }.compactMap { LogLine($0.text) }
        print("faults under load: \(outcome.answers), failures \(outcome.failures), \(failed.map(\.reason))")
        #expect(outcome.answers.values.reduce(0, +) > 100)
        #expect(node.child.lines.contains { $0.isEvent("stopped") && $0.number("log_records_dropped") == missing })
        #expect(lines.count + missing == outcome.count + asked)
        // Nobody sees a reset behind an end that was passed on already.
        #expect((silent...failed.count + missing).contains(outcome.failures.count), "\(outcome.failures) \(failed)")
        for line in failed {
            #expect(["relay.reset upstream", "relay.closed upstream"].contains(line.reason), "\(line)")
            #expect(lossy.contains { $0.description == line.backend }, "\(line)")
        }
        for place in lossy {
            let count = failed.count { $0.backend == place.description }
            #expect(count <= threads, "more than were open when it died")
        }
        // The others were tried, and another took over.
        #expect(!retried.isEmpty)
        for line in retried { #expect(line.attempts <= 3, "R13: \(line)") }
    }
}
