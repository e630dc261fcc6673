import Foundation
import Glibc
import Testing

/// Nothing goes around the relay: the host forwards, and still no TCP of a workload gets out but through the node.
@Suite("Around an egress node", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressBypassTests {
    private static let refused = Child.Exit.code(7)

    /// Everything of both hosts, by both families, is refused at once.
    private func expectRefused(_ lab: EgressLab, _ why: String) throws {
        for host in [lab.alpha, lab.beta] {
            for place in [EgressLab.v6, EgressLab.v4] {
                let answer = try lab.curl(host, place)
                let isRefused = answer.exit == Self.refused && !answer.output.contains("seen")
                #expect(isRefused, "\(why): \(host) to \(place): \(answer)")
            }
        }
    }

    @Test(
        "R19: while the node is away, TCP of both families is refused: killed, not started yet, its port changed",
        arguments: ["transparent", "redirect"])
    func away(_ mode: String) throws {
        let lab = try EgressLab()
        try lab.forward()
        let server = try lab.startServer()
        // The host does forward: this is what the rules stand against.
        #expect(try lab.curl(lab.alpha, EgressLab.v6).output == "seen fd10:1::2")
        #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 10.81.1.2")
        let node = try lab.startNode(mode: mode)
        #expect(try lab.curl(lab.alpha, EgressLab.v6).output == "seen 2001:db8:9::1")
        #expect(try lab.curl(lab.beta, EgressLab.v4).output == "seen 198.51.100.1")
        node.child.signal(SIGKILL)
        _ = try node.child.waitForExit()
        try expectRefused(lab, "killed")
        try lab.rules(node.config, "--apply")
        try expectRefused(lab, "rules before the node")
        let moved = try lab.folder.write(
            "moved.pipeline",
            try String(contentsOfFile: node.config, encoding: .utf8).replacingOccurrences(of: ":15001", with: ":15003"))
        let again = try Node(
            try String(contentsOfFile: moved, encoding: .utf8), folder: lab.folder, in: lab.node)
        try expectRefused(lab, "its port is another")
        try lab.rules(moved, "--apply")
        #expect(try lab.curl(lab.alpha, EgressLab.v6).output == "seen 2001:db8:9::1")
        // Who wants traffic while the node is away takes them off, whatever has become of the state file.
        try lab.folder.write("state.json", "{")
        try lab.rules(moved, "--remove")
        #expect(try lab.curl(lab.alpha, EgressLab.v6).output == "seen fd10:1::2")
        withExtendedLifetime((server, again)) {}
    }

    @Test("a family without a listener is refused, and a changed mark leaves nothing behind")
    func otherFamily() throws {
        let lab = try EgressLab()
        try lab.forward()
        let server = try lab.startServer()
        let node = try lab.startNode()
        let text = try String(contentsOfFile: node.config, encoding: .utf8)
        let sixOnly = try lab.folder.write(
            "six.pipeline",
            text.replacingOccurrences(of: "listen 0.0.0.0:15001  transparent  via outbound", with: "")
                .replacingOccurrences(of: "workers    2", with: "workers    2\n    mark       0x100"))
        node.child.signal(SIGKILL)
        _ = try node.child.waitForExit()
        try lab.rules(sixOnly, "--apply")
        let second = try Node(try String(contentsOfFile: sixOnly, encoding: .utf8), folder: lab.folder, in: lab.node)
        #expect(try lab.curl(lab.alpha, EgressLab.v6).output == "seen 2001:db8:9::1")
        #expect(try lab.curl(lab.alpha, EgressLab.v4).exit == Self.refused)
        for option in ["-6", "-4"] {
            #expect(try !lab.run(in: lab.node, ["ip", option, "rule", "show"]).contains("0x706a"))
        }
        // `redirect` needs neither rule nor route.
        let redirect = try lab.folder.write(
            "redirect.pipeline", text.replacingOccurrences(of: "transparent", with: "redirect"))
        try lab.rules(redirect, "--apply")
        for option in ["-6", "-4"] {
            #expect(try !lab.run(in: lab.node, ["ip", option, "rule", "show"]).contains("fwmark"))
            #expect(try lab.run(in: lab.node, ["ip", option, "route", "show", "table", "all", "proto", "112"]).isEmpty)
        }
        try lab.rules(sixOnly, "--apply")
        try lab.rules(sixOnly, "--remove")
        #expect(try !lab.run(in: lab.node, ["ip", "-6", "rule", "show"]).contains("0x101"))
        #expect(try lab.run(in: lab.node, ["ip", "-6", "route", "show", "table", "all", "proto", "112"]).isEmpty)
        withExtendedLifetime((server, second)) {}
    }

    @Test("the host itself is reached by none of its names, and a policy sees through how a destination is spelled")
    func spelled() throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try lab.startNode(setting: "nat64 2001:db8:64::/96")
        for (name, reason) in [
            ("64:ff9b::7f00:1", "intercept.special_destination client"),
            ("64:ff9b:1::7f00:1", "intercept.special_destination client"),
            ("2002:7f00:1::", "intercept.special_destination client"),
            // The host's own address, by a prefix of this network.
            ("2001:db8:64::c633:6401", "intercept.special_destination client"),
            ("64:ff9b::a51:202", "address.denied_destination client"),
            ("2001:db8:64::a9fe:a9fe", "address.denied_destination client"),
        ] {
            let place = Place(name, EgressLab.port)
            #expect(try lab.curl(lab.alpha, place).exit != .code(0))
            let line = try node.log(name) { $0.destination == place.description }
            #expect(line.reason == reason && line.attempts == 0, "\(line)")
        }
        #expect(try lab.curl(lab.alpha, EgressLab.v6).exit == .code(0))
        withExtendedLifetime(server) {}
    }

    @Test("strangers from outside do not reach the listeners")
    func outside() throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try lab.startNode()
        for place in [Place("2001:db8:9::1", 15001), Place("198.51.100.1", 15001)] {
            #expect(try lab.curl(lab.server, place).exit == Self.refused)
        }
        #expect(try lab.curl(lab.alpha, EgressLab.v6).exit == .code(0))
        _ = try node.logs(1)
        #expect(node.child.lines.allSatisfy { !$0.text.contains("intercept.loop") })
        withExtendedLifetime(server) {}
    }

    @Test("R19: a datagram in a neighbour's name goes nowhere, and one in the sender's own goes on")
    func spoofedDatagrams() throws {
        let lab = try EgressLab()
        try lab.forward()
        let node = try lab.startNode()
        let place = Place("198.51.100.2", 9999)
        let echo = try lab.inside(lab.server) { try DatagramEcho(place) }
        try lab.inside(lab.alpha) { try Datagrams.exchange(with: place, count: 2, bytes: 10) }
        let before = echo.received
        try lab.run(in: lab.alpha, ["ip", "addr", "add", "10.81.2.2/32", "dev", "lo"])
        try lab.run(in: lab.alpha, ["ip", "route", "replace", "default", "via", "10.81.1.1", "src", "10.81.2.2"])
        try lab.inside(lab.alpha) { try Datagrams.send(to: place, count: 20, bytes: 100) }
        try lab.run(in: lab.alpha, ["ip", "route", "replace", "default", "via", "10.81.1.1", "src", "10.81.1.2"])
        try lab.inside(lab.alpha) { try Datagrams.exchange(with: place, count: 2, bytes: 10) }
        #expect(echo.received == before + 2)
        withExtendedLifetime(node) {}
    }
}
