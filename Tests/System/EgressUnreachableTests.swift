import Foundation
import Glibc
import TestSupport
import Testing

/// Happy Eyeballs through an egress node: a destination that does not answer is refused before it is accepted.
@Suite("Destinations that do not answer", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressUnreachableTests {
    private let lab: EgressLab
    private let server: Child

    init() throws {
        lab = try EgressLab()
        server = try lab.startServer()
    }

    private func start(_ mode: String = "transparent", _ more: String = "", setting: String = "") throws -> Node {
        try lab.startNode(
            mode: mode, backend: "original_destination, connect_timeout 300ms\(more)", setting: setting)
    }

    /// The server takes no IPv6 on its usual port, and says nothing.
    private func goDark() throws {
        let chain = "add table inet dark; add chain inet dark in { type filter hook input priority 0; }"
        try lab.run(in: lab.server, ["nft", chain])
        try lab.run(
            in: lab.server, ["nft", "add rule inet dark in meta nfproto ipv6 tcp dport \(EgressLab.port) drop"])
    }

    /// How a connect of an instance ends: nil: it is accepted.
    /// - Parameter ends: whether who is accepted is then reset, since nobody answers there.
    private func refusal(_ host: String, _ place: Place, ends: Bool = true) throws -> String? {
        try lab.inside(host) {
            do {
                let accepted = try Socket.connect(to: place)
                if ends { _ = try accepted.receiveToEnd() }
            } catch let failure as Failure where failure.description.contains("refused") {
                return failure.description
            }
            return nil
        }
    }

    private func elements(_ set: String) throws -> String {
        try lab.run(in: lab.node, ["nft", "list", "set", "inet", "pipelined", set])
    }

    private func awaitElement(_ place: Place) throws {
        let element = "\(place.host) . \(place.port) "
        try awaitUntil("\(element) is in its set") {
            try elements(place.isIPv4 ? "unreachable4" : "unreachable6").contains(element)
        }
    }

    @Test(
        "a dead IPv6 path costs one connection; the next client goes by IPv4 at once, whichever instance's it is",
        arguments: ["transparent", "redirect"])
    func eyeballs(_ mode: String) throws {
        try goDark()
        let node = try start(mode)
        let eyeballs = { (host: String) in
            try lab.attempt(
                in: host,
                [
                    "curl", "-sS", "--max-time", "60", "--resolve",
                    "dual.test:\(EgressLab.port):[2001:db8:9::2],198.51.100.2", "http://dual.test:\(EgressLab.port)/",
                ])
        }
        let first = try eyeballs(lab.alpha)
        #expect(first.exit != .code(0), "it took the relay's word for the server's: \(first)")
        let line = try node.log("the first") { $0.destination == EgressLab.v6.description }
        #expect(line.reason == "backend.timeout upstream" && line.instance == "i_alpha", "\(line)")
        try awaitElement(EgressLab.v6)
        for host in [lab.alpha, lab.beta] {
            #expect(try refusal(host, EgressLab.v6) != nil)
            let second = try eyeballs(host)
            #expect(second.exit == .code(0) && second.output == "seen 198.51.100.1", "\(second)")
        }
        let counter = try lab.run(in: lab.node, ["nft", "list", "counter", "inet", "pipelined", "unreachable"])
        #expect(counter.contains("packets 4 "), "\(counter)")
        // Neither the host's other ports, nor the rules.
        #expect(try refusal(lab.alpha, Place("2001:db8:9::2", EgressLab.tlsPort), ends: false) == nil)
        let check = try lab.attemptRules(node.config, "--check")
        #expect(check.exit == .code(0), "\(check)")
    }

    @Test("after its time a destination is asked anew", arguments: ["transparent", "redirect"])
    func again(_ mode: String) throws {
        try goDark()
        let node = try start(mode, ", unreachable_for 1s")
        #expect(try lab.curl(lab.alpha, EgressLab.v6).exit != .code(0))
        _ = try node.log("the first") { $0.destination == EgressLab.v6.description }
        try lab.run(in: lab.server, ["nft", "delete table inet dark"])
        try awaitUntil("it answers again") { try lab.curl(lab.alpha, EgressLab.v6).output == "seen 2001:db8:9::1" }
    }

    @Test("a host without a way there is told of for ten seconds, in both families; who is refused has had an answer")
    func reasons() throws {
        let node = try start()
        let closed = ["2001:db8:9::2", "198.51.100.2"].map { Place($0, 3001) }
        let nowhere = ["2001:db8:77::2", "203.0.113.2"].map { Place($0, 443) }
        let ask = { (place: Place, reason: String) in
            #expect(try refusal(lab.alpha, place) == nil)
            let line = try node.log("\(place)") { $0.destination == place.description }
            #expect(line.reason == reason, "\(line)")
        }
        for place in closed { try ask(place, "backend.refused upstream") }
        for (place, set) in zip(nowhere, ["unreachable6", "unreachable4"]) {
            try ask(place, "backend.unreachable upstream")
            try awaitElement(place)
            #expect(try refusal(lab.beta, place) != nil)
            let text = try elements(set)
            #expect(text.contains("\(place.host) . 443 timeout 10s"), "\(text)")
            #expect(!text.contains(" . 3001 "), "what was logged before was looked at before: \(text)")
        }
        for place in closed { #expect(try refusal(lab.alpha, place) == nil) }
    }

    @Test(
        "what is the instance's own affair, or switched off, refuses nobody",
        arguments: [
            "original_destination from instance, connect_timeout 300ms",
            "original_destination, connect_timeout 300ms, unreachable_for off",
        ])
    func off(_ backend: String) throws {
        try goDark()
        let node = try lab.startNode(backend: backend)
        let rules = try lab.run(in: lab.node, ["nft", "list", "table", "inet", "pipelined"])
        #expect(!rules.contains("unreachable6") && !rules.contains("jump unreachable"), "\(rules)")
        // Sets of another config do not make it begin.
        let other = try String(contentsOfFile: node.config, encoding: .utf8)
            .replacing(" from instance", with: "").replacing(", unreachable_for off", with: "")
        let file = try lab.folder.write("other.pipeline", other)
        try lab.rules(file, "--apply")
        for _ in 0..<2 {
            #expect(try refusal(lab.alpha, EgressLab.v6) == nil)
            _ = try node.log("a timeout") { $0.destination == EgressLab.v6.description }
        }
        #expect(!(try elements("unreachable6").contains("elements")))
    }

    @Test("with `log off` it works as well")
    func withoutLog() throws {
        let node = try start(setting: "log off")
        let place = Place("2001:db8:77::2", 443)
        #expect(try refusal(lab.alpha, place) == nil)
        try awaitElement(place)
        #expect(try refusal(lab.beta, place) != nil)
        withExtendedLifetime(node) {}
    }

    @Test("without the sets it is off and says so once; as soon as they are there it works")
    func missing() throws {
        try goDark()
        let admin = "\(lab.folder.path)/admin.sock"
        let node = try start(setting: "admin unix:\(admin)")
        let own = try String(contentsOfFile: node.config, encoding: .utf8)
        let older = try lab.folder.write(
            "older.pipeline", own.replacing("connect_timeout 300ms", with: "unreachable_for off"))
        try lab.rules(older, "--apply")
        let ports: [UInt16] = [1, 2, 3]
        for port in ports { #expect(try refusal(lab.alpha, Place("2001:db8:77::2", port)) == nil) }
        _ = try node.child.waitForError("what is missing") { lines in
            lines.first { $0.isEvent("unreachable_off") && $0.text.contains("egress rules CONFIG --apply") }
        }
        let status = { try (Admin.json(["status"], admin)["unreachable"] as? [String: Any]).unwrap("its counts") }
        try awaitUntil("all were tried") { try status()["dropped"] as? Int == ports.count }
        let off = try status()
        #expect((off["off"] as? String)?.contains("set is missing") == true, "\(off)")
        #expect(try lab.curl(lab.alpha, EgressLab.v4).output == "seen 198.51.100.1")
        // As soon as they are there it works.
        try lab.rules(node.config, "--apply")
        #expect(try refusal(lab.alpha, EgressLab.v6) == nil)
        try awaitElement(EgressLab.v6)
        try node.waitForEvent("unreachable_off")
        #expect(node.child.lines.count { $0.isEvent("unreachable_off") } == 1)
        let on = try status()
        #expect(on["added"] as? Int == 1 && on["dropped"] as? Int == 3 && on["off"] is NSNull, "\(on)")
    }

    @Test("without CAP_NET_ADMIN it is off, says so once, and relays")
    func permission() throws {
        let made = try start()
        made.child.signal(SIGTERM)
        #expect(try made.child.waitForExit() == .code(0))
        let child = try Child(
            "ip",
            ["netns", "exec", lab.node, "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
                + [Binary.path, "run", made.config])
        _ = try child.wait("that it is ready") { $0.first { $0.isEvent("ready") } }
        for port in 1...3 as ClosedRange<UInt16> {
            #expect(try refusal(lab.alpha, Place("2001:db8:77::2", port)) == nil)
        }
        let line = try child.waitForError("what is missing") { $0.first { $0.isEvent("unreachable_off") } }
        #expect(line.text.contains("CAP_NET_ADMIN"), "\(line.text)")
        #expect(try lab.curl(lab.alpha, EgressLab.v6).output == "seen 2001:db8:9::1")
        child.signal(SIGTERM)
        #expect(try child.waitForExit() == .code(0))
        #expect(child.lines.count { $0.isEvent("unreachable_off") } == 1)
    }

    private func counts(_ admin: String) throws -> [String: Int] {
        let counts = try (Admin.json(["status"], admin)["unreachable"] as? [String: Any]).unwrap("its counts")
        return counts.compactMapValues { $0 as? Int }
    }

    @Test("one instance's burst at a server that limits SYNs refuses no other: what answers meanwhile is not dead")
    func burst() throws {
        let chain = "add table inet dark; add chain inet dark in { type filter hook input priority 0; }"
        try lab.run(in: lab.server, ["nft", chain])
        let syn = "tcp dport \(EgressLab.port) tcp flags & (syn|ack) == syn"
        try lab.run(
            in: lab.server,
            ["nft", "add rule inet dark in \(syn) limit rate over 10/second burst 10 packets drop"])
        let admin = "\(lab.folder.path)/admin.sock"
        let node = try lab.startNode(
            backend: "original_destination, connect_timeout 1500ms", setting: "admin unix:\(admin)")
        let held = try lab.inside(lab.alpha) { try (0..<60).map { _ in try Socket.connect(to: EgressLab.v6) } }
        var ends: [Child.Exit] = []
        try awaitUntil("the timeouts were looked at") {
            ends.append(try lab.curl(lab.beta, EgressLab.v6).exit)
            return try counts(admin).contains { $0.value > 0 }
        }
        for _ in 0..<5 { ends.append(try lab.curl(lab.beta, EgressLab.v6).exit) }
        #expect(!ends.contains(.code(7)) && ends.contains(.code(0)), "7 is refused: \(ends)")
        let counted = try counts(admin)
        #expect(counted["answered"] ?? 0 > 0 && counted["added"] == 0, "\(counted)")
        withExtendedLifetime((held, node)) {}
    }

    @Test(
        "what an open connection hears of is not dead; one that has fallen silent proves nothing",
        arguments: [true, false])
    func open(_ isIPv4: Bool) throws {
        let place = Place(isIPv4 ? EgressLab.v4.host : EgressLab.v6.host, 9000)
        let echo = try lab.inside(lab.server) { try Server.echo(place.host, port: place.port) }
        let admin = "\(lab.folder.path)/admin.sock"
        let node = try start(setting: "admin unix:\(admin)")
        let open = try lab.inside(lab.beta) { try Socket.connect(to: place) }
        try open.send("once")
        _ = try open.receive()
        let chain = "add table inet dark; add chain inet dark in { type filter hook input priority 0; }"
        try lab.run(in: lab.server, ["nft", chain])
        try lab.run(in: lab.server, ["nft", "add rule inet dark in tcp dport 9000 tcp flags & (syn|ack) == syn drop"])
        let isOver = Flag()
        let ended = Promise<Bool>()
        Thread.detachNewThread {
            ended.fulfil(
                Result {
                    var pace = Pace(perSecond: 100)
                    while !isOver.isSet {
                        pace.wait()
                        try open.send("more")
                        _ = try open.receive()
                    }
                    return true
                })
        }
        #expect(try refusal(lab.alpha, place) == nil)
        try awaitUntil("the timeout was looked at") { try counts(admin).contains { $0.value > 0 } }
        let counted = try counts(admin)
        #expect(counted["answered"] == 1 && counted["added"] == 0, "\(counted)")
        isOver.set()
        _ = try ended.value(Deadline(), "end of the exchange")
        // A late ACK of the exchange may still be heard after the first of these has begun, and speaks for the destination.
        try awaitUntil("\(place) is refused") { try refusal(lab.alpha, place) != nil }
        try awaitElement(place)
        withExtendedLifetime((echo, node, open)) {}
    }
}
