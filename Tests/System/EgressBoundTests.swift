import Foundation
import TestSupport
import Testing

/// An instance whose `interface` desired state names is known by that interface alone, also where routes tell nothing.
@Suite("R19: addresses bound to an interface", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressBoundTests {
    private static let (alpha, beta) = (["fd10:1::2", "10.81.1.2"], ["fd10:2::2", "10.81.2.2"])
    private static let server = ["2001:db8:9::2", "198.51.100.2"]

    private static var state: String {
        EgressLab.state.replacing("\"ipv4\":\"10.81.1.2\"", with: "\"ipv4\":\"10.81.1.2\",\"interface\":\"vm1\"")
            .replacing("\"ipv4\":\"10.81.2.2\"", with: "\"ipv4\":\"10.81.2.2\",\"interface\":\"vm2\"")
    }

    /// Takes beta's addresses on `host`, which may then send in its name.
    private func steal(_ lab: EgressLab, _ host: String) throws {
        try lab.run(in: host, ["ip", "addr", "add", "10.81.2.2/32", "dev", "lo"])
        try lab.run(in: host, ["ip", "addr", "add", "fd10:2::2/128", "dev", "lo", "nodad", "preferred_lft", "0"])
        // And take what others send in it.
        try lab.run(in: host, ["sysctl", "-qw", "net.ipv4.conf.all.accept_local=1"])
    }

    /// What the counters of a table have seen together.
    private func packets(_ lab: EgressLab, _ host: String, _ table: String) throws -> Int {
        try lab.run(in: host, ["nft", "list", "table"] + table.split(separator: " ").map(String.init))
            .matches(of: #/counter packets (\d+)/#).reduce(0) { $0 + (Int($1.output.1) ?? 0) }
    }

    /// Datagrams of `host` that reach `place`, of 20 in the name of `source`: what comes after them shows that all have passed.
    private func arrived(
        _ lab: EgressLab, _ host: String, as source: String, _ echo: DatagramEcho, _ place: Place
    ) throws -> Int {
        let before = echo.received
        try lab.inside(host) {
            try Datagrams.send(to: place, count: 20, bytes: 100, source: source)
        }
        // What is sent in its own name comes back: then the others are through, or nowhere.
        try lab.inside(host) { try Datagrams.exchange(with: place, count: 1, bytes: 10) }
        return echo.received - before - 1
    }

    /// Puts the rules of a desired state with interfaces in force, beneath a node that has it too.
    private func bind(_ lab: EgressLab, _ node: Node) throws {
        try lab.folder.write("state.json", Self.state)
        let reload = try node.reload(try String(contentsOfFile: node.config, encoding: .utf8))
        #expect(reload.isEvent("reloaded"), "\(reload.text)")
        let state = lab.folder.path + "/state.json"
        let command = [Binary.path, "egress", "rules", node.config, "--state", state, "--apply"]
        #expect(try lab.run(in: lab.node, command).contains("4 addresses are bound to an interface"))
        // The table is still what the config makes.
        try lab.rules(node.config, "--check")
    }

    /// Whose addresses they are may use them.
    private func expectServed(_ lab: EgressLab, _ echoes: [DatagramEcho]) throws {
        for (host, own) in [(lab.alpha, Self.alpha), (lab.beta, Self.beta)] {
            for family in 0..<2 {
                let place = Place(Self.server[family], EgressLab.port)
                #expect(try lab.curl(host, place, from: own[family]).output.contains("seen"))
                let before = echoes[family].received
                try lab.inside(host) {
                    try Datagrams.send(to: Place(place.host, 9999), count: 20, bytes: 100, source: own[family])
                }
                try awaitUntil("datagrams of \(own[family])") { echoes[family].received == before + 20 }
            }
        }
    }

    @Test("on one bridge, UDP and TCP, both families: in a neighbour's name by one's own port, nothing goes anywhere")
    func bridged() throws {
        let lab = try EgressLab()
        // The route check passes each in the other's name.
        try lab.bridge(isFiltered: false)
        try lab.forward()
        try steal(lab, lab.alpha)
        try lab.run(
            in: lab.beta,
            [
                "nft",
                """
                table inet seen {
                  chain c {
                    type filter hook input priority filter
                    tcp sport \(EgressLab.port) tcp flags & (syn | ack) == (syn | ack) counter
                  }
                }
                """,
            ])
        let server = try lab.startServer()
        let node = try lab.startNode(interface: "br0")
        let echoes = try Self.server.map { host in try lab.inside(lab.server) { try DatagramEcho(Place(host, 9999)) } }
        defer { for echo in echoes { echo.stop() } }
        for isBound in [false, true] {
            if isBound { try bind(lab, node) }
            for family in 0..<2 {
                let (own, place) = (Self.beta[family], Place(Self.server[family], 9999))
                #expect(try arrived(lab, lab.alpha, as: own, echoes[family], place) == (isBound ? 0 : 20), "\(own)")
                // Unbound, the relay answers whoever the bridge finds first: the thief, who is then served, or the victim.
                let seen = try packets(lab, lab.beta, "inet seen")
                let web = Place(place.host, EgressLab.port)
                let thief = try lab.inside(lab.alpha) { try Socket.answer(of: web, from: Place(own, 0)) }
                if isBound {
                    #expect(try thief == nil && packets(lab, lab.beta, "inet seen") == seen, "\(own)")
                } else if thief == nil {
                    try awaitUntil("the victim is answered") { try packets(lab, lab.beta, "inet seen") > seen }
                }
            }
        }
        // 20 datagrams and a SYN at least, of each family.
        #expect(try packets(lab, lab.node, "bridge pipelined") >= 42)
        try lab.run(in: lab.alpha, ["ip", "addr", "del", "fd10:2::2/128", "dev", "lo"])
        try lab.run(in: lab.alpha, ["ip", "addr", "del", "10.81.2.2/32", "dev", "lo"])
        try expectServed(lab, echoes)
        try lab.rules(node.config, "--remove")
        #expect(try lab.run(in: lab.node, ["nft", "list", "tables"]).isEmpty)
        withExtendedLifetime(server) {}
    }

    @Test("on links of their own: from outside as well, UDP of both families, nothing comes in an instance's name")
    func outside() throws {
        let lab = try EgressLab()
        try lab.forward()
        try steal(lab, lab.server)
        let server = try lab.startServer()
        let node = try lab.startNode()
        let echoes = try Self.server.map { host in try lab.inside(lab.server) { try DatagramEcho(Place(host, 9999)) } }
        let inner = try Self.alpha.map { host in try lab.inside(lab.alpha) { try DatagramEcho(Place(host, 9998)) } }
        defer { for echo in echoes + inner { echo.stop() } }
        func rules(_ flag: String) throws {
            try lab.rules(node.config, flag)
        }
        for step in ["--remove", "--apply", "bound"] {
            if step == "bound" { try bind(lab, node) } else { try rules(step) }
            for family in 0..<2 {
                let (own, place) = (Self.beta[family], Place(Self.alpha[family], 9998))
                let count = try arrived(lab, lab.server, as: own, inner[family], place)
                #expect(count == (step == "--remove" ? 20 : 0), "\(own), \(step)")
            }
        }
        try expectServed(lab, echoes)
        // By its own interface, and in nobody's name: it would be counted for nobody.
        try lab.run(in: lab.alpha, ["ip", "addr", "add", "10.81.1.77/24", "dev", "eth0"])
        try lab.run(
            in: lab.alpha, ["ip", "addr", "add", "fd10:1::77/64", "dev", "eth0", "nodad", "preferred_lft", "0"])
        func stray() throws -> [Int] {
            try [("fd10:1::77", 0), ("10.81.1.77", 1)].map { own, family in
                try arrived(lab, lab.alpha, as: own, echoes[family], Place(Self.server[family], 9999))
            }
        }
        #expect(try stray() == [0, 0])
        // Without desired state nothing is bound.
        try rules("--apply")
        #expect(try !lab.run(in: lab.node, ["nft", "list", "tables"]).contains("bridge"))
        #expect(try stray() == [20, 20])
        withExtendedLifetime(server) {}
    }

    @Test("`intercept rules manage`: the node binds by the state that it runs on, again when others change the table")
    func managed() throws {
        let lab = try EgressLab()
        let node = try lab.startNode(setting: "intercept rules manage", isApplied: false)
        try node.waitForEvent("interception_applied")
        func table() throws -> String { try lab.run(in: lab.node, ["nft", "list", "table", "inet", "pipelined"]) }
        func reload(_ state: String, revision: Int) throws {
            try lab.folder.write("state.json", state.replacing("\"revision\":1", with: "\"revision\":\(revision)"))
            try node.reload(revision: revision)
        }
        // A look at the rules is followed by a rest of ten times its length: on a busy machine the next one is late.
        func deadline() -> Deadline { Deadline(seconds: 300) }
        let both = ["\"vm1\" . fd10:1::2", "\"vm2\" . fd10:2::2", "\"vm1\" . 10.81.1.2", "\"vm2\" . 10.81.2.2"]
        #expect(try !table().contains("vm2\" ."))
        try reload(Self.state, revision: 2)
        try awaitUntil("both are bound", deadline()) { both.allSatisfy(try table().contains) }
        // By hand and without a state: nobody would be bound any more.
        try lab.rules(node.config, "--apply")
        try awaitUntil("both are bound again", deadline()) { both.allSatisfy(try table().contains) }
        try lab.run(in: lab.node, ["nft", "flush", "ruleset"])
        try awaitUntil("both are bound after a flush", deadline()) {
            both.allSatisfy(try lab.attempt(in: lab.node, ["nft", "list", "ruleset"]).output.contains)
        }
        // One moves, one is bound no more.
        let moved = Self.state.replacing("\"interface\":\"vm2\"", with: "\"interface\":\"vm9\"")
            .replacing(",\"interface\":\"vm1\"", with: "")
        try reload(moved, revision: 3)
        try awaitUntil("the change is in the sets", deadline()) {
            let table = try table()
            let gone = ["fd10:1::2", "\"vm2\" ."]
            return table.contains("\"vm9\" . fd10:2::2") && !gone.contains(where: table.contains)
        }
    }

    @Test("R24: an instance that can't be read is said, by name, and the others are bound")
    func flawed() throws {
        let lab = try EgressLab()
        let node = try lab.startNode()
        let path = try lab.folder.write("bad.json", Self.state.replacing("\"vm1\"", with: "\"a/b\""))
        let answer = try lab.attemptRules(node.config, "--state", path, "--apply")
        #expect(answer.exit == .code(1) && answer.output.contains("instance \"i_alpha\", interface"), "\(answer)")
        let table = try lab.run(in: lab.node, ["nft", "list", "table", "inet", "pipelined"])
        #expect(table.contains("\"vm2\" . fd10:2::2") && !table.contains("fd10:1::2"), "\(table)")
        // What is no state at all changes nothing.
        try lab.folder.write("bad.json", "{")
        let none = try lab.attemptRules(node.config, "--state", path, "--apply")
        #expect(none.exit == .code(1))
        #expect(try lab.run(in: lab.node, ["nft", "list", "table", "inet", "pipelined"]) == table)
    }
}
