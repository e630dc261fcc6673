import Foundation
import TestSupport
import Testing

/// Datagrams that an outsider begins are the instance's that they reach: who sends first says nothing about who is billed.
@Suite("Conntrack: who begins", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct ConntrackOutsiderTests {
    private typealias Site = ConntrackNodeTests.Site

    /// With the headers of IP and UDP.
    private static func packet(_ bytes: Int, to place: Place) -> Int { bytes + (place.host.contains(":") ? 48 : 28) }

    @Test("R21: an outsider sends first, to the byte: UDP and ICMP, both families, and by a translated address")
    func outsider() throws {
        let site = try Site()
        let lab = site.lab
        try lab.run(
            in: lab.node,
            [
                "nft",
                """
                table ip published {
                  chain c {
                    type nat hook prerouting priority dstnat;
                    iifname "up0" udp dport 53 dnat to 10.81.1.2:5354
                  }
                }
                """,
            ])
        let inside = [Place("fd10:1::2", 5353), Place("10.81.1.2", 5353), Place("10.81.1.2", 5354)]
        let asked = [inside[0], inside[1], Place("198.51.100.1", 53)]
        let echoes = try inside.map { place in try lab.inside(lab.alpha) { try DatagramEcho(place) } }
        defer { for echo in echoes { echo.stop() } }
        for place in asked {
            try lab.inside(lab.server) { try Datagrams.exchange(with: place, count: 500, bytes: 1000) }
        }
        for place in inside.prefix(2) {
            try lab.run(in: lab.server, ["ping", "-q", "-c", "20", "-i", "0.01", "-s", "1000", place.host])
        }
        let direct = 500 * (Self.packet(1000, to: inside[0]) + Self.packet(1000, to: inside[1]))
        let translated = 500 * Self.packet(1000, to: inside[2])
        // An echo's header is as long as UDP's.
        let echoed = 20 * (Self.packet(1000, to: inside[0]) + Self.packet(1000, to: inside[1]))
        let all = direct + translated + echoed
        let sum = try site.settled("instance", "i_alpha") { $0.out >= all && $0.into >= all }
        #expect(sum == Site.Sum(out: all, into: all, connections: 0))
        #expect(try site.sum("port", "5353/udp") == Site.Sum(out: direct, into: direct, connections: 0))
        #expect(try site.sum("port", "5354/udp") == Site.Sum(out: translated, into: translated, connections: 0))
        try site.waitForDumps(2)
        #expect(try site.sum("instance", "i_alpha") == sum)
        #expect(try site.sum("instance", "i_beta") == Site.Sum())
    }

    @Test("R21: a flow goes on after its entry ran out, begun by the other side now: both parts, to the byte")
    func ranOut() throws {
        let site = try Site()
        let lab = site.lab
        try lab.run(in: lab.node, ["sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=1"])
        let place = Place("2001:db8:9::2", 5353)
        // Nobody reads it there, and so the port is free for what comes back.
        try lab.run(
            in: lab.server,
            [
                "nft",
                """
                table ip6 silent {
                  chain c { type filter hook output priority filter; icmpv6 type destination-unreachable drop; }
                }
                """,
            ])
        try lab.inside(lab.alpha) { try Datagrams.send(to: place, count: 100, bytes: 1000, from: 20_000) }
        let first = try site.settled("port", "5353/udp") { $0.out >= 100 * 1048 }
        #expect(first == Site.Sum(out: 100 * 1048, into: 0, connections: 1))
        try awaitUntil("the entry ran out") { try site.conntrack()?["tracked"] as? Int == 0 }
        let echo = try lab.inside(lab.alpha) { try DatagramEcho(Place("fd10:1::2", 20_000), answers: false) }
        defer { echo.stop() }
        try lab.inside(lab.server) {
            try Datagrams.send(to: Place("fd10:1::2", 20_000), count: 500, bytes: 1000, from: 5353)
        }
        let second = try site.settled("port", "20000/udp") { $0.into >= 500 * 1048 }
        #expect(second == Site.Sum(out: 0, into: 500 * 1048, connections: 0))
        let all = Site.Sum(out: 100 * 1048, into: 500 * 1048, connections: 1)
        #expect(try site.sum("instance", "i_alpha") == all)
        // Its end adds nothing.
        try awaitUntil("the entry ran out") { try site.conntrack()?["tracked"] as? Int == 0 }
        try site.waitForDumps(2)
        #expect(try site.sum("instance", "i_alpha") == all)
    }

    @Test("R21: of neighbours each is billed for its own, once; the connection is its beginner's")
    func neighbours() throws {
        let site = try Site()
        let lab = site.lab
        let places = [Place("fd10:2::2", 5353), Place("10.81.2.2", 5353)]
        let echoes = try places.map { place in try lab.inside(lab.beta) { try DatagramEcho(place) } }
        let sinks = try places.map { place in
            try lab.inside(lab.beta) { try DatagramEcho(Place(place.host, 5354), answers: false) }
        }
        defer { for echo in echoes + sinks { echo.stop() } }
        // One way more than the other.
        for place in places {
            try lab.inside(lab.alpha) {
                try Datagrams.exchange(with: place, count: 200, bytes: 1000)
                try Datagrams.send(to: Place(place.host, 5354), count: 10, bytes: 1000)
            }
        }
        let answered = 200 * places.reduce(0) { $0 + Self.packet(1000, to: $1) }
        let sent = 210 * places.reduce(0) { $0 + Self.packet(1000, to: $1) }
        let beta = try site.settled("instance", "i_beta") { $0.into >= sent }
        #expect(beta == Site.Sum(out: answered, into: sent, connections: 0))
        try site.waitForDumps(2)
        #expect(try site.sum("instance", "i_beta") == beta)
        #expect(try site.sum("instance", "i_alpha") == Site.Sum(out: sent, into: answered, connections: 4))
    }
}
