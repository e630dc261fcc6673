import Foundation
import TestSupport
import Testing

/// Names as backends: what clients see while the DNS changes its mind.
@Suite("Names as backends") struct NameTests {
    /// Servers at several loopback addresses, each of which says its address, at one port.
    private struct Site {
        let port: UInt16
        let servers: [Server]

        init(_ hosts: [String]) throws {
            let port = try FreePort.take()
            self.port = port
            servers = try hosts.map { host in
                try Server(host, port: port) { socket in
                    _ = try socket.receive()
                    try socket.send("HTTP/1.0 200 OK\r\n\r\n\(host)")
                    socket.finish()
                    _ = try socket.receiveToEnd()
                }
            }
        }
    }

    private struct Setup {
        let node: Node
        let entry: Place
        let admin: String
        let folder: TemporaryFolder

        /// - Parameter lines: of the route.
        init(_ dns: Place, _ lines: [String], _ more: [String] = []) throws {
            folder = try TemporaryFolder()
            admin = "\(folder.path)/admin.sock"
            entry = Place("127.0.0.1", try FreePort.take())
            node = try Node(Self.text(dns, entry, admin, lines, more))
        }

        static func text(
            _ dns: Place, _ entry: Place, _ admin: String, _ lines: [String], _ more: [String] = []
        ) -> String {
            let route = RouteText(id: "rt", port: entry.port, backends: [], more: lines)
            let settings =
                ["nameservers \(dns)", "min_ttl 100ms", "timeout 100ms", "retries 1", "hold 1s", "allow loopback"]
            let kept = settings.filter { line in
                !more.contains { $0.split(separator: " ")[0] == line.split(separator: " ")[0] }
            }
            let block = "resolve {\n\((kept + more).map { "    \($0)\n" }.joined())}\n"
            return ConfigText(
                settings: ["admin unix:\(admin)"], workers: 2, rawListeners: [entry], routes: [route], more: block
            ).description
        }

        func status() throws -> [String: Any] {
            let names = try Admin.json(["status"], admin)["names"] as? [[String: Any]] ?? []
            return try names.first.unwrap("name")
        }
        func addresses() throws -> [String] { try status()["addresses"] as? [String] ?? [] }
        func generation() throws -> Int {
            try (Admin.json(["status"], admin)["generation"] as? Int).unwrap("generation")
        }

        func waitForAddresses(_ wanted: [String]) throws {
            let rows = { try (Admin.json(["backends"], admin)["backends"] as? [[String: Any]] ?? []) }
            try awaitUntil("the addresses \(wanted)") {
                let found = try rows().filter { $0["status"] as? String == "ready" }.compactMap {
                    $0["address"] as? String
                }
                return Set(found.map { String($0[..<($0.lastIndex(of: ":") ?? $0.endIndex)]) }) == Set(wanted)
            }
        }

        func said() throws -> String { try Load.ask(entry) }

        /// Why a connection is refused now.
        func refusal() throws -> String {
            let client = try Socket.connect(to: entry)
            // It may be over before the byte is sent.
            try? client.send("x")
            _ = try client.receiveToEnd()
            return try node.log(of: try client.local).reason
        }
    }

    private static let one = "127.0.0.1"
    private static let two = "127.0.0.2"

