import Foundation
import Glibc
import Testing

/// Instances' connections through nftables and an egress node to real servers.
@Suite("An egress node", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressTests {
    @Test(
        "R19: both families reach where they were going, and the log says who went where",
        arguments: [
            "transparent", "redirect",
        ])
    func intercepts(_ mode: String) throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try lab.startNode(mode: mode)
        for (host, instance, env) in [(lab.alpha, "i_alpha", "env_a"), (lab.beta, "i_beta", "env_b")] {
            for (place, seen) in [(EgressLab.v6, "2001:db8:9::1"), (EgressLab.v4, "198.51.100.1")] {
                let answer = try lab.curl(host, place)
                #expect(answer.exit == .code(0))
                #expect(answer.output == "seen \(seen)", "\(host) to \(place)")
                let line = try node.log("\(instance) to \(place)") {
                    $0.instance == instance && $0.destination == place.description
                }
                #expect(line.reason.hasPrefix("relay.closed"), "\(line)")
                #expect(line.backend == place.description && line.env == env && line.route == nil, "\(line)")
                #expect(line.bytesToClient > 0 && line.attempts == 1, "\(line)")
            }
        }
        let tls = try lab.run(
            in: lab.alpha,
            ["openssl", "s_client", "-connect", "[2001:db8:9::2]:\(EgressLab.tlsPort)", "-servername", "egress.test"])
        #expect(tls.contains("CN = egress.test") || tls.contains("CN=egress.test"), "\(tls)")
        let line = try node.log("the handshake") { $0.destination == "[2001:db8:9::2]:\(EgressLab.tlsPort)" }
        #expect(line.instance == "i_alpha")
        withExtendedLifetime(server) {}
    }

    @Test("R19: sources that were not assigned here, and the platform's addresses, are refused; listed ones are not")
    func refuses() throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try lab.startNode()
        // Assigned to an instance of another node.
        let spoofed = try lab.curl(lab.alpha, EgressLab.v6, from: "fd10:1::bad")
        #expect(spoofed.exit != .code(0))
        let first = try node.log("the spoofed one") { $0.client?.contains("fd10:1::bad") == true }
        #expect(first.reason == "anti_spoof.spoofed_source client" && first.instance == nil, "\(first)")
        #expect(first.attempts == 0 && first.interface == "vm1", "\(first)")
        // An address that another instance's host took for itself.
        try lab.run(in: lab.beta, ["ip", "addr", "add", "10.81.2.77/24", "dev", "eth0"])
        let unknown = try lab.curl(lab.beta, EgressLab.v4, from: "10.81.2.77")
        #expect(unknown.exit != .code(0))
        let second = try node.log("the unknown one") { $0.client?.hasPrefix("10.81.2.77:") == true }
        #expect(second.reason == "anti_spoof.spoofed_source client" && second.interface == "vm2", "\(second)")

        let denied = Place("fd10:f::6", EgressLab.port)
        #expect(try lab.curl(lab.alpha, denied).exit != .code(0))
        let third = try node.log("the platform's") { $0.destination == denied.description }
        #expect(third.reason == "address.denied_destination client" && third.instance == "i_alpha", "\(third)")
        #expect(third.interface == nil, "\(third)")
        let listed = Place("fd10:f::5", EgressLab.port)
        #expect(try lab.curl(lab.alpha, listed).output == "seen fd10:f::1")
        withExtendedLifetime(server) {}
    }

    @Test("from instance: the server sees the instance's own address", arguments: ["transparent", "redirect"])
    func fromInstance(_ mode: String) throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try lab.startNode(mode: mode, backend: "original_destination from instance")
        for (host, place, seen) in [
            (lab.alpha, EgressLab.v6, "seen fd10:1::2"), (lab.beta, EgressLab.v4, "seen 10.81.2.2"),
        ] {
            let answer = try lab.curl(host, place)
            #expect(answer.output == seen, "\(answer)\n\(node.child.output)")
        }
        let line = try node.log("beta's") { $0.instance == "i_beta" }
        #expect(line.reason.hasPrefix("relay.closed"), "\(line)")
        withExtendedLifetime(server) {}
    }

    @Test(
        "whoever connects to the listener itself is refused; another host's port of that number is not",
        arguments: [
            ("transparent", ["intercept.loop client"]),
            ("redirect", ["intercept.loop client", "intercept.not_intercepted client"]),
        ])
    func loops(_ mode: String, _ reasons: [String]) throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try lab.startNode(mode: mode)
        for place in [Place("fd10:1::1", 15001), Place("10.81.1.1", 15001)] {
            #expect(try lab.curl(lab.alpha, place).exit != .code(0))
            let line = try node.log("the loop to \(place)") {
                $0.destination == place.description || (mode == "redirect" && reasons.contains($0.reason))
            }
            #expect(reasons.contains(line.reason) && line.attempts == 0, "\(line)")
        }
        let other = Place("2001:db8:9::2", 15001)
        #expect(try lab.curl(lab.alpha, other).output == "seen 2001:db8:9::1")
        withExtendedLifetime(server) {}
    }

    @Test("R20: a limit by instance holds for the one, and not for the other")
    func limits() throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try lab.startNode(limit: "key instance\n    concurrent 3")
        // Each has had an answer, and stands by keepalive: all three are counted before the fourth comes.
        let held = try lab.inside(lab.alpha) {
            try (0..<3).map { _ in
                let socket = try Socket.connect(to: EgressLab.v6)
                try socket.send("GET / HTTP/1.1\r\nHost: egress.test\r\n\r\n")
                _ = try socket.receive(exactly: 1)
                return socket
            }
        }
        let refused = try lab.inside(lab.alpha) {
            let fourth = try Socket.connect(to: EgressLab.v4)
            return try fourth.receiveToEnd().ending
        }
        #expect(refused == .reset)
        let line = try node.log("the fourth") { $0.reason.hasPrefix("rate_limit.") }
        #expect(line.reason == "rate_limit.too_many_connections client" && line.instance == "i_alpha", "\(line)")
        #expect(try lab.curl(lab.beta, EgressLab.v6).exit == .code(0))
        for socket in held { socket.finish() }
        withExtendedLifetime(server) {}
    }

    @Test("a reload makes a listener of another kind of the same socket, and refuses nobody")
    func changesKind() throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try lab.startNode(mode: "redirect")
        #expect(try lab.curl(lab.alpha, EgressLab.v6).exit == .code(0))
        let text = try String(contentsOfFile: node.config, encoding: .utf8)
            .replacingOccurrences(of: "redirect  via", with: "transparent  via")
        try lab.folder.write("node.pipeline", text)
        node.child.signal(SIGHUP)
        try node.waitForEvent("reloaded")
        try lab.rules(node.config, "--apply")
        #expect(try lab.run(in: lab.node, ["nft", "list", "ruleset"]).contains("tproxy"))
        for place in [EgressLab.v6, EgressLab.v4] {
            let answer = try lab.curl(lab.beta, place)
            #expect(answer.exit == .code(0), "\(answer)\n\(node.child.output)")
            let line = try node.log("\(place)") { $0.instance == "i_beta" && $0.destination == place.description }
            #expect(line.reason.hasPrefix("relay.closed"), "\(line)")
        }
        withExtendedLifetime(server) {}
    }

    @Test("rules: applied twice they are there once, removed they are gone, and others' rules stay")
    func rules() throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        try lab.run(
            in: lab.node, ["nft", "add table inet others; add chain inet others c; add rule inet others c counter"])
        try lab.run(in: lab.node, ["ip", "-6", "rule", "add", "fwmark", "0x1", "table", "77"])
        let before = try lab.run(in: lab.node, ["nft", "list", "ruleset"])
        let rulesBefore = try lab.run(in: lab.node, ["ip", "-6", "rule", "show"])
        let node = try lab.startNode()
        let rules = [Binary.path, "egress", "rules", node.config]
        let once = try lab.run(in: lab.node, ["nft", "list", "ruleset"])
        try lab.run(in: lab.node, rules + ["--apply"])
        #expect(try lab.run(in: lab.node, ["nft", "list", "ruleset"]) == once)
        let ours = try lab.run(in: lab.node, ["ip", "-6", "rule", "show", "fwmark", "0x706a"])
        #expect(ours.split(separator: "\n").count == 1, "\(ours)")
        #expect(try lab.curl(lab.alpha, EgressLab.v6).exit == .code(0))
        // A connection that stands keeps its bytes flowing while the rules are made anew.
        let standing = try lab.inside(lab.alpha) { try Socket.connect(to: EgressLab.v6) }
        try lab.run(in: lab.node, rules + ["--apply"])
        try standing.send("GET / HTTP/1.0\r\n\r\n")
        #expect(String(decoding: try standing.receiveToEnd().bytes, as: UTF8.self).contains("seen 2001:db8:9::1"))

        try lab.run(in: lab.node, rules + ["--remove"])
        try lab.run(in: lab.node, rules + ["--remove"])
        #expect(try lab.run(in: lab.node, ["nft", "list", "ruleset"]) == before)
        #expect(try lab.run(in: lab.node, ["ip", "-6", "rule", "show"]) == rulesBefore)
        let left = try lab.attempt(in: lab.node, ["ip", "-6", "route", "show", "table", "28778"]).output
        #expect(!left.contains("local"), "\(left)")
        // The script that it prints does the same.
        let script = try lab.folder.write("rules.sh", try lab.run(in: lab.node, rules))
        try lab.run(in: lab.node, ["sh", script])
        #expect(try lab.run(in: lab.node, ["nft", "list", "ruleset"]) == once)
        #expect(try lab.curl(lab.alpha, EgressLab.v6).exit == .code(0))
        withExtendedLifetime(server) {}
    }

    @Test("without permission: the node and the rules say what is missing")
    func permission() throws {
        let lab = try EgressLab()
        let node = try lab.startNode()
        let unprivileged = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"]
        let apply = try lab.attempt(
            in: lab.node, unprivileged + [Binary.path, "egress", "rules", node.config, "--apply"])
        #expect(apply.exit == .code(1))
        #expect(apply.output.contains("CAP_NET_ADMIN"), "\(apply.output)")
        let text = try String(contentsOfFile: node.config, encoding: .utf8)
            .replacingOccurrences(of: "15001", with: "15009")
        let config = try lab.folder.write("other.pipeline", text)
        let run = try lab.attempt(in: lab.node, unprivileged + [Binary.path, "run", config])
        #expect(run.exit != .code(0))
        #expect(run.output.contains("no permission to intercept connections (`transparent`)"), "\(run.output)")
        #expect(run.output.contains("CAP_NET_ADMIN"), "\(run.output)")
    }
}
