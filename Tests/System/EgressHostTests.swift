import Foundation
import TestSupport
import Testing

/// What else of a host has to do with interception: bridges, firewalls that drop, destination NAT of others.
@Suite(
    "Interception beside a host's own network", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressHostTests {
    private func nft(_ lab: EgressLab, _ text: String) throws { try lab.run(in: lab.node, ["nft", text]) }

    // MARK: Bridges

    @Test("ports of a bridge go around rules that name them, which is said; rules that name the bridge hold them")
    func bridge() throws {
        let lab = try EgressLab()
        try lab.forward()
        let server = try lab.startServer()
        let node = try lab.startNode()
        #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 198.51.100.1")
        let fault = "vm1, vm2 are ports of the bridge br0"
        try lab.bridge(isFiltered: false)
        // Well before the look that comes every 30 s: the kernel says that links have become ports.
        _ = try node.child.waitForError("that it is lost", Deadline(seconds: 20)) {
            $0.first { $0.isEvent("interception_lost") && $0.text.contains(fault) }
        }
        let before = try lab.attemptRules(node.config, "--check")
        #expect(before.exit == .code(1) && before.output.contains("interception_lost: \(fault)"), "\(before)")
        #expect(before.output.contains("write `intercept interface br0`"), "\(before)")
        #expect(try lab.attemptRules(node.config, "--apply").output.contains("warning: \(fault)"))
        // That is no false alarm.
        #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 10.81.1.2")
        let text = try String(contentsOfFile: node.config, encoding: .utf8)
        #expect(
            try node.reload(text.replacingOccurrences(of: "interface vm*", with: "interface br0")).isEvent("reloaded"))
        #expect(try lab.attemptRules(node.config, "--apply").exit == .code(0))
        let after = try lab.attemptRules(node.config, "--check")
        #expect(after.exit == .code(0) && !after.output.contains("warning"), "\(after)")
        for host in [lab.alpha, lab.beta] {
            #expect(try lab.curl(host, EgressLab.v4).output == "seen 198.51.100.1")
            #expect(try lab.curl(host, EgressLab.v6).output == "seen 2001:db8:9::1")
        }
        let line = try node.log("a connection of alpha") { $0.peer?.hasPrefix("10.81.1.2") == true }
        #expect(line.instance == "i_alpha", "\(line)")
        _ = try node.child.waitForError("that it is back") { $0.last { $0.isEvent("interception_restored") } }
        withExtendedLifetime(server) {}
    }

    @Test(
        "where br_netfilter calls our rules in the bridge, `redirect` serves; `transparent` does not, lets nobody around, and is warned of",
        .enabled(if: FileManager.default.fileExists(atPath: "/proc/sys/net/bridge"), "no br_netfilter"),
        arguments: ["transparent", "redirect"])
    func filtered(_ mode: String) throws {
        let lab = try EgressLab()
        try lab.forward()
        try lab.bridge(isFiltered: true)
        let server = try lab.startServer()
        let node = try lab.startNode(mode: mode, interface: "br0")
        let answer = try lab.attemptRules(node.config, "--check")
        #expect(answer.exit == .code(0), "\(answer)")
        #expect(answer.output.contains("br_netfilter is on") == (mode == "transparent"), "\(answer)")
        if mode == "redirect" {
            #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 198.51.100.1")
        } else {
            #expect(try lab.inside(lab.alpha) { try Socket.answer(of: EgressLab.v4) == nil })
        }
        withExtendedLifetime(server) {}
    }

    // MARK: Firewalls

    @Test(
        "chains that drop keep connections from the relay, which is warned of; what the rules say lets them pass",
        arguments: [
            ("transparent", "meta mark 0x706a accept"),
            ("redirect", "ct status dnat tcp dport 15001 iifname \"vm*\" accept"),
        ])
    func drops(_ mode: String, _ advice: String) throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try lab.startNode(mode: mode)
        let common = """
            iifname lo accept; ct state established,related accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
            """
        try nft(
            lab,
            """
            table inet host {
                chain input { type filter hook input priority 0; policy drop; \(common); }
                chain output { type filter hook output priority 0; oifname lo accept; \(common); counter reject; }
            }
            """)
        let printed = try lab.rules(node.config)
        #expect(printed.contains("#     \(advice)\n") && printed.contains("#     meta mark 0x7069 accept\n"))
        for flag in ["--check", "--apply"] {
            let answer = try lab.attemptRules(node.config, flag)
            #expect(answer.exit == .code(0), "\(answer)")
            for (chain, line) in [("input", advice), ("output", "meta mark 0x7069 accept")] {
                let isSaid = answer.output.contains("warning: the chain \(chain) of the table inet host drops")
                #expect(isSaid && answer.output.contains("add `\(line)`"), "\(answer)")
            }
        }
        #expect(try lab.inside(lab.alpha) { try Socket.answer(of: EgressLab.v4) == nil })
        try nft(lab, "add rule inet host input \(advice)")
        try nft(lab, "insert rule inet host output meta mark 0x7069 accept")
        for place in [EgressLab.v4, EgressLab.v6] {
            #expect(try lab.curl(lab.alpha, place).output.hasPrefix("seen "), "\(place)")
        }
        #expect(try !lab.attemptRules(node.config, "--check").output.contains("warning"))
        withExtendedLifetime(server) {}
    }

    @Test(
        "destination NAT of others is warned of where it meets workloads' connections, and there alone",
        arguments: ["transparent", "redirect"])
    func translated(_ mode: String) throws {
        let lab = try EgressLab()
        try lab.forward()
        let server = try lab.startServer()
        let node = try lab.startNode(mode: mode)
        #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 198.51.100.1")
        // As a container runtime and a port forwarding do it: about this host's addresses, and other interfaces.
        try nft(
            lab,
            """
            table ip nat {
                chain DOCKER { tcp dport 8081 dnat to 10.9.9.9:80; }
                chain PREROUTING { type nat hook prerouting priority dstnat; fib daddr type local jump DOCKER; }
            }
            table inet forwarding {
                chain pre { type nat hook prerouting priority -110; iifname { up0, eth1 } tcp dport 8080 dnat ip to 10.9.9.9; }
            }
            """)
        let quiet = try lab.attemptRules(node.config, "--check")
        #expect(quiet.exit == .code(0) && !quiet.output.contains("warning"), "\(quiet)")
        try nft(
            lab,
            """
            table ip cache {
                chain web { tcp dport 8080 dnat to 198.51.100.2:8081; }
                chain pre { type nat hook prerouting priority dstnat - 1; jump web; }
            }
            """)
        let answer = try lab.attemptRules(node.config, "--check")
        let warning = "warning: the chain pre of the table ip cache changes destinations"
        #expect(answer.exit == .code(0) && answer.output.contains(warning), "\(answer)")
        #expect(answer.output.contains("`tcp dport 8080 dnat to 198.51.100.2:8081`"), "\(answer)")
        #expect(try lab.curl(lab.alpha, EgressLab.v4).exit != .code(0))
        #expect(try lab.curl(lab.alpha, EgressLab.v6).output == "seen 2001:db8:9::1")
        // The node looks at others' tables as well whenever it looks.
        try nft(lab, "flush chain inet pipelined refuse")
        _ = try node.child.waitForError("the warning") {
            $0.first { $0.isEvent("interception_warning") && $0.text.contains("table ip cache") }
        }
        withExtendedLifetime(server) {}
    }
}
