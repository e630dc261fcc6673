import Foundation
import TestSupport
import Testing

/// Alerts and `top` of a real egress node: instances that misbehave, and those that don't.
@Suite("Alerts of an egress node", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressAlertsTests {
    private struct Site {
        let lab: EgressLab
        let server: Child
        let node: Node
        let admin: String

        init(_ alerts: String, log: String = "connections") throws {
            lab = try EgressLab()
            server = try lab.startServer()
            admin = "\(lab.folder.path)/admin.sock"
            node = try lab.startNode(
                account: "account every 1s", setting: "admin unix:\(admin)\n    log \(log)",
                more: "alerts {\n\(alerts)\n}")
        }

        /// Connects, and is reset: by the relay, whoever refused.
        func knock(_ host: String, _ places: [Place]) throws {
            try lab.inside(host) {
                for place in places {
                    let socket = try Socket.connect(to: place)
                    #expect(try socket.receiveToEnd().ending == .reset)
                }
            }
        }

        func alert(_ kind: String, _ status: String, _ instance: String) throws -> [String: Any] {
            let line = try node.child.waitForError("\(kind) of \(instance), \(status)") { lines in
                lines.first {
                    $0.isEvent("egress_alert") && $0.text.contains("\"kind\":\"\(kind)\"")
                        && $0.text.contains("\"status\":\"\(status)\"")
                        && $0.text.contains("\"instance\":\"\(instance)\"")
                }
            }
            return try (try JSONSerialization.jsonObject(with: Data(line.text.utf8)) as? [String: Any]).unwrap(
                line.text)
        }

        var alerts: [String] { node.child.lines.filter { $0.isEvent("egress_alert") }.map(\.text) }

        func top(_ words: [String]) throws -> [String: Any] {
            let answer = try Binary.run(["top", "--json", "--once", "--admin", admin] + words)
            let object = try JSONSerialization.jsonObject(with: Data(answer.out.utf8))
            return try (object as? [String: Any]).unwrap("object: \(answer.out)\(answer.error)")
        }

        func rows(_ words: [String]) throws -> [[String: Any]] {
            try (try top(words)["rows"] as? [[String: Any]]).unwrap("rows")
        }
    }

    @Test(
        "a port scan is the scanner's alert, whether the destination refuses or a stage does, with the log on or off",
        arguments: ["connections", "off"])
    func scans(_ log: String) throws {
        let site = try Site("port_scan 20 in 10s", log: log)
        let closed = (2000..<2040).map { Place("2001:db8:9::2", $0) }
        try site.knock(site.lab.alpha, closed)
        let started = try site.alert("port_scan", "started", "i_alpha")
        #expect(started["env"] as? String == "env_a" && started["org"] as? String == "acme")
        #expect((started["targets"] as? Int ?? 0) > 20 && started["threshold"] as? Int == 20)
        #expect((started["example"] as? String ?? "").hasPrefix("[2001:db8:9::2]:20"))
        #expect((started["investigate"] as? String ?? "").contains("i_alpha"))
        let ended = try site.alert("port_scan", "ended", "i_alpha")
        #expect(ended["peak"] as? Int == 40)
        // The platform's range, which no instance may reach.
        try site.knock(site.lab.beta, (1..<30).map { Place("fd10:f::6", $0) })
        #expect(try site.alert("port_scan", "started", "i_beta")["org"] as? String == "other")
        let status = try Binary.run(["status", "--admin", site.admin])
        #expect(status.out.contains("port_scan        2"), "\(status.out)")
        #expect(site.alerts.allSatisfy { $0.contains("port_scan") }, "\(site.alerts)")
        #expect(site.node.child.lines.contains { $0.stream == .out } == (log != "off"))
    }

    @Test("R20: who has an alert can be stopped in both families by one set and a reload; others are not")
    func stops() throws {
        let site = try Site("port_scan 20 in 10s")
        let stopped = try site.lab.folder.write("stopped", "")
        let config = try String(contentsOfFile: site.node.config, encoding: .utf8)
        try "set stopped file \(stopped)\n\(config.replacing("address     ", with: "address deny from @stopped, "))"
            .write(toFile: site.node.config, atomically: true, encoding: .utf8)
        let begun = try Binary.run(["reload", "--admin", site.admin])
        #expect(begun.exit == .code(0), "\(begun)")
        try site.knock(site.lab.beta, (2000..<2040).map { Place("2001:db8:9::2", $0) })
        let alert = try site.alert("port_scan", "started", "i_beta")
        let addresses = try (alert["addresses"] as? [String]).unwrap("addresses")
        #expect(addresses.first == alert["source"] as? String && addresses.count == 2, "\(alert)")
        for place in [EgressLab.v6, EgressLab.v4] {
            #expect(try site.lab.curl(site.lab.beta, place).exit == .code(0))
        }
        // As the page says it.
        let recipe =
            "printf '%s\\n' \(addresses.joined(separator: " ")) >> \(stopped) && \(Binary.path) reload --admin "
        let done = try Child("sh", ["-c", recipe + site.admin])
        #expect(try done.waitForExit() == .code(0), "\(done.output)")
        for place in [EgressLab.v6, EgressLab.v4] {
            #expect(try site.lab.curl(site.lab.beta, place).exit != .code(0))
            #expect(try site.lab.curl(site.lab.alpha, place).exit == .code(0))
        }
        let line = try site.node.log("the stopped one") { $0.reason.hasPrefix("address.") }
        #expect(line.instance == "i_beta")
    }

    @Test("connections to mail ports are an alert, also if all of them are refused; some are none")
    func mail() throws {
        let site = try Site("smtp 10 in 10s")
        try site.knock(site.lab.beta, (0..<5).map { _ in Place("2001:db8:9::2", 25) })
        try site.knock(site.lab.alpha, (0..<8).map { _ in Place("2001:db8:9::2", 25) })
        try site.knock(site.lab.alpha, (0..<8).map { _ in Place("fd10:f::6", 587) })
        let alert = try site.alert("smtp", "started", "i_alpha")
        let (connections, refused) = (alert["connections"] as? Int ?? 0, alert["refused"] as? Int ?? 0)
        #expect((11...16).contains(connections) && refused <= 16, "\(alert)")
        let ended = try site.alert("smtp", "ended", "i_alpha")
        #expect(ended["peak"] as? Int == 16, "\(ended)")
        #expect(!site.alerts.contains { $0.contains("i_beta") })
    }

    @Test("many new destinations are an alert; the same ones again are none")
    func fanOut() throws {
        let site = try Site("fan_out 20 in 5s\n port_scan off")
        // Every address of it is the server's.
        try site.lab.run(in: site.lab.server, ["ip", "-6", "route", "add", "local", "2001:db8:9:1::/64", "dev", "lo"])
        try site.lab.run(
            in: site.lab.node, ["ip", "-6", "route", "add", "2001:db8:9:1::/64", "via", "2001:db8:9::2", "dev", "up0"])
        let deadline = Deadline()
        var round = 0
        // What comes within a window of the start is only learned.
        while site.alerts.isEmpty {
            guard !deadline.hasPassed else { throw Failure("no alert after \(round) rounds") }
            round += 1
            let places = (1...40).map { Place("2001:db8:9:1::\(round):\($0)", EgressLab.port) }
            try site.lab.inside(site.lab.alpha) {
                for place in places {
                    let socket = try Socket.connect(to: place)
                    try socket.send("GET / HTTP/1.0\r\n\r\n")
                    _ = try socket.receiveToEnd()
                }
            }
            for _ in 0..<5 { #expect(try site.lab.curl(site.lab.beta, EgressLab.v6).exit == .code(0)) }
        }
        let alert = try site.alert("fan_out", "started", "i_alpha")
        #expect((alert["new_destinations"] as? Int ?? 0) > 20)
        #expect((alert["example"] as? String ?? "").hasPrefix("[2001:db8:9:1::"))
        #expect(site.alerts.allSatisfy { $0.contains("i_alpha") })
    }

    @Test("top: who sends, where to and how much, also while connections live; a reload changes alerts at once")
    func top() throws {
        let site = try Site("port_scan off")
        let request = "GET / HTTP/1.1\r\nHost: egress.test\r\n\r\n"
        let held = try site.lab.inside(site.lab.alpha) {
            let socket = try Socket.connect(to: EgressLab.v6)
            try socket.send(request)
            _ = try socket.receive(exactly: 1)
            return socket
        }
        for _ in 0..<3 { #expect(try site.lab.curl(site.lab.beta, EgressLab.v4).exit == .code(0)) }
        let rows = try awaitValue("both instances in `top`") {
            let rows = try site.rows(["--seconds", "12"])
            return rows.count < 2 ? nil : rows
        }
        let alpha = try rows.first { $0["instance"] as? String == "i_alpha" }.unwrap("alpha in \(rows)")
        #expect(alpha["bytes_out"] as? Int == request.utf8.count && alpha["connections"] as? Int == 1, "\(alpha)")
        #expect(alpha["env"] as? String == "env_a" && alpha["org"] as? String == "acme")
        let beta = try rows.first { $0["instance"] as? String == "i_beta" }.unwrap("beta in \(rows)")
        #expect(beta["connections"] as? Int == 3, "\(beta)")
        let places = try site.rows(["--by", "destination", "--instance", "i_beta", "--seconds", "12"])
        #expect(places.map { $0["destination"] as? String } == ["198.51.100.2"])
        #expect(try site.rows(["--org", "nobody"]).isEmpty)
        let text = try Binary.run(["top", "--by", "port", "--admin", site.admin, "--seconds", "12", "-n", "1"])
        #expect(
            text.exit == .code(0) && text.out.contains("8080/tcp") && text.out.contains("test: 12 s to"), "\(text.out)")
        #expect(try Binary.run(["top", "--once", "-n", "2"]).exit == .code(2))

        let closed = (2000..<2040).map { Place("2001:db8:9::2", $0) }
        try site.knock(site.lab.beta, closed)
        // When `top` has it, alerts have had it.
        let query = ["--by", "port", "--instance", "i_beta", "--seconds", "12", "--rows", "1000"]
        try awaitUntil("all of beta's in `top`") { try site.rows(query).count >= closed.count }
        #expect(site.alerts.isEmpty)
        let config = try String(contentsOfFile: site.node.config, encoding: .utf8)
        try config.replacing("port_scan off", with: "port_scan 20 in 10s")
            .write(toFile: site.node.config, atomically: true, encoding: .utf8)
        site.node.child.signal(SIGHUP)
        try site.node.waitForEvent("reloaded")
        try site.knock(site.lab.alpha, closed)
        _ = try site.alert("port_scan", "started", "i_alpha")
        #expect(!site.alerts.contains { $0.contains("i_beta") }, "\(site.alerts)")
        held.finish()
    }
}

/// `top` of a node that is no egress node.
@Suite("top of a running node")
struct TopTests {
    private func site(_ account: String) throws -> (node: Node, admin: String, entry: Place, server: Server) {
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let server = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let config = ConfigText(
            settings: ["admin unix:\(admin)"], rawListeners: [entry],
            routes: [RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])])
        let text = config.description.replacing("    account\n", with: "    \(account)\n")
        return (try Node(text, folder: folder), admin, entry, server)
    }

    @Test("an ingress node shows its clients by address, where flows are recorded") func ingress() throws {
        let (node, admin, entry, server) = try site("account every 1s")
        let client = try Socket.connect(to: entry)
        try client.send("12345")
        _ = try client.receive(exactly: 5)
        let out = try awaitValue("the client in `top`") {
            let out = try Binary.run(["top", "--json", "--admin", admin, "--seconds", "12"]).out
            return out.contains("\"::1\"") ? out : nil
        }
        #expect(
            out.contains("\"instance\":\"::1\"") && out.contains("\"bytes_out\":5,\"bytes_in\":5,\"connections\":1"))
        withExtendedLifetime((node, server)) {}
    }

    @Test("a node that records no flows says so, and what to write") func nothing() throws {
        let (node, admin, _, _) = try site("account")
        let answer = try Binary.run(["top", "--admin", admin])
        #expect(answer.exit == .code(1) && answer.out.contains("account every 5s"), "\(answer.out)")
        withExtendedLifetime(node) {}
    }
}
