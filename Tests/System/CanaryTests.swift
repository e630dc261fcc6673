import Foundation
import Glibc
import TestSupport
import Testing

/// A new program takes a share of new connections first, is rolled back by itself, or goes everywhere.
@Suite("R29: a canary of a reload's program", .serialized)
struct CanaryTests {
    /// A node, and clients of many networks.
    struct Site {
        let folder: TemporaryFolder
        let entry: Place
        let more: Place
        let server: Server
        let node: Node
        let admin: String
        private let filters: [String]

        /// - Parameter filters: it has a filter of its own.
        init(_ stage: String = "", canary: String?, filters: Bool = false) throws {
            folder = try TemporaryFolder()
            entry = Place("127.0.0.1", try FreePort.take())
            more = Place("127.0.0.1", try FreePort.take())
            server = try Server.saying("x")
            admin = "\(folder.path)/admin.sock"
            let daemon = (Binary.path as NSString).deletingLastPathComponent + "/filter-node"
            self.filters = filters ? ["sh", "-c", "shift; exec \(daemon) \"$@\"", "sh"] : []
            let text = Site.text(folder, entry, more, server, stage, canary)
            node = try Node(text, folder: folder, launcher: self.filters)
        }

        private static func text(
            _ folder: TemporaryFolder, _ entry: Place, _ more: Place, _ server: Server, _ stage: String,
            _ canary: String?, alsoAt added: Bool = false
        ) -> String {
            """
            node test {
                workers  2
                admin    unix:\(folder.path)/admin.sock
                state    \(folder.path)/data
                log      connections refusals 1M/s
                \(canary.map { "canary   \($0)" } ?? "")
            }
            pipeline raw {
                \(stage)
                backend  round_robin
                account
            }
            listen \(entry) tcp_raw via raw
            \(added ? "listen \(more) tcp_raw via raw" : "")
            route {
                id      rt
                owner   a/b/c
                listen  \(entry.port)
                backend \(server.place)
            }
            \(added ? "route {\n id rt_more\n owner a/b/c\n listen \(more.port)\n backend \(server.place)\n}" : "")

            """
        }

        func write(_ stage: String, canary: String?, alsoAt added: Bool = false) throws {
            try folder.write("node.pipeline", Site.text(folder, entry, more, server, stage, canary, alsoAt: added))
        }

        func reload(_ words: [String] = []) throws -> (exit: Child.Exit, text: String) {
            let answer = try Binary.run(["reload", "--admin", admin] + words)
            return (answer.exit, answer.out + answer.error)
        }

        func status() throws -> [String: Any] {
            let out = try Binary.run(["status", "--json", "--admin", admin]).out
            return try (JSONSerialization.jsonObject(with: Data(out.utf8)) as? [String: Any]).unwrap("status")
        }

        func event(_ name: String) throws -> [String: Any] {
            let line = try node.child.wait("the event \(name)") { lines in lines.last { $0.isEvent(name) } }
            return try (JSONSerialization.jsonObject(with: Data(line.text.utf8)) as? [String: Any]).unwrap(name)
        }

        /// Whether a client of that network is served.
        func isServed(_ network: Int, at place: Place? = nil) -> Bool {
            let source = Place("127.1.\(network / 200).\(network % 200 + 1)", 0)
            guard let client = try? Socket.connect(to: place ?? entry, from: source) else { return false }
            return (try? client.receiveToEnd())?.bytes == Array("x".utf8)
        }

        /// Clients of so many networks whose connections all come to the new program; empty: it has none of them.
        func refused(of networks: Range<Int>) -> [Int] { networks.filter { !isServed($0) } }
    }

    /// New connections from many networks, at that rate in all, until it ends.
    private final class Clients: Sendable {
        static let networks = 400
        private let stop = Flag()
        private let parts: [Promise<(served: Int, failed: Int)>]

        init(_ site: Site, perSecond: Int) {
            let threads = 8
            parts = (0..<threads).map { [stop] thread in
                concurrently {
                    var (served, failed, network) = (0, 0, thread)
                    var pace = Pace(perSecond: perSecond / threads)
                    while !stop.isSet {
                        pace.wait()
                        if site.isServed(network) { served += 1 } else { failed += 1 }
                        network = (network + threads) % Clients.networks
                    }
                    return (served, failed)
                }
            }
        }

        func end() throws -> (served: Int, failed: Int) {
            stop.set()
            return try parts.reduce((0, 0)) { sum, part in
                let (served, failed) = try part.value(Deadline(), "end of a client")
                return (sum.0 + served, sum.1 + failed)
            }
        }

        deinit { stop.set() }
    }