    @Test("no connection fails while the answer changes, empties, fails, is silent and comes back")
    func underLoad() throws {
        let site = try Site([Self.one, Self.two])
        let dns = try DNSServer(["web.test": [.a(Self.one)]])
        let setup = try Setup(dns.place, ["backend web.test:\(site.port)"])
        let lasting = try Socket.connect(to: setup.entry)
        let load = Load(threads: 4, at: setup.entry, names: [Self.one, Self.two])
        for zone in [[Self.two], [Self.one, Self.two], [Self.two, Self.one], [Self.one]] {
            dns.change { $0.zone["web.test"] = zone.map { .a($0) } }
            try setup.waitForAddresses(zone)
        }
        for mood in [DNSServer.Mood.silent, .fails] {
            dns.change { $0.mood = mood }
            try setup.node.waitForEvent("name_failing")
            try dns.waitForQuestions(10)
            try setup.waitForAddresses([Self.one])
            dns.change { $0.mood = .answers }
            try awaitUntil("an answer") { try setup.status()["error"] is NSNull }
        }
        // It is gone, and back before `hold` is over.
        dns.change { $0.zone = [:] }
        try setup.node.waitForEvent("name_held")
        dns.change { $0.zone = ["web.test": [.a(Self.two)]] }
        try setup.waitForAddresses([Self.two])
        let outcome = try load.end()
        #expect(outcome.failures == [] && outcome.count >= 500)
        #expect(outcome.answers[Self.one] ?? 0 > 0 && outcome.answers[Self.two] ?? 0 > 0)
        // R26: an established connection is not for the DNS to end.
        try lasting.send("GET / HTTP/1.0\r\n\r\n")
        #expect(String(decoding: try lasting.receiveToEnd().bytes, as: UTF8.self).hasSuffix(Self.one))
    }

    @Test("a name that is gone keeps its addresses for `hold`, then has none; connections are refused until it is back")
    func gone() throws {
        let site = try Site([Self.one])
        let dns = try DNSServer(["web.test": [.a(Self.one)]])
        let setup = try Setup(dns.place, ["backend web.test:\(site.port)"])
        for empty in [[String: [DNSServer.Record]](), ["web.test": []], ["web.test": [.cname("web.test")]]] {
            dns.change { $0.zone = empty }
            try awaitUntil("it has no addresses") { try setup.addresses().isEmpty }
            let problems = try Admin.json(["status"], setup.admin)["problems"] as? [String] ?? []
            #expect(problems.contains { $0.hasPrefix("web.test: the name ") }, "\(problems)")
            #expect(try setup.status()["error"] as? String != nil)
            try awaitUntil("it is refused") { try setup.refusal() == "backend.no_backend upstream" }
            dns.change { $0.zone = ["web.test": [.a(Self.one)]] }
            try setup.waitForAddresses([Self.one])
            #expect(try setup.said() == Self.one)
        }
        let problems = try Admin.json(["status"], setup.admin)["problems"] as? [String] ?? []
        #expect(!problems.contains { $0.contains("web.test") }, "\(problems)")
    }

