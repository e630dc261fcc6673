import Foundation
import Glibc
import TestSupport
import Testing

extension ConntrackNodeTests.Site {
    var admin: String { lab.folder.path + "/admin.sock" }

    /// The node's `flows.conntrack`; nil: nothing is counted from it.
    func conntrack() throws -> [String: Any]? {
        let status = try Admin.json(["status"], admin)
        return try (status["flows"] as? [String: Any]).unwrap("flows in \(status)")["conntrack"] as? [String: Any]
    }

    /// TCP segments that a host has sent again, of all its connections: on the wire, but no payload twice.
    func resent(_ host: String) throws -> Int {
        let rows = try lab.run(in: host, ["cat", "/proc/net/snmp"]).split(separator: "\n")
            .filter { $0.hasPrefix("Tcp:") }.map { $0.split(separator: " ") }
        guard rows.count == 2, let column = rows[0].firstIndex(of: "RetransSegs"), column < rows[1].count else {
            throw Failure("no RetransSegs: \(rows)")
        }
        return try Int(rows[1][column]).unwrap("a number in \(rows[1])")
    }

    /// The table has been read whole so often since now.
    func waitForDumps(_ count: Int) throws {
        let begin = try conntrack()?["dumps"] as? Int ?? 0
        try awaitUntil("conntrack was read \(count) times more") {
            try (conntrack()?["dumps"] as? Int ?? 0) >= begin + count
        }
    }

    /// Reloads with the line, or without.
    /// - Parameter rules: puts the config's rules in force as well.
    func reload(conntrack line: String, rules: Bool = true) throws {
        let text = try String(contentsOfFile: node.config, encoding: .utf8)
        let bare = text.replacing(#/[ ]*conntrack every [^\n]*\n/#, with: "")
        let config = bare.replacing("node test {\n", with: "node test {\n    \(line)\n")
        let end = try node.reload(config)
        guard end.isEvent("reloaded") else { throw Failure(end.text) }
        if rules { try lab.rules(node.config, "--apply") }
    }

    /// Datagrams of 1,000 bytes and their answers, of one flow.
    func exchange(_ count: Int) throws {
        try lab.inside(lab.alpha) {
            try Datagrams.exchange(with: Place("2001:db8:9::2", 5353), count: count, bytes: 1000)
        }
    }
}

/// Counting from conntrack begins and ends while the node serves, and is missing where it can't be had.
@Suite("Conntrack comes and goes")
struct ConntrackLifeTests {
    private typealias Site = ConntrackNodeTests.Site

    @Test(
        "R21, R26: a reload starts and stops it: what passed meanwhile is not counted, nor anything twice",
        .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
    func reload() throws {
        let site = try Site(conntrack: "")
        let lab = site.lab
        let echo = try lab.inside(lab.server) { try DatagramEcho(Place("2001:db8:9::2", 5353)) }
        defer { echo.stop() }
        #expect(try site.conntrack() == nil)
        try site.reload(conntrack: "conntrack every 1s")
        try site.waitForDumps(1)
        try site.exchange(100)
        let one = Site.Sum(out: 100 * 1048, into: 100 * 1048, connections: 1)
        #expect(try site.settled("port", "5353/udp") { $0.into >= one.into } == one)
        // The rules stay, so that the kernel goes on counting.
        try site.reload(conntrack: "", rules: false)
        #expect(try site.conntrack() == nil)
        try site.exchange(100)
        try site.reload(conntrack: "conntrack every 2s table 10k")
        // Both flows are in the kernel's table still.
        try site.waitForDumps(1)
        #expect(try (site.conntrack()?["baselined"] as? Int ?? 0) >= 2)
        try site.exchange(100)
        let two = Site.Sum(out: 200 * 1048, into: 200 * 1048, connections: 2)
        #expect(try site.settled("port", "5353/udp") { $0.into >= two.into } == two)
        try site.waitForDumps(1)
        #expect(try site.sum("port", "5353/udp") == two)
        let text = try Binary.run(["status", "--admin", site.admin]).out
        #expect(
            text.contains(/ledger .+ written 2\d\d\d-.+Z/) && text.contains(/conntrack .+ read 2\d\d\d-.+Z/), "\(text)")
    }

