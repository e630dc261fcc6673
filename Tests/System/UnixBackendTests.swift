import Foundation
import TestSupport
import Testing

/// Unix sockets as backends, with HAProxy's `unix@` beside them.
@Suite("Backends at Unix sockets") struct UnixBackendTests {
    private let folder = try? TemporaryFolder()

    private func path(_ name: String) throws -> String { "\(try folder.unwrap("folder").path)/\(name).sock" }

    private func node(
        _ entry: Place, _ lines: [String], backend: String = "round_robin", settings: [String] = [],
        proxy: Bool = false, more: String = ""
    ) throws -> Node {
        var route = RouteText(id: "rt", port: entry.port, backends: [], more: lines)
        route.proxy = proxy
        return try Node(
            ConfigText(
                settings: settings, rawListeners: [entry], backend: backend, routes: [route], more: more
            ).description)
    }

    private func entry() throws -> Place { Place("::1", try FreePort.take()) }

    private func said(_ entry: Place) throws -> String {
        String(decoding: try Socket.connect(to: entry).receiveToEnd().bytes, as: UTF8.self)
    }

    @Test("R15: bytes pass unchanged both ways, copied and spliced, and FIN; the log names the path")
    func bytes() throws {
        let (entry, path) = (try entry(), try path("echo"))
        let server = try UnixServer.echo(path)
        let node = try node(entry, ["backend unix:\(path)"])
        for size in [1, 5000, 16 << 20] {
            let client = try Socket.connect(to: entry)
            let bytes = pattern(size)
            let sent = concurrently { try client.sendAndFinish(bytes) }
            let (got, ending) = try client.receiveToEnd()
            try sent.value()
            #expect(got == bytes && ending == .fin)
            let line = try node.log(of: try client.local)
            #expect(line.backend == "unix:\(path)")
            #expect(line.bytesToBackend == size && line.bytesToClient == size)
        }
        withExtendedLifetime(server) {}
    }

