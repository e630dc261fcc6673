import Foundation
import Pipeline
import TestSupport
import Testing

/// An instance that makes its packets itself. The host forwards, knows ways to everywhere, and stands behind nothing
/// but its rules and the relay.
@Suite("A hostile instance", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressHostileTests {
    /// Nobody may reach these by any spelling: the host's loopback, the metadata service, the platform, a neighbour.
    private static let forbidden6 = [
        "::", "::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::0",
        "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::", "64:ff9b::a9fe:a9fe", "::ffff:169.254.169.254",
        "fd00:ec2::254", "fd10:f::6", "fd10:2::2", "::ffff:10.81.2.2", "64:ff9b::a51:202", "ff02::1", "fe80::1",
    ]
    private static let forbidden4 = [
        "127.0.0.1", "127.8.9.10", "0.0.0.0", "0.1.2.3", "169.254.169.254", "10.81.2.2", "224.0.0.1",
        "255.255.255.255",
    ]
    /// Its own, a neighbour's, the host's, and some that are nobody's.
    private static let sources6 = [
        "fd10:1::2", "fd10:1::2", "fd10:2::2", "fd10:1::1", "::1", "::", "::ffff:10.81.2.2", "2001:db8:9::2", "ff02::1",
    ]
    private static let sources4 = [
        "10.81.1.2", "10.81.1.2", "10.81.2.2", "10.81.1.1", "127.0.0.1", "0.0.0.0", "198.51.100.2", "224.0.0.1",
    ]

    /// What may not happen is counted where it would arrive.
    private func watch(_ lab: EgressLab) throws {
        let script = """
            ip -n \(lab.server) addr add 169.254.169.254/32 dev eth0
            ip -n \(lab.server) addr add fd00:ec2::254/128 dev eth0 nodad
            ip -n \(lab.node) route add default via 198.51.100.2
            ip -n \(lab.node) -6 route add default via 2001:db8:9::2
            """
        for line in script.split(separator: "\n") {
            try lab.run(in: lab.node, line.split(separator: " ").map(String.init))
        }
        // A neighbour has no connections here; the server has those of the relay to itself alone.
        try count(
            lab, lab.beta, "prerouting",
            ["meta l4proto tcp", "ip frag-off & 0x3fff != 0", "exthdr frag exists"])
        try count(
            lab, lab.server, "prerouting",
            ["meta l4proto tcp ip daddr != 198.51.100.2", "meta l4proto tcp ip6 daddr != 2001:db8:9::2"])
        // The relay, or the kernel for the instance, at a socket of the host's loopback.
        try count(
            lab, lab.node, "input",
            ["iifname lo meta l4proto tcp", "iifname vm1 ip daddr 127.0.0.0/8", "iifname vm1 ip6 daddr ::1"])
        // Its own kernel knows nothing of connections that are made by hand.
        try lab.run(
            in: lab.alpha,
            [
                "nft",
                "table inet quiet { chain c { type filter hook output priority 0; tcp flags & rst == rst drop; }; }",
            ])
    }

    private func count(_ lab: EgressLab, _ host: String, _ hook: String, _ rules: [String]) throws {
        let lines = rules.map { "\($0) counter name seen\n" }.joined()
        try lab.run(
            in: host,
            [
                "nft",
                "table inet canary {\ncounter seen { packets 0 bytes 0; }\nchain c { type filter hook \(hook) priority -500;\n\(lines)}\n}",
            ])
    }

    private func seen(_ lab: EgressLab, _ host: String) throws -> Int {
        let text = try lab.run(in: host, ["nft", "list", "counter", "inet", "canary", "seen"])
        let words = text.split(whereSeparator: \.isWhitespace)
        return try words.firstIndex(of: "packets").flatMap { Int(words[$0 + 1]) }.unwrap("packets in \(text)")
    }

    /// By number, so that a failure names its packet.
    private static func packet(_ number: Int) -> RawPacket {
        var random = SplitMix64(seed: UInt64(number) &* 7919 &+ 1)
        let isIPv4 = random.below(3) == 0
        let (sources, destinations) = isIPv4 ? (sources4, forbidden4) : (sources6, forbidden6)
        var packet = RawPacket(
            source: sources[random.below(sources.count)], destination: destinations[random.below(destinations.count)])
        packet.sourcePort = UInt16(30_000 + number)
        packet.port = [8080, 8443, 22, 15001, 80][random.below(5)]
        packet.flags = [2, 2, 2, 2, 16, 18, 1, 0, 0x29, 3, 6, 0x3f, 0xc2][random.below(13)]
        packet.sequence = UInt32(random.below(1 << 32))
        if random.below(2) == 0 { packet.payload = [UInt8](repeating: 0x47, count: 8 * random.below(20)) }
        if random.below(3) == 0 {
            packet.fragment = [(0, true), (0, false), (1, true), (3, false), (185, false)][random.below(5)]
        }
        if isIPv4 { packet.hasOption = random.below(4) == 0 }
        if !isIPv4, random.below(3) == 0 {
            packet.headers = [[0], [60], [43], [0, 60], [60, 60, 60], [0, 43, 60], [44]][random.below(7)]
        }
        return packet
    }

    @Test(
        "R19: of 2,000 packets by hand none reaches loopback, metadata, the platform or a neighbour, or is his",
        arguments: ["transparent", "redirect"])
    func packets(_ mode: String) throws {
        let (lab, server, node, gateway) = try site(mode)
        try lab.inside(lab.alpha) {
            let link = try RawLink("eth0", gateway: gateway)
            for number in 0..<2000 { try link.send(Self.packet(number)) }
        }
        // What the link carries after them is there after them.
        #expect(try lab.curl(lab.alpha, EgressLab.v6).exit == .code(0))
        #expect(try seen(lab, lab.beta) == 0)
        #expect(try seen(lab, lab.node) == 0)
        #expect(try seen(lab, lab.server) == 0)
        #expect(try lab.curl(lab.beta, EgressLab.v4).exit == .code(0))
        let foreign = node.child.lines.compactMap { LogLine($0.text) }
            .filter { $0.instance == "i_beta" && $0.peer?.hasPrefix("10.81.2.2") != true }
        #expect(foreign.isEmpty, "\(foreign)")
        // The two requests above, and nothing else.
        let relayed = node.child.lines.compactMap { LogLine($0.text) }.filter { $0.attempts > 0 }
        #expect(relayed.allSatisfy { $0.destination == "\(EgressLab.v6)" || $0.destination == "\(EgressLab.v4)" })
        withExtendedLifetime(server) {}
    }

    private func site(_ mode: String) throws -> (lab: EgressLab, server: Child, node: Node, gateway: String) {
        let lab = try EgressLab()
        try lab.forward()
        let server = try lab.startServer()
        try watch(lab)
        let node = try lab.startNode(mode: mode)
        let address = try lab.run(in: lab.node, ["cat", "/sys/class/net/vm1/address"])
        return (lab, server, node, address.trimmingCharacters(in: .whitespacesAndNewlines))
    }

    @Test(
        "a connection made by hand to a spelling of this host ends at the relay, which says so",
        arguments: ["transparent", "redirect"])
    func handshakes(_ mode: String) throws {
        let (lab, server, node, gateway) = try site(mode)
        let places = Self.forbidden6.map { ("fd10:1::2", $0) } + Self.forbidden4.map { ("10.81.1.2", $0) }
        let accepted = try lab.inside(lab.alpha) {
            let link = try RawLink("eth0", gateway: gateway)
            // The last ones are accepted of anybody.
            let all = places + [("fd10:1::2", EgressLab.v6.host), ("10.81.1.2", EgressLab.v4.host)]
            let packets = all.enumerated().map { number, pair in
                var packet = RawPacket(source: pair.0, destination: pair.1)
                packet.sourcePort = UInt16(20_000 + number)
                return packet
            }
            for packet in packets { try link.send(packet) }
            let sequences = try link.accepted(until: packets.suffix(2).map(\.sourcePort))
            return try packets.dropLast(2).compactMap { packet -> UInt16? in
                guard let sequence = sequences[packet.sourcePort] else { return nil }
                var packet = packet
                packet.sequence &+= 1
                packet.acknowledged = sequence &+ 1
                packet.flags = RawPacket.ack
                packet.payload = Array("GET / HTTP/1.0\r\n\r\n".utf8)
                try link.send(packet)
                return packet.sourcePort
            }
        }
        for port in accepted {
            let line = try node.log("a connection by hand from port \(port)") {
                $0.peer?.hasSuffix(":\(port)") == true
            }
            let refusals = ["intercept.special_destination client", "address.denied_destination client"]
            #expect(refusals.contains(line.reason) && line.attempts == 0, "\(line)")
        }
        // IPv4-mapped and translated ones at least come that far.
        #expect(accepted.count >= 5, "\(accepted)")
        #expect(try seen(lab, lab.node) == 0)
        #expect(try seen(lab, lab.beta) == 0)
        #expect(try seen(lab, lab.server) == 0)
        withExtendedLifetime(server) {}
    }
}
