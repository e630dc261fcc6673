import Foundation
import Testing

/// What the path or a destination's host says by ICMP and ICMPv6.
@Suite("Reasons of an egress node's refusals", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressReasonTests {
    @Test("R28: a connection that is refused by ICMPv6 has the reason that ICMP gives it")
    func families() throws {
        let lab = try EgressLab()
        let node = try lab.startNode(account: "account every 1s", setting: "log connections", more: "")
        // By port: what the destination's firewall answers, in both families.
        let answers = [
            (3001, "admin-prohibited", "admin-prohibited", "backend.unreachable upstream"),
            (3002, "no-route", "net-unreachable", "backend.unreachable upstream"),
            (3003, "addr-unreachable", "host-unreachable", "backend.unreachable upstream"),
            (3004, "port-unreachable", "port-unreachable", "backend.refused upstream"),
            (3005, "policy-fail", "host-prohibited", "backend.unreachable upstream"),
            (3006, "reject-route", "net-prohibited", "backend.unreachable upstream"),
        ]
        var rules = "table inet answers { chain input { type filter hook input priority 0;\n"
        for (port, v6, v4, _) in answers {
            rules += "meta nfproto ipv6 tcp dport \(port) reject with icmpv6 type \(v6)\n"
            rules += "meta nfproto ipv4 tcp dport \(port) reject with icmp type \(v4)\n"
        }
        let file = try lab.folder.write("answers.nft", rules + "}\n}\n")
        try lab.run(in: lab.server, ["nft", "-f", file])
        for (port, v6, v4, reason) in answers {
            for (address, said) in [("2001:db8:9::2", v6), ("198.51.100.2", v4)] {
                let place = try lab.inside(lab.alpha) {
                    let socket = try Socket.connect(to: Place(address, UInt16(port)))
                    let place = try socket.local
                    #expect(try socket.receiveToEnd().ending == .reset)
                    return place
                }
                let line = try node.log(of: place)
                #expect(line.reason == reason, "\(said)")
                #expect(line.instance == "i_alpha")
            }
        }
    }
}