    @Test("the node's own admin socket is nobody's backend, by whatever path and link")
    func adminSocket() throws {
        let (entry, admin, link) = (try entry(), try path("admin"), try path("link"))
        let node = try node(entry, ["backend unix:\(link)"], settings: ["admin unix:\(admin)"])
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: admin)
        let client = try Socket.connect(to: entry)
        try? client.send("{\"command\":\"reload\",\"format\":\"text\"}\n")
        #expect(try client.receiveToEnd().bytes == [])
        #expect(try node.log(of: try client.local).reason == "backend.loop node")
        #expect(!node.child.lines.contains { $0.isEvent("reloaded") })
    }

    @Test("another node's admin socket is nobody's backend either, before and after it is renamed")
    func otherAdminSocket() throws {
        let (entry, admin, link) = (try entry(), try path("other"), try path("link"))
        let other = try Node(
            ConfigText(settings: ["admin unix:\(admin)"], rawListeners: [try self.entry()]).description)
        let node = try node(entry, ["backend unix:\(link)"])
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: admin)
        for isRenamed in [false, true] {
            if isRenamed {
                // It is who listens that counts, not the path.
                try FileManager.default.removeItem(atPath: link)
                try FileManager.default.moveItem(atPath: admin, toPath: link)
            }
            let client = try Socket.connect(to: entry)
            try? client.send("{\"command\":\"reload\",\"format\":\"text\"}\n")
            #expect(try client.receiveToEnd().bytes == [])
            #expect(try node.log(of: try client.local).reason == "backend.loop node")
        }
        #expect(!other.child.lines.contains { $0.isEvent("reloaded") })
    }

    @Test("paths of refused configs take nothing of what a process may have")
    func refusedPaths() throws {
        let (entry, path) = (try entry(), try path("last"))
        let server = try UnixServer.echo(path)
        func text(_ lines: [String], more: String = "") -> String {
            let route = RouteText(id: "rt", port: entry.port, backends: [], more: lines)
            return ConfigText(rawListeners: [entry], routes: [route], more: more).description
        }
        let node = try Node(text(["backend unix:/run/first.sock"]))
        for round in 0..<5 {
            let lines = (0..<900).map { "backend unix:/run/\(round)-\($0).sock" }
            #expect(try node.reload(text(lines, more: "nonsense line\n")).isEvent("reload_refused"))
        }
        #expect(try node.reload(text(["backend unix:\(path)"])).isEvent("reloaded"))
        let client = try Socket.connect(to: entry)
        try client.send("x")
        #expect(try client.receive(exactly: 1) == Array("x".utf8))
        withExtendedLifetime(server) {}
    }

    @Test("half-close both ways, and a slow reader of many bytes")
    func halfClose() throws {
        let (entry, path) = (try entry(), try path("manual"))
        let listener = try Socket.listen(path: path)
        let node = try node(entry, ["backend unix:\(path)"])
        let client = try Socket.connect(to: entry)
        let backend = try listener.accept()
        let bytes = pattern(8 << 20)
        let sent = concurrently {
            try backend.send(bytes)
            backend.finish()
        }
        #expect(try client.receiveToEnd().bytes == bytes)
        try sent.value()
        try client.send("still")
        #expect(try backend.receive(exactly: 5) == Array("still".utf8))
        client.finish()
        #expect(try backend.receiveToEnd().ending == .fin)
        let line = try node.log(of: try client.local)
        #expect(line.reason == "relay.closed upstream")
    }

    @Test("R15: a backend that dies with unread bytes resets its client; a client's reset is the stream's end there")
    func resets() throws {
        let (entry, path) = (try entry(), try path("manual"))
        let listener = try Socket.listen(path: path)
        let node = try node(entry, ["backend unix:\(path)"])
        let first = try Socket.connect(to: entry)
        try first.send("unread")
        do {
            let backend = try listener.accept()
            try backend.send("last words")
            #expect(backend.becomesReadable(Deadline()))
        }
        #expect(try first.receive(exactly: 10) == Array("last words".utf8))
        #expect(try first.receiveToEnd().ending == .reset)
        #expect(try node.log(of: try first.local).reason == "relay.reset upstream")
        let second = try Socket.connect(to: entry)
        let name = try second.local
        let backend = try listener.accept()
        second.reset()
        #expect(try backend.receiveToEnd().bytes.isEmpty)
        #expect(try node.log(of: name).reason == "relay.reset client")
    }

    @Test("nobody listens, no such file, a full queue: refused, the next one is tried, and an ejected one comes back")
    func refusals() throws {
        let entries = try (0..<3).map { _ in try entry() }
        let (missing, dead, full, good) = (try path("missing"), try path("dead"), try path("full"), try path("good"))
        let server = try UnixServer.saying("good", at: good)
        do { try UnixServer.saying("dead", at: dead).end() }
        let listener = try Socket.listen(path: full, backlog: 0)
        // The kernel takes one more than the backlog says.
        let waiting = try Socket.connect(path: full)
        #expect(throws: Failure.self) { try Socket.connect(path: full) }
        for (entry, bad) in zip(entries, [missing, dead, full]) {
            let admin = try path("admin-\(entry.port)")
            let node = try node(
                entry, ["backend unix:\(bad) unix:\(good)"], settings: ["admin unix:\(admin)"])
            for _ in 0..<4 { #expect(try said(entry) == "good") }
            let rows = try Admin.json(["backends"], admin)["backends"] as? [[String: Any]] ?? []
            let row = try rows.first { $0["address"] as? String == "unix:\(bad)" }.unwrap("row")
            #expect(row["failures"] as? Int ?? 0 > 0)
            withExtendedLifetime(node) {}
            let alone = try self.entry()
            let other = try self.node(alone, ["backend unix:\(bad)"])
            let client = try Socket.connect(to: alone)
            #expect(try client.receiveToEnd().ending == .reset)
            #expect(try other.log(of: try client.local).reason == "backend.refused upstream")
        }
        withExtendedLifetime((server, listener, waiting)) {}
    }

    @Test("a path that comes to be listened at is up by its probe, and down by it when it is not")
    func probes() throws {
        let (entry, admin) = (try entry(), try path("admin"))
        let (one, two) = (try path("one"), try path("two"))
        let spare = try UnixServer.saying("two", at: two)
        let node = try node(
            entry, ["backend unix:\(one)", "backend unix:\(two) backup"], backend: "round_robin, health fast",
            settings: ["admin unix:\(admin)"],
            more: "health fast {\n    probe tcp\n    port 1\n    interval 100ms\n    fall 2\n    rise 2\n}\n")
        try awaitUntil("the first is down") { try probe(of: one, admin) == "down" }
        #expect(try said(entry) == "two")
        let server = try UnixServer.saying("one", at: one)
        try awaitUntil("the first is up") { try probe(of: one, admin) == "up" }
        #expect(try said(entry) == "one")
        try server.end()
        try awaitUntil("the first is down again") { try probe(of: one, admin) == "down" }
        #expect(try said(entry) == "two")
        withExtendedLifetime((spare, node)) {}
    }

    private func probe(of path: String, _ admin: String) throws -> String? {
        let rows = try Admin.json(["backends"], admin)["backends"] as? [[String: Any]] ?? []
        return rows.first { $0["address"] as? String == "unix:\(path)" }?["probe"] as? String
    }

    @Test("R16: the PROXY header in front has the client's and the listener's addresses, as HAProxy's")
    func header() throws {
        let (mine, theirs) = (try entry(), try entry())
        let path = try path("header")
        let listener = try Socket.listen(path: path)
        var route = RouteText(id: "rt", port: mine.port, backends: [], more: ["backend unix:\(path)"])
        route.proxy = true
        let node = try Node(ConfigText(rawListeners: [mine], routes: [route]).description)
        let haproxy = try HAProxy(
            """
            defaults
                mode tcp
                timeout connect 1s
                timeout client 10s
                timeout server 10s
            listen web
                bind \(theirs)
                server one unix@\(path) send-proxy-v2

            """, ready: theirs)
        for entry in [mine, theirs] {
            let client = try Socket.connect(to: entry)
            try client.send("x")
            var backend = try listener.accept()
            // Signature, version 2 PROXY, INET6 STREAM, length; two addresses, two ports.
            var bytes = try backend.receive(exactly: 52)
            // Whoever asked whether the proxy listens had a connection too.
            while UInt16(bytes[48]) << 8 | UInt16(bytes[49]) != (try client.local.port) {
                backend = try listener.accept()
                bytes = try backend.receive(exactly: 52)
            }
            bytes += try backend.receive(exactly: 1)
            #expect(bytes[12...13] == [0x21, 0x21])
            #expect(bytes[16..<32] == bytes[32..<48] && bytes[31] == 1)
            let port = { (at: Int) in UInt16(bytes[at]) << 8 | UInt16(bytes[at + 1]) }
            #expect(port(48) == (try client.local.port) && port(50) == entry.port)
            #expect(bytes[52] == UInt8(ascii: "x"))
        }
        withExtendedLifetime((node, haproxy)) {}
    }

    @Test("R14: idle_timeout counts the bytes of both directions")
    func idle() throws {
        let (entry, path) = (try entry(), try path("idle"))
        let listener = try Socket.listen(path: path)
        let node = try node(entry, ["backend unix:\(path)"], backend: "round_robin, idle_timeout 1s")
        let quiet = try Socket.connect(to: entry)
        let quietBackend = try listener.accept()
        let busy = try Socket.connect(to: entry)
        let backend = try listener.accept()
        let ended = Flag()
        let ending = concurrently {
            defer { ended.set() }
            return try quiet.receiveToEnd().ending
        }
        // The backend speaks, and nobody answers.
        var pace = Pace(perSecond: 20)
        while !ended.isSet {
            try backend.send("x")
            _ = try busy.receive(exactly: 1)
            pace.wait()
        }
        #expect(try ending.value() == .reset)
        #expect(try node.log(of: try quiet.local).reason.hasPrefix("relay.idle"))
        try busy.send("y")
        #expect(try backend.receive(exactly: 1) == Array("y".utf8))
        #expect(try busy.receiveToEnd().ending == .reset)
        withExtendedLifetime(quietBackend) {}
    }
}