    @Test("a name that has never existed is a problem in `status`, not a silent lack of backends")
    func never() throws {
        let dns = try DNSServer([:])
        let setup = try Setup(dns.place, ["backend web.test:1"])
        try setup.node.waitForEvent("name_missing")
        let problems = try Admin.json(["status"], setup.admin)["problems"] as? [String] ?? []
        #expect(
            problems.contains("web.test: the name does not exist (NXDOMAIN); routes have no backends from it"),
            "\(problems)")
        #expect(try Binary.run(["status", "--admin", setup.admin]).out.contains("(NXDOMAIN)"))
        #expect(try setup.refusal() == "backend.no_backend upstream")
    }

    @Test("without a DNS the node starts, says so, and refuses; with one it serves")
    func late() throws {
        let site = try Site([Self.one])
        let place = Place("127.0.0.1", try FreePort.take())
        let setup = try Setup(place, ["backend web.test:\(site.port)", "backend 127.0.0.9:\(site.port) weight 0"])
        try setup.node.waitForEvent("name_failing")
        #expect(try setup.refusal().hasPrefix("backend.no_"))
        let dns = try DNSServer(["web.test": [.a(Self.one)]], at: place)
        try awaitUntil("an address") { try setup.addresses() == [Self.one] }
        try awaitUntil("it serves") { (try? setup.said()) == Self.one }
        withExtendedLifetime(dns) {}
    }

    @Test("a long answer comes over TCP, and no more than 64 of its addresses are used")
    func truncated() throws {
        let site = try Site([Self.one])
        let many = (1...40).map { "127.0.0.\($0)" }
        let dns = try DNSServer(["web.test": many.map { .a($0) }])
        let setup = try Setup(dns.place, ["backend web.test:\(site.port)"])
        #expect(try setup.addresses().count == 40 && dns.questions.tcp > 0)
        dns.change { $0.zone["web.test"] = (1...250).map { .a("127.0.1.\($0)") } }
        try awaitUntil("64 addresses") { try setup.addresses().count == 64 }
        #expect(try setup.status()["omitted"] as? Int == 186)
    }

    @Test("another order of the same answer changes nothing; AAAA records count as well")
    func order() throws {
        let site = try Site([Self.one, Self.two, "::1"])
        let list: [DNSServer.Record] = [.a(Self.one), .a(Self.two), .aaaa("::1")]
        let dns = try DNSServer(["web.test": list])
        let setup = try Setup(dns.place, ["backend web.test:\(site.port)"])
        let before = try setup.generation()
        for round in 0..<5 {
            dns.change { $0.zone["web.test"] = Array(list[(round % 3)...] + list[..<(round % 3)]) }
            try dns.waitForQuestions(4)
        }
        #expect(try setup.generation() == before)
        #expect(Set(try (0..<6).map { _ in try setup.said() }) == [Self.one, Self.two, "::1"])
    }

    @Test("SRV records give ports, weights and priorities; a target that fails keeps what it had")
    func service() throws {
        let (first, second) = (try Site([Self.one, Self.two]), try Site([Self.one]))
        let record = { @Sendable (priority: UInt16, port: UInt16, target: String) in
            DNSServer.Record.srv(priority: priority, weight: 10, port: port, target: target)
        }
        let dns = try DNSServer([
            "_web._tcp.test": [
                record(10, first.port, "a.test"), record(10, first.port, "b.test"), record(20, second.port, "a.test"),
            ],
            "a.test": [.a(Self.one)], "b.test": [.a(Self.two)],
        ])
        let setup = try Setup(dns.place, ["backend srv _web._tcp.test max 100"])
        #expect(Set(try (0..<6).map { _ in try setup.said() }) == [Self.one, Self.two])
        let rows = try Admin.json(["backends"], setup.admin)["backends"] as? [[String: Any]] ?? []
        let spare = try rows.first { $0["address"] as? String == "127.0.0.1:\(second.port)" }.unwrap("row")
        #expect(
            spare["priority"] as? Int == 1 && spare["weight"] as? Int == 10 && spare["max_connections"] as? Int == 100)
        dns.change { $0.zone["_web._tcp.test"] = [record(0, first.port, "b.test")] }
        try setup.waitForAddresses([Self.two])
        #expect(try setup.said() == Self.two)
    }

    @Test("addresses that `allow` does not name are refused, and take nothing from what is there")
    func allowed() throws {
        let site = try Site([Self.one])
        let dns = try DNSServer(["web.test": [.a(Self.one)]])
        let setup = try Setup(dns.place, ["backend web.test:\(site.port)"], ["allow 127.0.0.1/32"])
        dns.change { $0.zone["web.test"] = [.a("10.0.0.1"), .a("169.254.169.254")] }
        try awaitUntil("it is refused") { try setup.status()["refused"] as? Int == 2 }
        #expect(try setup.addresses() == [Self.one] && (try setup.said()) == Self.one)
        #expect((try setup.status()["error"] as? String)?.contains("allow") == true)
    }

    @Test("a reload to a name serves from its first moment, and to other settings keeps the addresses")
    func reload() throws {
        let site = try Site([Self.one, Self.two])
        let dns = try DNSServer(["web.test": [.a(Self.two)]])
        let setup = try Setup(dns.place, ["backend \(Self.one):\(site.port)"])
        let load = Load(threads: 2, at: setup.entry, names: [Self.one, Self.two])
        let named = ["backend web.test:\(site.port)"]
        for more in [[], ["max_ttl 1m"], ["min_ttl 300ms"]] {
            let text = Setup.text(dns.place, setup.entry, setup.admin, named, more)
            #expect(try setup.node.reload(text).isEvent("reloaded"))
        }
        try setup.waitForAddresses([Self.two])
        #expect(try load.end().failures == [])
        #expect(try setup.said() == Self.two)
    }
}
