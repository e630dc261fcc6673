import Foundation
import Testing

/// How a running node spreads connections (R11), and what it does at limits: by measurement, with servers of the test's own.
@Suite("Balancing by a running node")
struct BalanceTests {
    /// A server that says its name, or keeps connections open until it is told otherwise.
    private static func named(_ name: String) throws -> Server { try Server.saying(name) }

    private func node(_ entry: Place, _ lines: [String], workers: Int = 1) throws -> Node {
        let route = RouteText(host: "a.example.com", id: "rt_a", port: entry.port, backends: [], more: lines)
        return try Node(ConfigText(workers: workers, tlsListeners: [entry], routes: [route]).description)
    }

    private func open(_ entry: Place) throws -> Socket {
        let client = try Socket.connect(to: entry)
        try client.send(clientHello("a.example.com"))
        return client
    }

    private func ask(_ entry: Place) throws -> (answer: String, ending: Ending) {
        let client = try open(entry)
        let (bytes, ending) = try client.receiveToEnd()
        client.finish()
        return (String(decoding: bytes, as: UTF8.self), ending)
    }

    @Test("R11: weights are exact over all workers of a node")
    func weights() throws {
        let (heavy, light) = (try Self.named("heavy"), try Self.named("light"))
        let entry = Place("::1", try FreePort.take())
        let node = try node(
            entry, ["backend \(heavy.place) weight 3", "backend \(light.place)"], workers: 2)
        var counts: [String: Int] = [:]
        for _ in 0..<80 { counts[try ask(entry).answer, default: 0] += 1 }
        #expect(counts == ["heavy": 60, "light": 20])
        _ = node
    }

    /// A connection that is relayed to an echo, and stays.
    private func hold(_ entry: Place) throws -> Socket {
        let client = try open(entry)
        let hello = clientHello("a.example.com")
        #expect(try client.receive(exactly: hello.count) == hello)
        return client
    }

    @Test("R11: routes that name one `backends` block take turns together, and go on after a reload")
    func group() throws {
        let servers = try ["a", "b", "c"].map(Self.named)
        let entry = Place("::1", try FreePort.take())
        func text(_ count: Int) -> String {
            let routes = ["a", "b"].map {
                RouteText(
                    host: "\($0).example.com", id: "rt_\($0)", port: entry.port, backends: [], more: ["backends web"])
            }
            let group = servers.prefix(count).map { "    backend \($0.place)\n" }.joined()
            return ConfigText(tlsListeners: [entry], routes: routes, more: "backends web {\n\(group)}\n").description
        }
        let node = try Node(text(3))
        func answers(_ hosts: [String]) throws -> String {
            try hosts.map { host in
                let client = try Socket.connect(to: entry)
                try client.send(clientHello("\(host).example.com"))
                let (bytes, _) = try client.receiveToEnd()
                client.finish()
                return String(decoding: bytes, as: UTF8.self)
            }.joined()
        }
        // Each route of its own would say "aabbcc".
        #expect(try answers(["a", "b", "a", "b", "a"]) == "abcab")
        #expect(try node.reload(text(3)).isEvent("reloaded"))
        #expect(try answers(["b", "a"]) == "ca")
        // Of two, the eighth turn is the second's.
        #expect(try node.reload(text(2)).isEvent("reloaded"))
        #expect(try answers(["b", "a", "b"]) == "bab")
    }

    @Test("max_connections of a `backends` block: one limit for all its routes, named")
    func groupLimit() throws {
        let server = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let routes = ["a", "b"].map {
            RouteText(host: "\($0).example.com", id: "rt_\($0)", port: entry.port, backends: [], more: ["backends web"])
        }
        let group = "backends web {\n    backend \(server.place)\n    max_connections 2\n}\n"
        let node = try Node(ConfigText(workers: 2, tlsListeners: [entry], routes: routes, more: group).description)
        func hold(_ host: String) throws -> Socket {
            let client = try Socket.connect(to: entry)
            let hello = clientHello(host)
            try client.send(hello)
            #expect(try client.receive(exactly: hello.count) == hello)
            return client
        }
        let held = [try hold("a.example.com"), try hold("b.example.com")]
        let refused = try Socket.connect(to: entry)
        try refused.send(clientHello("b.example.com"))
        #expect(try refused.receiveToEnd().ending == .reset)
        #expect(try node.log("the refusal") { $0.reason == "backend.group_full client" }.route == "rt_b")
        let place = try held[0].local
        held[0].finish()
        _ = try held[0].receiveToEnd()
        _ = try node.log(of: place)
        _ = try hold("b.example.com")
    }

    @Test("max_connections of a route: the newest is refused and named, what runs goes on")
    func routeLimit() throws {
        let server = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, ["backend \(server.place)", "max_connections 2"], workers: 2)
        let held = [try hold(entry), try hold(entry)]
        for _ in 0..<3 {
            let refused = try ask(entry)
            #expect(refused.answer.isEmpty && refused.ending == .reset)
        }
        let line = try node.log("the refusal") { $0.reason == "backend.route_full client" }
        #expect(line.route == "rt_a")
        for client in held {
            try client.send("still here")
            #expect(try client.receive(exactly: 10) == Array("still here".utf8))
        }
    }

    @Test(
        "max_connections of a route: there is room again when one has ended")
    func roomAgain() throws {
        let server = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, ["backend \(server.place)", "max_connections 1"])
        for _ in 0..<5 {
            let client = try hold(entry)
            let place = try client.local
            client.finish()
            _ = try client.receiveToEnd()
            _ = try node.log(of: place)
        }
    }

    @Test(
        "R11: least connections sends a slow backend no more than it has answered")
    func leastConnections() throws {
        // The slow one never ends a connection; the fast one does at once.
        let (slow, fast) = (try Server.echo(), try Self.named("fast"))
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, ["balance least_connections", "backend \(slow.place) \(fast.place)"])
        var held: [Socket] = []
        var fasts = 0
        for _ in 0..<40 {
            let client = try open(entry)
            let place = try client.local
            guard case .bytes(let bytes) = try client.receive(atMost: 4) else { continue }
            if bytes == Array("fast".utf8) {
                fasts += 1
                client.finish()
                _ = try client.receiveToEnd()
                // Counted until it has ended.
                _ = try node.log(of: place)
            } else {
                held.append(client)
            }
        }
        #expect(held.count == 1 && fasts == 39, "the slow one has \(held.count), the fast one answered \(fasts)")
    }

    @Test("R11, R13: consistent hashing keeps a client at one backend, and goes on to another if that refuses")
    func consistentHash() throws {
        let (a, b) = (try Self.named("a"), try Self.named("b"))
        let dead = Place("::1", try FreePort.take())
        let entry = Place("::1", try FreePort.take())
        let node = try node(
            entry, ["balance consistent_hash", "backend \(a.place) \(b.place) \(dead)"], workers: 2)
        var answers: Set<String> = []
        for _ in 0..<20 { answers.insert(try ask(entry).answer) }
        #expect(answers.count == 1 && answers.isSubset(of: ["a", "b"]))
        _ = node
    }
}