    @Test(
        "R21: the line and its rules come while a relayed connection stands: it is counted once, by the relay",
        .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"),
        arguments: ["original_destination", "original_destination from instance"])
    func standing(backend: String) throws {
        let site = try Site(backend: backend, conntrack: "")
        let lab = site.lab
        let place = Place("2001:db8:9::2", 9001)
        let server = try lab.inside(lab.server) { try Server(place.host, port: 9001) { _ = try $0.receiveToEnd() } }
        let client = try lab.inside(lab.alpha) { try Socket.connect(to: place) }
        let block = [UInt8](repeating: 7, count: 1_000_000)
        try client.send(block)
        #expect(try site.settled("port", "9001/tcp") { $0.out >= block.count }.out == block.count)
        try site.reload(conntrack: "conntrack every 1s")
        try site.waitForDumps(1)
        try client.send(block)
        let all = Site.Sum(out: 2 * block.count, into: 0, connections: 1)
        #expect(try site.settled("port", "9001/tcp") { $0.out >= all.out } == all)
        // The kernel has it in its table by now.
        let entries = try lab.run(in: lab.node, ["sysctl", "-n", "net.netfilter.nf_conntrack_count"])
        #expect(Int(entries.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0 > 0)
        try site.waitForDumps(2)
        #expect(try site.sum("port", "9001/tcp") == all)
        withExtendedLifetime(server) {}
    }

    @Test(
        "the host forwards and masquerades as docs/EGRESS.md has it: datagrams of both families are the instance's; then it is stopped",
        .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
    func masqueraded() throws {
        let site = try Site()
        let lab = site.lab
        // Nobody out there knows a way back.
        for net in ["fd10:1::/64", "10.81.1.0/24"] {
            try lab.run(in: lab.server, ["ip", net.contains(":") ? "-6" : "-4", "route", "del", net])
        }
        for block in try Self.commands("ip_forward") { try lab.run(in: lab.node, ["sh", "-c", block]) }
        let places = ["2001:db8:9::2", "198.51.100.2"].map { Place($0, 5353) }
        let echoes = try places.map { place in try lab.inside(lab.server) { try DatagramEcho(place) } }
        defer { for echo in echoes { echo.stop() } }
        for place in places {
            try lab.inside(lab.alpha) { try Datagrams.exchange(with: place, count: 50, bytes: 1000) }
        }
        let sum = Site.Sum(out: 50 * (1048 + 1028), into: 50 * (1048 + 1028), connections: 2)
        #expect(try site.settled("instance", "i_alpha") { $0.into >= sum.into } == sum)
        let server = try lab.inside(lab.server) { try Server.echo("2001:db8:9::2", port: 9001) }
        let held = try lab.inside(lab.alpha) { try Socket.connect(to: server.place) }
        try lab.inside(lab.alpha) {
            try held.send("on")
            #expect(try held.receive(exactly: 2) == Array("on".utf8))
        }
        let stop = try Self.commands("table inet stopped")[0].replacing("fd10:2::2", with: "fd10:1::2")
            .replacing("10.2.0.2", with: "10.81.1.2").split(separator: "\n")
        let before = echoes.map(\.received)
        for line in stop.prefix(2) { try lab.run(in: lab.node, ["sh", "-c", String(line)]) }
        for place in places { try lab.inside(lab.alpha) { try Datagrams.send(to: place, count: 5, bytes: 10) } }
        try held.send("more")
        try held.awaitResend()
        #expect(held.isQuiet)
        // Another's datagram comes after all of those, and arrives.
        for place in places { try lab.inside(lab.beta) { try Datagrams.exchange(with: place, count: 1, bytes: 10) } }
        #expect(echoes.map(\.received) == before.map { $0 + 1 })
        try lab.run(in: lab.node, ["sh", "-c", String(stop[2])])
        #expect(try lab.inside(lab.alpha) { try held.receive(exactly: 4) } == Array("more".utf8))
    }

    /// Blocks of commands of docs/EGRESS.md that have `word`.
    private static func commands(_ word: String) throws -> [String] {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let page = try String(contentsOf: root.appendingPathComponent("docs/EGRESS.md"), encoding: .utf8)
        let blocks = page.matches(of: #/```[a-z-]*\n(?s:(.*?))```/#).map { String($0.output.1) }
        let found = blocks.filter { $0.contains(word) && $0.contains("nft ") }
        guard !found.isEmpty else { throw Failure("no block with \(word)") }
        return found
    }

    @Test("R28: without permission: it says what is missing, in `status` as well, and relays all the same")
    func permission() throws {
        let folder = try TemporaryFolder()
        let server = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let admin = folder.path + "/admin.sock"
        let config = try folder.write(
            "node.pipeline",
            ConfigText(
                settings: ["conntrack every 1s", "admin unix:\(admin)"], rawListeners: [entry],
                routes: [RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])]
            ).description)
        let child = try Child(
            "setpriv",
            ["--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw", Binary.path, "run", config])
        _ = try child.wait("that it is ready") { $0.first { $0.isEvent("ready") } }
        let line = try child.wait("what is missing") { $0.first { $0.isEvent("conntrack_failed") } }
        #expect(line.text.contains("CAP_NET_ADMIN"), "\(line.text)")
        let client = try Socket.connect(to: entry)
        try client.send("served")
        #expect(try client.receive(exactly: 6) == Array("served".utf8))
        let status = try Admin.json(["status"], admin)
        let problems = try (status["problems"] as? [String]).unwrap("problems in \(status)")
        #expect(problems.count == 1 && problems[0].contains("CAP_NET_ADMIN"), "\(problems)")
        #expect((status["flows"] as? [String: Any])?["conntrack"] is NSNull)
        client.finish()
        child.signal(SIGTERM)
        #expect(try child.waitForExit() == .code(0))
    }