    @Test(
        "a stage that refuses everyone: its share fails, it is rolled back by itself and named, and all are served again"
    )
    func refusesAll() throws {
        let site = try Site(canary: nil)
        let clients = Clients(site, perSecond: 500)
        try site.write("address  deny 127.0.0.0/8", canary: "10% for 10m")
        let answer = try site.reload()
        #expect(answer.exit == .code(0) && answer.text.contains("canary of 10% for 10m begun"), "\(answer)")
        let event = try site.event("canary_rolled_back")
        let (_, failed) = try clients.end()
        let on = { (side: String) in (event[side] as? [String: Any])?["connections"] as? Int ?? -1 }
        let (canary, others) = (on("canary"), on("others"))
        print("rolled back after \(event["after_ms"] ?? "?") ms: \(canary) of \(canary + others); \(failed) failed")
        // A tenth of four hundred networks, by chance some more.
        #expect(canary * 5 < canary + others, "\(canary) of \(canary + others) connections ran on the canary")
        // A dozen is evidence, and two seconds of a tenth of 500/s are no more than this; twice, for chance.
        #expect(failed >= 8 && failed <= 2 * (12 + 100), "\(failed) failed")
        let why = try (event["why"] as? String).unwrap("why")
        #expect(why.hasPrefix("refused: ") && why.contains("address.denied"), "\(why)")
        #expect(site.refused(of: 0..<Clients.networks) == [])

        let problems = try (site.status()["problems"] as? [String]).unwrap("problems")
        let problem = try problems.first { $0.contains("the config file is not what runs") }.unwrap("\(problems)")
        #expect(problem.contains(why), "\(problem)")
        let audit = try Binary.run(["audit", "\(site.folder.path)/data"]).out
        #expect(audit.contains("rolled_back") && audit.contains("a canary of 10% for 10m"), "\(audit)")
        // The same program is not tried again by itself.
        let again = try site.reload()
        #expect(again.exit == .code(1) && again.text.contains("was rolled back by node"), "\(again)")
        #expect(site.refused(of: 0..<20) == [])
        let everywhere = try site.reload(["--now"])
        #expect(everywhere.exit == .code(0) && !everywhere.text.contains("canary"), "\(everywhere)")
        #expect(site.refused(of: 0..<20).count == 20)
        try site.write("", canary: "10% for 10m")
        #expect(try site.reload(["--now"]).exit == .code(0))
        #expect(try site.status()["rolled_back"] is NSNull)
    }

    @Test("a filter that takes ten times as long is rolled back, and fails nobody")
    func slow() throws {
        let site = try Site("slow for 0ms", canary: nil, filters: true)
        let clients = Clients(site, perSecond: 160)
        try site.write("slow for 30ms", canary: "10% for 10m")
        #expect(try site.reload().text.contains("canary of 10% for 10m begun"))
        let event = try site.event("canary_rolled_back")
        let (served, failed) = try clients.end()
        let why = try (event["why"] as? String).unwrap("why")
        print("rolled back after \(event["after_ms"] ?? "?") ms: \(why)")
        #expect(why.hasPrefix("slow: "), "\(why)")
        #expect(failed == 0 && served > 0)
    }

    @Test("a good program goes everywhere after its time, under load, and loses no connection: new, old, or in between")
    func good() throws {
        let site = try Site(canary: "20% for 3s")
        let open = try (0..<40).map { try Held(site, network: $0) }
        let clients = Clients(site, perSecond: 500)
        try site.write("address  deny 10.0.0.0/8", canary: "20% for 3s")
        #expect(try site.reload().text.contains("canary of 20% for 3s begun"))
        let during = try (0..<40).map { try Held(site, network: $0) }
        let event = try site.event("canary_done")
        let (served, failed) = try clients.end()
        #expect(failed == 0 && served > 100, "\(failed) of \(served + failed) failed")
        let relayed = ["canary", "others"].map { (event[$0] as? [String: Any])?["relayed"] as? Int ?? 0 }
        #expect(relayed.allSatisfy { $0 > 0 }, "\(event)")
        for held in open + during { try held.finish() }
        #expect(try site.status()["canary"] is NSNull)
        // It is the one that runs: the same again is no canary.
        let again = try site.reload()
        #expect(again.exit == .code(0) && !again.text.contains("canary"), "\(again)")
    }

    /// A connection that has begun, and is asked for its end later.
    private struct Held {
        let client: Socket
        init(_ site: Site, network: Int) throws {
            client = try Socket.connect(to: site.entry, from: Place("127.1.9.\(network + 1)", 0))
            _ = try client.receive(exactly: 1)
        }
        func finish() throws {
            client.finish()
            #expect(try client.receiveToEnd().ending == .fin)
        }
    }

    @Test("one client sees one program, what only the new one listens at is its own, and --rollback ends it at once")
    func byHand() throws {
        let site = try Site(canary: "30% for 10m")
        try site.write("address  deny 127.1.0.0/17", canary: "30% for 10m", alsoAt: true)
        #expect(try site.reload().text.contains("canary of 30% for 10m begun"))
        // Fewer than would be evidence.
        let refused = site.refused(of: 0..<7)
        #expect(site.refused(of: 0..<7).filter { !refused.contains($0) } == [])
        #expect(!site.isServed(3, at: site.more), "all of it runs on the new program")
        let canary = try (site.status()["canary"] as? [String: Any]).unwrap("canary")
        #expect(canary["percent"] as? Int == 30)
        let rolledBack = try site.reload(["--rollback"])
        #expect(rolledBack.exit == .code(0) && rolledBack.text.hasPrefix("rolled back"), "\(rolledBack)")
        #expect(site.refused(of: 0..<40) == [])
        try awaitUntil("its listener is closed") { (try? Socket.connect(to: site.more)) == nil }
        #expect(try site.reload(["--rollback"]).exit == .code(1))
        // Confirmed, it is tried again; another program takes its place; the one of before ends it.
        #expect(try site.reload(["--confirm"]).text.contains("canary of 30%"))
        try site.write("address  deny 10.0.0.0/8", canary: "50% for 10m")
        #expect(try site.reload().text.contains("canary of 50%"))
        #expect(site.refused(of: 0..<10) == [])
        #expect(try site.reload().text.contains("canary of 50% for 10m goes on"), "the same program again")
        let held = try (0..<10).map { try Held(site, network: $0) }
        try site.write("", canary: "50% for 10m")
        let before = try site.reload()
        #expect(before.exit == .code(0) && !before.text.contains("canary"), "\(before)")
        #expect(try site.status()["canary"] is NSNull)
        // R26: what began on either goes on.
        for one in held { try one.finish() }
    }
}
