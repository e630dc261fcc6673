import Foundation
import Glibc
import TestSupport
import Testing

/// A node that looks after its own rules, against a real kernel.
@Suite("Interception, watched by the node", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressWatchTests {
    /// Well before the look that comes every 30 s.
    private var soon: Deadline { Deadline(seconds: 25) }

    private func admin(_ lab: EgressLab) -> String { "\(lab.folder.path)/admin.sock" }

    private func start(_ lab: EgressLab, _ rules: String, isApplied: Bool = true) throws -> Node {
        let setting = "\(rules)\n    admin unix:\(admin(lab))"
        return try lab.startNode(setting: setting, isApplied: isApplied)
    }

    private func interception(_ lab: EgressLab) throws -> (status: String, problems: [String]) {
        let status = try Admin.json(["status"], admin(lab))
        let interception = try (status["interception"] as? [String: Any]).unwrap("interception in \(status)")
        return (
            try (interception["status"] as? String).unwrap("status"),
            try (status["problems"] as? [String]).unwrap("problems")
        )
    }

    private func awaitInForce(_ lab: EgressLab) throws {
        try awaitUntil("interception is in force") { try interception(lab).status == "in_force" }
    }

    /// The newest line with this event, once there are `count`.
    private func event(_ name: String, _ count: Int, _ node: Node, _ deadline: Deadline = Deadline()) throws -> String {
        try node.child.waitForError("\(count) times \(name)", deadline) { lines in
            let found = lines.filter { $0.isEvent(name) }
            return found.count >= count ? found[count - 1].text : nil
        }
    }

    private func count(_ name: String, _ node: Node) -> Int { node.child.lines.filter { $0.isEvent(name) }.count }

    @Test(
        "what is taken away is a problem and an event within seconds, and said to be back when it is",
        arguments: [
            ("nft flush ruleset", "nftables has no table inet pipelined"),
            ("nft flush chain inet pipelined to_sockets", "the chain to_sockets of the table"),
            ("ip -6 route flush table 28778", "the local route of table 28778 is gone (ip -6)"),
            ("ip -4 rule del fwmark 0x706a table 28778", "the rule for table 28778 is gone (ip -4 rule)"),
        ])
    func lost(_ command: String, _ fault: String) throws {
        let lab = try EgressLab()
        // `watch` is what a config that intercepts has without a word.
        let node = try start(lab, "")
        try awaitInForce(lab)
        #expect(try interception(lab).problems.isEmpty)
        let (lost, restored) = (count("interception_lost", node), count("interception_restored", node))
        try lab.run(in: lab.node, command.split(separator: " ").map(String.init))
        let line = try event("interception_lost", lost + 1, node, soon)
        #expect(line.contains(fault) && line.contains("\"rules\":\"watch\""), "\(line)")
        try awaitUntil("a problem in status") {
            try interception(lab).problems.contains { $0.hasPrefix("interception_lost: \(fault)") }
        }
        #expect(try lab.attemptRules(node.config, "--check").exit == .code(1))
        #expect(try explained(lab).contains("but         interception_lost: \(fault)"))
        #expect(try lab.attemptRules(node.config, "--apply").exit == .code(0))
        let back = try event("interception_restored", restored + 1, node, soon)
        #expect(back.contains("\"by\":\"others\""), "\(back)")
        try awaitInForce(lab)
        #expect(try interception(lab).problems.isEmpty && !explained(lab).contains("but "))
    }

    /// What the running node says of a connection of alpha's.
    private func explained(_ lab: EgressLab) throws -> String {
        let words = ["explain", "--admin", admin(lab), "--from", "[fd10:1::2]:40000", "--to", "[2001:db8:9::2]:443"]
        return try Binary.run(words).out
    }

    @Test("a reload to another port: `watch` says so until the rules follow")
    func reload() throws {
        let lab = try EgressLab()
        let node = try start(lab, "intercept rules watch")
        try awaitInForce(lab)
        let lost = count("interception_lost", node)
        let text = try String(contentsOfFile: node.config, encoding: .utf8)
        #expect(try node.reload(text.replacingOccurrences(of: ":15001", with: ":15003")).isEvent("reloaded"))
        let line = try event("interception_lost", lost + 1, node, soon)
        #expect(line.contains("was installed from another config"), "\(line)")
        #expect(try lab.attemptRules(node.config, "--apply").exit == .code(0))
        try awaitInForce(lab)
        #expect(
            try node.reload(text.replacingOccurrences(of: "intercept rules watch", with: "intercept rules off"))
                .isEvent("reloaded"))
        let status = try Admin.json(["status"], admin(lab))
        #expect(status["interception"] is NSNull && (status["problems"] as? [String])?.isEmpty == true, "\(status)")
    }

    @Test(
        "`manage` puts its rules in force, puts them back, follows another port and mark, and leaves nothing of before")
    func manage() throws {
        let lab = try EgressLab()
        try lab.forward()
        let server = try lab.startServer()
        let node = try start(lab, "intercept rules manage", isApplied: false)
        _ = try event("interception_applied", 1, node, soon)
        #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 198.51.100.1")
        for number in 1...2 {
            try lab.run(in: lab.node, ["nft", "flush", "ruleset"])
            let line = try event("interception_restored", number, node, soon)
            #expect(line.contains("\"by\":\"node\""), "\(line)")
            #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 198.51.100.1")
            #expect(try lab.curl(lab.alpha, EgressLab.v6).output == "seen 2001:db8:9::1")
        }
        #expect(count("interception_lost", node) == 2)
        let text = try String(contentsOfFile: node.config, encoding: .utf8)
        let moved = text.replacingOccurrences(of: ":15001", with: ":15003")
        #expect(try node.reload(moved).isEvent("reloaded"))
        _ = try event("interception_applied", 2, node, soon)
        #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 198.51.100.1")
        #expect(try lab.attemptRules(node.config, "--check").exit == .code(0))
        #expect(try !lab.run(in: lab.node, ["nft", "list", "ruleset"]).contains("15001"))
        // Its connections carry the old mark until it starts anew, and so do its rules.
        let marked = moved.replacingOccurrences(of: "workers    2", with: "workers    2\n    mark       0x100")
        #expect(try node.reload(marked).isEvent("reloaded"))
        #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 198.51.100.1")
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
        // They stay: nobody goes around a node that is away.
        #expect(try lab.curl(lab.alpha, EgressLab.v4).exit == .code(7))
        #expect(count("interception_applied", node) == 2 && count("interception_lost", node) == 2)
        let again = try Node(marked, folder: lab.folder, in: lab.node)
        _ = try event("interception_applied", 1, again, soon)
        #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 198.51.100.1")
        for option in ["-6", "-4"] {
            #expect(try !lab.run(in: lab.node, ["ip", option, "rule", "show"]).contains("0x706a"))
            #expect(try lab.run(in: lab.node, ["ip", option, "route", "show", "table", "28778"]).isEmpty)
        }
        withExtendedLifetime(server) {}
    }

    @Test("somebody who flushes again and again makes no loop: said once, and each pause is longer")
    func contested() throws {
        let lab = try EgressLab()
        let node = try start(lab, "intercept rules manage", isApplied: false)
        _ = try event("interception_applied", 1, node, soon)
        for number in 1...5 {
            try lab.run(in: lab.node, ["nft", "flush", "ruleset"])
            _ = try event("interception_restored", number, node)
        }
        #expect(count("interception_contested", node) == 1)
        let times = try (3...5).map { try BackendEvent(try event("interception_restored", $0, node)).time }
        #expect(times[1].timeIntervalSince(times[0]) > 1.5 && times[2].timeIntervalSince(times[1]) > 3, "\(times)")
        try awaitUntil("status names the next try", Deadline(seconds: 60)) {
            try lab.run(in: lab.node, ["nft", "flush", "ruleset"])
            return try interception(lab).problems.contains { $0.contains("the node restores them again in ") }
        }
        let text = try String(contentsOfFile: node.config, encoding: .utf8)
        let off = text.replacingOccurrences(of: "rules manage", with: "rules off")
        #expect(try node.reload(off).isEvent("reloaded"))
        #expect(try event("interception_left", 1, node, soon).contains("--remove"))
    }

    @Test("a node that drains leaves the rules to its successor")
    func successor() throws {
        let lab = try EgressLab()
        try lab.forward()
        let server = try lab.startServer()
        let node = try start(lab, "intercept rules manage", isApplied: false)
        _ = try event("interception_applied", 1, node, soon)
        let held = try lab.inside(lab.alpha) { try Socket.connect(to: EgressLab.v4) }
        try held.send("GET / HTTP/1.1\r\n")
        try awaitUntil("the relay has it") { try NodeStatus.total("connections_active", admin(lab)) == 1 }
        node.child.signal(SIGTERM)
        try node.waitForEvent("draining")
        let text = try String(contentsOfFile: node.config, encoding: .utf8)
            .replacingOccurrences(of: ":15001", with: ":15003")
            .replacingOccurrences(of: "admin.sock", with: "next.sock")
        let next = try Node(text, folder: lab.folder, in: lab.node)
        _ = try event("interception_applied", 1, next, soon)
        // The connection that stands goes on beside new ones.
        #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 198.51.100.1")
        try held.send("Host: a\r\n\r\n")
        #expect(try held.receive(exactly: 8) == Array("HTTP/1.1".utf8))
        held.finish()
        #expect(try node.child.waitForExit() == .code(0))
        #expect(count("interception_lost", node) == 0 && count("interception_lost", next) == 0)
        #expect(try lab.attemptRules(next.config, "--check").exit == .code(0))
        withExtendedLifetime(server) {}
    }

    @Test(
        "without `nft`, or without its capability, the node serves, and says at its start that it can't look",
        arguments: [
            ("env PATH=/nonexistent", "`nft` is not installed"),
            ("setpriv --bounding-set=-net_admin --inh-caps=-net_admin", "Operation not permitted"),
        ])
    func blind(_ prefix: String, _ obstacle: String) throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        // Such a listener needs no capability.
        let setting = "intercept rules manage\n    admin unix:\(admin(lab))"
        let node = try lab.startNode(mode: "redirect", setting: setting)
        node.child.signal(SIGKILL)
        _ = try node.child.waitForExit()
        let words = prefix.split(separator: " ").map(String.init)
        let blind = try Child("ip", ["netns", "exec", lab.node] + words + [Binary.path, "run", node.config])
        let line = try blind.waitForError("what is missing") { $0.first { $0.isEvent("interception_unwatched") } }
        #expect(line.text.contains(obstacle) && line.text.contains("CAP_NET_ADMIN"), "\(line.text)")
        _ = try blind.waitForError("that it is ready") { $0.first { $0.isEvent("ready") } }
        try awaitUntil("a problem in status") {
            try interception(lab).problems.contains { $0.contains(obstacle) && !$0.contains("\n") }
        }
        #expect(try interception(lab).status == "unknown")
        #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 198.51.100.1" || prefix.hasPrefix("setpriv"))
        blind.signal(SIGTERM)
        #expect(try blind.waitForExit() == .code(0))
        withExtendedLifetime(server) {}
    }
}