    @Test(
        "R21: TLS of OpenSSL's, both families: the relay counts the payload that the interface saw, within 1%",
        .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
    func openssl() throws {
        let site = try Site()
        let lab = site.lab
        let size = 20_000_000
        let folder = lab.folder.path
        try lab.folder.write("body", String(repeating: "x", count: size))
        let request = try lab.folder.write("request", "GET /body HTTP/1.0\r\n\r\n")
        let certificate = try Certificate.make("egress.test", in: lab.folder)
        for (host, link, instance, address) in [
            (lab.alpha, "vm1", "i_alpha", "2001:db8:9::2"), (lab.beta, "vm2", "i_beta", "198.51.100.2"),
        ] {
            let place = Place(address, 9443)
            // It serves files of its folder.
            let server = try Child(
                "ip",
                [
                    "netns", "exec", lab.server, "sh", "-c",
                    "cd \(folder) && exec openssl s_server -accept \(place) -WWW -cert \(certificate.certificateFile) "
                        + "-key \(certificate.keyFile)",
                ])
            _ = try server.wait("that it listens") { $0.first { $0.text.hasPrefix("ACCEPT") } }
            let before = try site.counters(link)
            let resent = try site.resent(lab.node)
            let got = try lab.run(
                in: host,
                ["sh", "-c", "openssl s_client -connect \(place) -quiet < \(request) 2>/dev/null | wc -c"])
            #expect(Int(got.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0 >= size, "\(got)")
            let counted = try site.settled("instance", instance) { $0.into >= size }
            let after = try site.counters(link)
            let headers = address.contains(":") ? 40 + 32 : 20 + 32
            let seenIn = after.to - before.to - headers * (after.packetsTo - before.packetsTo)
            // To the server go some hundred bytes: what the node sent again, it sent here.
            let again = (1500 - headers) * (try site.resent(lab.node) - resent)
            let figures =
                "OpenSSL to \(place): counted \(counted.into) down; seen \(seenIn), of which sent again \(again)"
            #expect(abs(counted.into - (seenIn - again)) * 100 <= seenIn, "\(figures)")
            #expect(counted.connections == 1)
            print(figures)
            withExtendedLifetime(server) {}
        }
    }
}
