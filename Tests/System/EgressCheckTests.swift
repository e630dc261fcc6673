import Foundation
import Glibc
import Testing

/// `egress rules --check` against a real kernel: whoever takes interception away is noticed.
@Suite("Whether interception is in force", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressCheckTests {
    private func check(_ lab: EgressLab, _ config: String) throws -> (exit: Child.Exit, output: String) {
        try lab.attemptRules(config, "--check")
    }

    @Test(
        "rules that are flushed, switched off, thinned out or without their route are said to be lost",
        arguments: [
            ("nft flush ruleset", "nftables has no table inet pipelined"),
            ("nft flush chain inet pipelined to_sockets", "the chain to_sockets of the table"),
            ("nft add table inet pipelined {flags dormant;}", "the table inet pipelined is dormant"),
            ("nft insert rule inet pipelined to_listener accept", "the chain to_listener of the table"),
            ("ip -6 route flush table 28778", "the local route of table 28778 is gone (ip -6)"),
            ("ip -4 rule del fwmark 0x706a table 28778", "the rule for table 28778 is gone (ip -4 rule)"),
        ])
    func lost(_ command: String, _ fault: String) throws {
        let lab = try EgressLab()
        let node = try lab.startNode()
        let before = try check(lab, node.config)
        #expect(before.exit == .code(0) && before.output.contains("rules are in force"), "\(before)")
        try lab.run(in: lab.node, command.split(separator: " ").map(String.init))
        let after = try check(lab, node.config)
        #expect(after.exit == .code(1) && after.output.contains("interception_lost: \(fault)"), "\(after)")
        try lab.rules(node.config, "--apply")
        #expect(try check(lab, node.config).exit == .code(0))
    }

    @Test("a config with another port is not the one in force; and who may not ask does not say that all is well")
    func other() throws {
        let lab = try EgressLab()
        let node = try lab.startNode()
        let text = try String(contentsOfFile: node.config, encoding: .utf8)
        let moved = try lab.folder.write(
            "moved.pipeline", text.replacingOccurrences(of: ":15001", with: ":15003"))
        let answer = try check(lab, moved)
        #expect(answer.exit == .code(1) && answer.output.contains("was installed from another config"), "\(answer)")
        let blind = try lab.attempt(
            in: lab.node,
            ["env", "PATH=/nonexistent", Binary.path, "egress", "rules", node.config, "--check"])
        #expect(blind.exit == .code(3) && blind.output.contains("is not installed"), "\(blind)")
    }

    @Test("an instance whose link comes after the rules is held by them from its first packet")
    func boot() throws {
        let lab = try EgressLab()
        try lab.forward()
        let server = try lab.startServer()
        let node = try lab.startNode()
        try lab.rules(node.config, "--remove")
        node.child.signal(SIGKILL)
        _ = try node.child.waitForExit()
        try lab.run(in: lab.node, ["ip", "link", "del", "vm1"])
        try lab.rules(node.config, "--apply")
        for line in [
            "link add vm1 type veth peer name eth0 netns \(lab.alpha)", "addr add 10.81.1.1/24 dev vm1",
            "link set vm1 up",
        ] { try lab.run(in: lab.node, ["ip"] + line.split(separator: " ").map(String.init)) }
        for line in ["addr add 10.81.1.2/24 dev eth0", "link set eth0 up", "route add default via 10.81.1.1"] {
            try lab.run(in: lab.alpha, ["ip"] + line.split(separator: " ").map(String.init))
        }
        #expect(try lab.curl(lab.alpha, EgressLab.v4).exit == .code(7))
        let again = try Node(
            try String(contentsOfFile: node.config, encoding: .utf8), folder: lab.folder, in: lab.node)
        #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 198.51.100.1")
        withExtendedLifetime((server, again)) {}
    }
}
