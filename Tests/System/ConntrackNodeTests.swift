import Foundation
import Glibc
import TestSupport
import Testing

/// What passes no worker, counted by a running node from conntrack, against what the interfaces saw (R21).
@Suite("What is counted on an egress node", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct ConntrackNodeTests {
    /// An egress node that forwards what it doesn't relay, and counts both.
    struct Site {
        let lab: EgressLab
        let node: Node
        let ledger: String

        /// - Parameter conntrack: the line; empty: none.
        init(backend: String = "original_destination", conntrack: String = "conntrack every 1s") throws {
            lab = try EgressLab()
            ledger = lab.folder.path + "/ledger.db"
            try lab.run(
                in: lab.node,
                ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
            for (prefix, gateway) in [
                ("fd10:1::/64", "2001:db8:9::1"), ("fd10:2::/64", "2001:db8:9::1"), ("10.81.1.0/24", "198.51.100.1"),
                ("10.81.2.0/24", "198.51.100.1"),
            ] {
                try lab.run(in: lab.server, ["ip", "route", "add", prefix, "via", gateway])
            }
            node = try lab.startNode(
                backend: backend, account: "account every 1s",
                setting: "\(conntrack)\n    ledger \(ledger)\n    admin unix:\(lab.folder.path)/admin.sock")
        }

        struct Sum: Equatable {
            var out = 0
            var into = 0
            var connections = 0
        }

        /// What the ledger has by now of an instance, or of a destination's port.
        func sum(_ group: String, _ name: String) throws -> Sum {
            let answer = try Binary.run([
                "egress", "report", "--ledger", ledger, "--from", "1h", "--by", group, "--json",
            ])
            // Before the first record, the ledger may not be made yet.
            if LedgerSite.isNotReady(answer) { return Sum() }
            guard answer.exit == .code(0),
                let json = try JSONSerialization.jsonObject(with: Data(answer.out.utf8)) as? [String: Any],
                let rows = json["rows"] as? [[String: Any]]
            else { throw Failure("egress report: \(answer.error)\(answer.out)") }
            var sum = Sum()
            // A port is a number beside its protocol.
            let called = { (row: [String: Any]) in
                let name = row[group].map { "\($0)" } ?? ""
                return group == "port" ? "\(name)/\(row["protocol"] ?? "")" : name
            }
            for row in rows where called(row) == name {
                let number = { (name: String) in row[name] as? Int ?? -1 }
                sum.out += number("bytes_out")
                sum.into += number("bytes_in")
                sum.connections += number("connections")
            }
            return sum
        }

        /// Asks until `isEnough`, or the deadline passes; then what there is.
        func settled(_ group: String, _ name: String, _ isEnough: (Sum) -> Bool) throws -> Sum {
            // What it came to is the caller's to judge.
            let deadline = Deadline()
            return try awaitValue("enough of \(name)", Deadline(seconds: 2 * Deadline.usual)) {
                let now = try sum(group, name)
                return isEnough(now) || deadline.hasPassed ? now : nil
            }
        }

        /// Bytes and packets that an interface of the node has received from its instance, and sent to it, without
        /// link-layer headers.
        func counters(_ link: String) throws -> (from: Int, to: Int, packetsFrom: Int, packetsTo: Int) {
            let read = { (name: String) in
                try lab.run(in: lab.node, ["cat", "/sys/class/net/\(link)/statistics/\(name)"])
                    .split(separator: "\n").first.flatMap { Int($0) }.unwrap("a number in \(name)")
            }
            let (from, to) = (try read("rx_packets"), try read("tx_packets"))
            return (try read("rx_bytes") - 14 * from, try read("tx_bytes") - 14 * to, from, to)
        }
    }

    /// - Parameter twice: bytes that may have been seen once more than they count.
    private func isNear(_ a: Int, _ seen: Int, twice: Int = 0) -> Bool {
        (seen - twice - seen / 100...seen + seen / 100).contains(a)
    }

    @Test("R21: UDP and ICMP, both families: under the right instance, and as much as its interface saw, within 1%")
    func datagrams() throws {
        let site = try Site()
        let lab = site.lab
        let before = try site.counters("vm1")
        for host in ["2001:db8:9::2", "198.51.100.2"] {
            let echo = try lab.inside(lab.server) { try DatagramEcho(Place(host, 5353)) }
            try lab.inside(lab.alpha) { try Datagrams.exchange(with: Place(host, 5353), count: 500, bytes: 1200) }
            try lab.run(in: lab.alpha, ["ping", "-q", "-c", "50", "-i", "0.01", "-s", "1000", host])
            echo.stop()
        }
        let after = try site.counters("vm1")
        let (seenOut, seenIn) = (after.from - before.from, after.to - before.to)
        let alpha = try site.settled("instance", "i_alpha") { $0.out >= seenOut * 99 / 100 }
        #expect(isNear(alpha.out, seenOut) && isNear(alpha.into, seenIn), "\(alpha), seen \(seenOut) and \(seenIn)")
        #expect(try site.sum("instance", "i_beta") == Site.Sum())
        let udp = try site.sum("port", "5353/udp")
        // 500 datagrams each way a family, with their headers.
        #expect(udp.out == 500 * (1200 + 48) + 500 * (1200 + 28) && udp.into == udp.out, "\(udp)")
        #expect(udp.connections == 2)
        print("UDP and ICMP: counted \(alpha.out) out, \(alpha.into) in; the interface saw \(seenOut), \(seenIn)")
    }

    @Test(
        "R21: relayed TCP by curl, both families: payload as the interface saw it, within 1%, and not once more from conntrack",
        arguments: ["original_destination", "original_destination from instance"])
    func relayed(backend: String) throws {
        let site = try Site(backend: backend)
        let lab = site.lab
        let file = try lab.folder.write("body", String(repeating: "x", count: Self.upload))
        for (host, link, instance, address) in [
            (lab.alpha, "vm1", "i_alpha", "2001:db8:9::2"), (lab.beta, "vm2", "i_beta", "198.51.100.2"),
        ] {
            let place = Place(address, 9000)
            let server = try lab.inside(lab.server) {
                try Server(address, port: 9000) { try answer($0, bytes: Self.download) }
            }
            for attempt in 1...10 {
                let before = (try site.counters(link), try site.sum("instance", instance), try resent(lab, host))
                try transfer(lab, host, place, file)
                let counted = try site.settled("instance", instance) {
                    $0.into >= before.1.into + Self.download && $0.out >= before.1.out + Self.upload
                }
                let after = try site.counters(link)
                // What was sent again is on the interface twice, and is payload once: a busy machine may never do without.
                let again = try zip(resent(lab, host), before.2).reduce(0) { $0 + $1.0 - $1.1 }
                if again != 0, attempt < 10 { continue }
                // IP and TCP with timestamps; what offloading joins into one packet has them once.
                let headers = address.contains(":") ? 40 + 32 : 20 + 32
                let seenOut = after.from - before.0.from - headers * (after.packetsFrom - before.0.packetsFrom)
                let seenIn = after.to - before.0.to - headers * (after.packetsTo - before.0.packetsTo)
                let (out, into) = (counted.out - before.1.out, counted.into - before.1.into)
                #expect(
                    isNear(out, seenOut, twice: again * Self.segment)
                        && isNear(into, seenIn, twice: again * Self.segment),
                    "\(out) and \(into), seen \(seenOut) and \(seenIn), \(again) segments twice")
                #expect(counted.connections == attempt)
                print("\(backend) to \(place): counted \(out) up, \(into) down; seen \(seenOut), \(seenIn)")
                break
            }
            withExtendedLifetime(server) {}
        }
        // Two more rounds of conntrack's: nothing comes on top.
        let relayed = try site.sum("port", "9000/tcp")
        try waitForDumps(site, 2)
        #expect(try site.sum("port", "9000/tcp") == relayed)
    }

    private static let (upload, download) = (20_000_000, 20_000_000)
    /// The most that a segment on these links carries, in bytes.
    private static let segment = 1460

    private func transfer(_ lab: EgressLab, _ host: String, _ place: Place, _ file: String) throws {
        let got = try lab.run(
            in: host,
            [
                "curl", "-sS", "--max-time", "60", "-H", "Expect:", "-T", file, "-o", "/dev/null", "-w",
                "%{size_download}",
                "http://\(place)/",
            ])
        #expect(got.contains("\(Self.download)"))
    }

    /// Segments that an instance and the node have sent again so far.
    private func resent(_ lab: EgressLab, _ host: String) throws -> [Int] {
        try [host, lab.node].map { name in
            let rows = try lab.run(in: name, ["cat", "/proc/net/snmp"]).split(separator: "\n")
                .filter { $0.hasPrefix("Tcp:") }.map { $0.split(separator: " ") }
            let column = try rows.first?.firstIndex(of: "RetransSegs").unwrap("RetransSegs") ?? 0
            return try rows.last.flatMap { Int($0[column]) }.unwrap("a number of RetransSegs")
        }
    }

    @Test("R26: a reload starts counting from conntrack, changes it, and ends it")
    func reload() throws {
        let site = try Site()
        let text = try String(contentsOfFile: site.node.config, encoding: .utf8)
        for (line, isCounted) in [("", false), ("conntrack every 2s", true), ("conntrack every 1s table 2k", true)] {
            try text.replacing("conntrack every 1s", with: line).write(
                toFile: site.node.config, atomically: true, encoding: .utf8)
            let answer = try Binary.run(["reload", "--admin", site.lab.folder.path + "/admin.sock"])
            #expect(answer.exit == .code(0), "\(answer)")
            #expect(((try? status(site)) != nil) == isCounted, "\(line)")
        }
        try waitForDumps(site, 2)
        let sink = try site.lab.inside(site.lab.server) { try DatagramEcho(Place("2001:db8:9::2", 5353)) }
        try site.lab.inside(site.lab.alpha) {
            try Datagrams.exchange(with: Place("2001:db8:9::2", 5353), count: 10, bytes: 100)
        }
        let sum = try site.settled("port", "5353/udp") { $0.out >= 1480 }
        #expect(sum == Site.Sum(out: 1480, into: 1480, connections: 1))
        sink.stop()
    }

    private func answer(_ socket: Socket, bytes: Int) throws {
        var seen: [UInt8] = []
        var missing = Int.max
        while missing > 0, case .bytes(let chunk) = try socket.receive() {
            if missing != .max {
                missing -= chunk.count
                continue
            }
            seen += chunk
            let text = String(decoding: seen, as: UTF8.self)
            guard let end = text.range(of: "\r\n\r\n"),
                let length = text.lowercased().firstMatch(of: /content-length: (\d+)/).flatMap({ Int($0.output.1) })
            else { continue }
            missing = length - text[end.upperBound...].utf8.count
        }
        try socket.send("HTTP/1.1 200 OK\r\nContent-Length: \(bytes)\r\nConnection: close\r\n\r\n")
        let block = [UInt8](repeating: 7, count: 1_000_000)
        for _ in 0..<(bytes / block.count) { try socket.send(block) }
        socket.finish()
        _ = try socket.receiveToEnd()
    }

    private func status(_ site: Site) throws -> [String: Any] {
        let answer = try Binary.run(["status", "--admin", site.lab.folder.path + "/admin.sock", "--json"])
        let json = try JSONSerialization.jsonObject(with: Data(answer.out.utf8)) as? [String: Any]
        let flows = json?["flows"] as? [String: Any]
        return try (flows?["conntrack"] as? [String: Any]).unwrap("conntrack in \(answer.out)\(answer.error)")
    }

    private func waitForDumps(_ site: Site, _ count: Int) throws {
        let begin = try status(site)["dumps"] as? Int ?? 0
        try awaitUntil("conntrack was read \(count) times more") {
            try (status(site)["dumps"] as? Int ?? 0) >= begin + count
        }
    }

    @Test("R21: 5,000 short flows a second for 4 s: each is counted, with every byte, whatever events are lost")
    func shortFlows() throws {
        let site = try Site()
        let lab = site.lab
        // Ends as fast as they come.
        try lab.run(in: lab.node, ["sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=1"])
        let sink = try lab.inside(lab.server) { try DatagramEcho(Place("2001:db8:9::2", 5353), answers: false) }
        let flows = 20_000
        let seconds = try lab.inside(lab.alpha) {
            try Datagrams.flows(to: Place("2001:db8:9::2", 5353), count: flows, bytes: 100, perSecond: 5000)
        }
        let counted = try site.settled("instance", "i_alpha") { $0.connections >= flows }
        #expect(counted == Site.Sum(out: flows * 148, into: 0, connections: flows))
        print("\(flows) short flows in \(seconds) s: counted \(counted); \(try status(site))")
        sink.stop()
    }
}
