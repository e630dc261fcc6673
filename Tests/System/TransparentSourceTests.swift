import Foundation
import TestSupport
import Testing

/// `source client`: the backend sees the client's own address. Client, node and server are hosts of their own; the routes and
/// rules are those of docs/filters/backend.md. HAProxy's `usesrc clientip` runs on the same host, by the same rules.
@Suite(
    "Source client: backends see the client's own address",
    .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct TransparentSourceTests {
    private static let v6 = Place("fd10:1::1", 9000)
    private static let v4 = Place("10.81.1.1", 9000)

    /// The block of commands in docs/filters/backend.md under this heading.
    private static func commands(under heading: String) throws -> String {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let page = try String(contentsOf: root.appendingPathComponent("docs/filters/backend.md"), encoding: .utf8)
        let section = try page.components(separatedBy: "\n## ").first { $0.hasPrefix(heading) }.unwrap(heading)
        let parts = section.components(separatedBy: "```sh\n")
        return try parts.dropFirst().first?.components(separatedBy: "\n```").first.unwrap("block of commands") ?? ""
    }

    private static func config(
        backends: [Place] = [EgressLab.v6, EgressLab.v4], stages: [String] = [], source: String = "client",
        timeout: String = "2s"
    ) -> String {
        let route = RouteText(id: "rt", port: 9000, backends: backends, more: ["source \(source)"])
        var config = ConfigText(settings: ["connect_timeout \(timeout)"], firstStages: stages, routes: [route])
        config.rawListeners = [Place("::", 9000), Place("0.0.0.0", 9000)]
        return config.description
    }

    private static func start(_ config: String, _ lab: EgressLab) throws -> Node {
        try Node(config, folder: lab.folder, in: lab.node)
    }

    @Test("IPv6 and IPv4: the server sees the client, as behind HAProxy's `usesrc clientip`, by the rules of the docs")
    func both() throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        try lab.run(in: lab.node, ["sh", "-ec", try Self.commands(under: "The client's own address")])
        let node = try Self.start(Self.config(), lab)
        #expect(try lab.curl(lab.alpha, Self.v6).output == "seen fd10:1::2")
        #expect(try lab.curl(lab.alpha, Self.v4).output == "seen 10.81.1.2")
        #expect(try lab.curl(lab.beta, Place("fd10:2::1", 9000)).output == "seen fd10:2::2")
        let file = try lab.folder.write(
            "haproxy.cfg",
            """
            defaults
                mode tcp
                timeout connect 5s
                timeout client 30s
                timeout server 30s
            listen raw
                bind :::9001
                server s \(EgressLab.v6) source 0.0.0.0 usesrc clientip

            """)
        let peer = try Child("ip", ["netns", "exec", lab.node, "haproxy", "-db", "-f", file])
        try awaitUntil("HAProxy serves") {
            guard !peer.hasEnded else { throw Failure("haproxy:\n\(peer.output)") }
            return try lab.curl(lab.alpha, Place("fd10:1::1", 9001)).output == "seen fd10:1::2"
        }
        withExtendedLifetime((server, node, peer)) {}
    }

    @Test("behind a PROXY header the backend sees the client that it names, by v1 and v2, IPv4 and IPv6")
    func believed() throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        try lab.run(in: lab.node, ["sh", "-ec", try Self.commands(under: "The client's own address")])
        let stages = ["anti_spoof accept from fd10:1::/64, refuse others, timeout 60s"]
        let node = try Self.start(Self.config(stages: stages), lab)
        let v2 = try bytes(hex: "0d0a0d0a000d0a515549540a2111000ccb007109c000020204d201bb").unwrap("header")
        for (header, seen) in [
            (Array("PROXY TCP6 2001:db8:77::7 2001:db8::1 1234 443\r\n".utf8), "2001:db8:77::7"),
            (Array("PROXY TCP4 203.0.113.9 192.0.2.2 1234 443\r\n".utf8), "203.0.113.9"), (v2, "203.0.113.9"),
        ] {
            let answer = try lab.inside(lab.alpha) {
                let client = try Socket.connect(to: Self.v6)
                try client.send(header)
                try client.send("GET / HTTP/1.0\r\n\r\n")
                return String(decoding: try client.receiveToEnd().bytes, as: UTF8.self)
            }
            #expect(answer.contains("seen \(seen)"), "\(answer)")
        }
        withExtendedLifetime((server, node)) {}
    }

    @Test("without the rules connects time out; a firewall that lets in only what belongs to connections takes no more")
    func rules() throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try Self.start(Self.config(timeout: "500ms"), lab)
        #expect(try lab.curl(lab.alpha, Self.v6).exit != .code(0))
        #expect(try node.log("the timeout", where: { _ in true }).reason == "backend.timeout upstream")
        try lab.run(in: lab.node, ["sh", "-ec", try Self.commands(under: "The client's own address")])
        let firewall = """
            table inet firewall {
                chain input { type filter hook input priority filter; policy drop;
                    ct state established,related accept
                    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
                    tcp dport 9000 accept
                }
            }
            """
        try lab.run(in: lab.node, ["nft", firewall])
        #expect(try lab.curl(lab.alpha, Self.v6).output == "seen fd10:1::2")
        #expect(try lab.curl(lab.alpha, Self.v4).output == "seen 10.81.1.2")
        withExtendedLifetime(server) {}
    }

    @Test("path MTU: 2 MB each way pass a link of smaller packets, though ICMP speaks to the client's address")
    func narrowLink() throws {
        let lab = try EgressLab()
        try lab.insertNarrowLink(mtu: 1300)
        let servers = try lab.inside(lab.server) {
            try [EgressLab.v6.host, EgressLab.v4.host].map { host in
                try Server(host, port: 8091) { socket in
                    let received = try socket.receiveToEnd()
                    try socket.send("\(try socket.peer.host)\n")
                    try socket.send(received.bytes.reversed())
                    socket.finish()
                }
            }
        }
        try lab.run(in: lab.node, ["sh", "-ec", try Self.commands(under: "The client's own address")])
        // The new routers' own addresses are checked for duplicates first, which takes seconds.
        let text = Self.config(backends: servers.map(\.place), timeout: "30s")
        let node = try Self.start(text, lab)
        let sent = pattern(2_000_000)
        for (entry, client) in [(Self.v6, "fd10:1::2"), (Self.v4, "10.81.1.2")] {
            let answer = try lab.inside(lab.alpha) {
                let client = try Socket.connect(to: entry)
                try client.send(sent)
                client.finish()
                return try client.receiveToEnd()
            }
            #expect(answer.bytes.elementsEqual("\(client)\n".utf8 + sent.reversed()), "\(answer.bytes.count) bytes")
        }
        withExtendedLifetime(node) {}
    }

    @Test("a client whose family no backend has ends as backend.source_family; no backend is tried")
    func family() throws {
        let lab = try EgressLab()
        let node = try Self.start(Self.config(backends: [EgressLab.v6]), lab)
        let ending = try lab.inside(lab.alpha) {
            let client = try Socket.connect(to: Self.v4)
            return try client.receiveToEnd().ending
        }
        #expect(ending == .reset)
        let line = try node.log("the refusal") { $0.reason == "backend.source_family node" }
        #expect(line.attempts == 0 && line.backend == nil, "\(line)")
    }

    @Test("R13: an address of either family that goes is missed, and serves again when it is back")
    func goes() throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try Self.start(Self.config(source: "198.51.100.7 2001:db8:9::7"), lab)
        for (entry, address, length) in [(Self.v6, "2001:db8:9::7", 64), (Self.v4, "198.51.100.7", 24)] {
            // Backends of both families take turns: of the one that is missed here, only that address is on the host.
            let others = address.contains(":") ? "198.51.100.7/24" : "2001:db8:9::7/64"
            let nodad = { (text: String) in text.contains(":") ? ["nodad"] : [] }
            try lab.run(in: lab.node, ["ip", "addr", "replace", others, "dev", "up0"] + nodad(others))
            for _ in 0..<2 {
                try lab.run(
                    in: lab.node, ["ip", "addr", "replace", "\(address)/\(length)", "dev", "up0"] + nodad(address))
                let seen = Set(try (0..<4).map { _ in try lab.curl(lab.alpha, entry).output })
                #expect(seen == ["seen 198.51.100.7", "seen 2001:db8:9::7"])
                try lab.run(in: lab.node, ["ip", "addr", "del", "\(address)/\(length)", "dev", "up0"])
                // No connect fails for it: the backend of the other family is tried.
                let rest = Set(try (0..<4).map { _ in try lab.curl(lab.alpha, entry).output })
                #expect(rest == ["seen \(others.prefix { $0 != "/" })"])
            }
        }
        #expect(!node.child.lines.contains { $0.stream == .out && $0.text.contains("backend.timeout") })
        withExtendedLifetime(server) {}
    }

    @Test("S24: sockets from clients' addresses are not used again")
    func reuse() throws {
        let lab = try EgressLab()
        try lab.run(in: lab.node, ["sh", "-ec", try Self.commands(under: "The client's own address")])
        let server = try lab.inside(lab.server) { try ManualServer("2001:db8:9::2", keepsSyns: true) }
        let node = try Self.start(Self.config(backends: [server.place]), lab)
        var syns: [Syn] = []
        for number in 0..<8 {
            let client = try lab.inside(number % 2 == 0 ? lab.alpha : lab.beta) {
                let client = try Socket.connect(to: Place(number % 2 == 0 ? "fd10:1::1" : "fd10:2::1", 9000))
                try client.send("request")
                return client
            }
            let backend = try server.accept()
            #expect(try backend.peer.host == (number % 2 == 0 ? "fd10:1::2" : "fd10:2::2"))
            let syn = try backend.syn
            for earlier in syns { #expect(!earlier.foretells(syn), "\(number)") }
            syns.append(syn)
            _ = try backend.receive(exactly: 7)
            client.reset()
            _ = try backend.receiveToEnd()
        }
        withExtendedLifetime(node) {}
    }

    @Test("without permission neither a start nor a reload takes it, and both say what is missing")
    func permission() throws {
        let lab = try EgressLab()
        let unprivileged = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"]
        let file = try lab.folder.write("client.pipeline", Self.config())
        let run = try lab.attempt(in: lab.node, unprivileged + [Binary.path, "run", file])
        #expect(run.exit == .code(1))
        #expect(run.output.contains("can't connect from clients' addresses (`source client`"), "\(run.output)")
        #expect(run.output.contains("CAP_NET_ADMIN"), "\(run.output)")
        let plain = try lab.folder.write("node.pipeline", Self.config(source: "off"))
        let child = try Child("ip", ["netns", "exec", lab.node] + unprivileged + [Binary.path, "run", plain])
        _ = try child.wait("that it is ready") { lines in lines.first { $0.isEvent("ready") } }
        try Self.config().write(toFile: plain, atomically: true, encoding: .utf8)
        child.signal(SIGHUP)
        let refusal = try child.wait("the reload's end") { lines in lines.first { $0.isEvent("reload_refused") } }
        #expect(refusal.text.contains("CAP_NET_ADMIN"), "\(refusal.text)")
    }
}
