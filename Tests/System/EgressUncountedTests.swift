import Foundation
import TestSupport
import Testing

/// What nobody would be billed for, or somebody else, goes nowhere.
@Suite("R21: past the counting", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressUncountedTests {
    private static let alpha = ["fd10:1::2", "10.81.1.2"]
    private static let server = ["2001:db8:9::2", "198.51.100.2"]
    private static let number = 20

    /// Counts at `hook` of `host` what `rules` match; all of it together.
    private func watch(_ lab: EgressLab, _ host: String, _ hook: String, _ rules: [String]) throws {
        let lines = rules.map { "\($0) counter name seen\n" }.joined()
        let table = "table inet canary {\ncounter seen { }\nchain c { type filter hook \(hook);\n\(lines)}\n}"
        try lab.run(in: host, ["nft", table])
    }

    private func seen(_ lab: EgressLab, _ host: String) throws -> Int {
        let text = try lab.run(in: host, ["nft", "reset", "counter", "inet", "canary", "seen"])
        let words = text.split(whereSeparator: \.isWhitespace)
        return try words.firstIndex(of: "packets").flatMap { Int(words[$0 + 1]) }.unwrap("packets in \(text)")
    }

    private func gateway(_ lab: EgressLab, _ host: String, _ link: String) throws -> String {
        let text = try lab.run(in: host, ["cat", "/sys/class/net/\(link)/address"])
        return text.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// From a host by hand, each so often; then one that shows that the link has carried them.
    private func send(_ lab: EgressLab, _ host: String, to mac: String, _ packets: [[UInt8]], times: Int) throws {
        try lab.inside(host) {
            let link = try RawLink("eth0", gateway: mac)
            for _ in 0..<times { for packet in packets { try link.send(packet, "a packet") } }
        }
    }

    /// Three that conntrack has no entry for; and two that it has one for, and that TCP could hide in.
    private func invalid(_ from: String, _ to: String) -> [[UInt8]] {
        let isIPv4 = !to.contains(":")
        let tcp = RawPacket(source: from, destination: to).bytes.dropFirst(isIPv4 ? 20 : 40)
        let authentication: [UInt8] = [6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1] + [UInt8](repeating: 0, count: 12)
        return [
            RawDatagram.udp(from, to, (3000, 7777), [UInt8](repeating: 9, count: 500), isRight: false),
            RawDatagram.icmp(from, to, type: isIPv4 ? 0 : 129, [0, 1, 0, 1] + [UInt8](repeating: 9, count: 500)),
            RawDatagram.icmp(from, to, type: isIPv4 ? 43 : 200, [0, 1, 0, 1] + [UInt8](repeating: 9, count: 500)),
            RawDatagram.ip(from, to, 51, authentication + tcp),
            RawDatagram.ip(from, to, 253, [UInt8](repeating: 9, count: 500)),
        ]
    }

    @Test("invalid packets, both families and both ways: none is forwarded; without the rules all are")
    func invalid() throws {
        let site = try ConntrackNodeTests.Site()
        let lab = site.lab
        let echo = try lab.inside(lab.server) { try DatagramEcho(Place("2001:db8:9::2", 5353)) }
        defer { echo.stop() }
        let others = "udp dport 7777"
        let icmp = "meta l4proto { icmp, 51, 253 }"
        let icmp6 = "icmpv6 type { 129, 200 }"
        let rules = ["ip saddr", "ip6 saddr"].flatMap { kind in
            [others, icmp, icmp6].map {
                "\(kind) { \(kind == "ip saddr" ? "10.81.1.2, 198.51.100.2" : "fd10:1::2, 2001:db8:9::2") } \($0)"
            }
        }
        for host in [lab.server, lab.alpha] { try watch(lab, host, "prerouting priority -500", rules) }
        for areInForce in [false, true] {
            try lab.rules(site.node.config, areInForce ? "--apply" : "--remove")
            for (host, mac, far, pairs) in [
                (lab.alpha, try gateway(lab, lab.node, "vm1"), lab.server, Array(zip(Self.alpha, Self.server))),
                (lab.server, try gateway(lab, lab.node, "up0"), lab.alpha, Array(zip(Self.server, Self.alpha))),
            ] {
                _ = try seen(lab, far)
                // Only what instances send is not to hide anything: what comes is counted.
                let packets = pairs.flatMap { invalid($0.0, $0.1).prefix(host == lab.alpha ? 5 : 3) }
                try send(lab, host, to: mac, packets, times: Self.number)
                try site.exchange(1)
                let arrived = try seen(lab, far)
                #expect(arrived == (areInForce ? 0 : packets.count * Self.number), "\(host), \(areInForce)")
            }
        }
    }

    @Test("ICMP errors about one's own flow pass, and no more than a few hundred of them")
    func errors() throws {
        let site = try ConntrackNodeTests.Site()
        let lab = site.lab
        let echo = try lab.inside(lab.server) { try DatagramEcho(Place("2001:db8:9::2", 5353)) }
        defer { echo.stop() }
        try lab.inside(lab.alpha) {
            try Datagrams.send(to: Place("2001:db8:9::2", 5353), count: 1, bytes: 10, from: 3001)
        }
        try watch(
            lab, lab.server, "prerouting priority -500", ["ip6 saddr fd10:1::2 icmpv6 type destination-unreachable"])
        let quoted = RawDatagram.udp(Self.server[0], Self.alpha[0], (5353, 3001), [UInt8](repeating: 1, count: 900))
        let error = RawDatagram.unreachable(Self.alpha[0], Self.server[0], quoting: quoted)
        let begin = Date()
        try send(lab, lab.alpha, to: try gateway(lab, lab.node, "vm1"), [error], times: 3000)
        try site.exchange(1)
        let passed = try seen(lab, lab.server)
        // 100 at once, and 100 a second.
        let allowed = 100 + 100 * (Date().timeIntervalSince(begin) + 1)
        #expect(passed > 0 && Double(passed) <= allowed, "\(passed) of at most \(allowed)")
    }

    @Test("an outsider in an instance's name: dropped before anybody is billed, both families")
    func outsider() throws {
        let site = try ConntrackNodeTests.Site()
        let lab = site.lab
        let echo = try lab.inside(lab.server) { try DatagramEcho(Place("2001:db8:9::2", 5353)) }
        defer { echo.stop() }
        let names = [("fd10:2::2", "fd10:1::2"), ("10.81.2.2", "10.81.1.2"), ("fd10:2::2", "2001:db8:9::77")]
        let packets = names.map { RawDatagram.udp($0.0, $0.1, (3000, 9301), [UInt8](repeating: 9, count: 500)) }
        try watch(lab, lab.alpha, "prerouting priority -500", ["udp dport 9301"])
        try send(lab, lab.server, to: try gateway(lab, lab.node, "up0"), packets, times: Self.number)
        try site.exchange(1)
        try site.waitForDumps(2)
        #expect(try seen(lab, lab.alpha) == 0)
        #expect(try site.sum("port", "9301/udp") == ConntrackNodeTests.Site.Sum())
        #expect(try site.sum("instance", "i_beta") == ConntrackNodeTests.Site.Sum())
        // Without the rules they come in his name.
        try lab.rules(site.node.config, "--remove")
        try send(lab, lab.server, to: try gateway(lab, lab.node, "up0"), packets, times: Self.number)
        try site.exchange(1)
        #expect(try seen(lab, lab.alpha) == 2 * Self.number)
    }

    @Test("a workload's errors to this host are believed about its own TCP alone")
    func made() throws {
        let site = try ConntrackNodeTests.Site()
        let lab = site.lab
        let own = ["2001:db8:9::1", "198.51.100.1"]
        try watch(
            lab, lab.node, "input priority 0",
            ["iifname vm1 icmp type destination-unreachable", "iifname vm1 icmpv6 type destination-unreachable"])
        let udp = zip(own, Self.server).map { RawDatagram.udp($0.0, $0.1, (4000, 4739), [0, 10, 0, 16]) }
        let tcp = zip(own, Self.server).map { own, server in
            RawPacket(source: own, destination: server, sourcePort: 4000, port: 443).bytes
        }
        for (quoted, passes) in [(udp, 0), (tcp, 2 * Self.number)] {
            let errors = zip(zip(Self.alpha, own), quoted).map {
                RawDatagram.unreachable($0.0.0, $0.0.1, quoting: $0.1)
            }
            try send(lab, lab.alpha, to: try gateway(lab, lab.node, "vm1"), errors, times: Self.number)
            try lab.run(in: lab.alpha, ["ping", "-q", "-c", "1", own[0]])
            #expect(try seen(lab, lab.node) == passes)
        }
    }
}
