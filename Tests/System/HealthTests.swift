import Foundation
import Glibc
import Testing

/// Probes find out which ready backends answer, and the node goes by it (R12, R13, R18).
@Suite("Health")
struct HealthTests {
    private static let health = """

        health web {
            probe     tcp
            interval  300ms jitter 10%
            timeout   200ms
            rise      3
            fall      2
        }

        """

    /// A node with one raw listener whose pipeline has a `health` block.
    private func node(_ entry: Place, _ backends: [Place], proxy: Bool = false) throws -> Node {
        let route = RouteText(id: "rt_web", port: entry.port, backends: backends, proxy: proxy)
        return try Node(
            ConfigText(
                settings: ["connect_timeout 300ms"], rawListeners: [entry], backend: "round_robin, health web",
                routes: [route], more: Self.health
            ).description)
    }

    private struct Said {
        let count: Int
        let text: String
        /// Wall clock.
        let time: Date
    }

    /// The `number`-th line (from 1) with this event about `place`.
    private func event(_ event: String, _ place: Place, _ number: Int = 1, of node: Node) throws -> Said {
        let line = try node.child.wait("\(event) of \(place)") { lines in
            let found = lines.filter { $0.isEvent(event) && $0.text.contains("\"backend\":\"\(place)\"") }
            return found.count >= number ? found[number - 1] : nil
        }
        let json = try (JSONSerialization.jsonObject(with: Data(line.text.utf8)) as? [String: Any]).unwrap("object")
        let format = Date.ISO8601FormatStyle(includingFractionalSeconds: true)
        let time = try format.parse((json["time"] as? String).unwrap("time"))
        return Said(count: json["probes"] as? Int ?? -1, text: line.text, time: time)
    }

    private func has(_ event: String, _ place: Place, _ number: Int, _ node: Node) -> Bool {
        node.child.lines.count { $0.isEvent(event) && $0.text.contains("\"backend\":\"\(place)\"") } >= number
    }

    /// Which backend answered a client.
    private func ask(_ entry: Place) throws -> String {
        let client = try Socket.connect(to: entry)
        try client.send("GET / HTTP/1.0\r\n\r\n")
        let (bytes, ending) = try client.receiveToEnd()
        guard ending == .fin, let body = String(decoding: bytes, as: UTF8.self).components(separatedBy: "\r\n\r\n").last
        else { throw Failure("a client saw \(ending) after \(bytes.count) bytes") }
        return body
    }

    /// Clients come until the node has said so; each is served. Then, by whom six more are.
    private func serve(_ entry: Place, until event: String, of place: Place, _ number: Int, _ node: Node) throws -> Set<
        String
    > {
        let deadline = Deadline()
        repeat { _ = try ask(entry) } while !has(event, place, number, node) && !deadline.hasPassed
        return Set(try (0..<6).map { _ in try ask(entry) })
    }

    private static func nginx(_ name: String, _ place: Place, in namespace: Namespace) throws -> Nginx {
        try Nginx(
            seen: "$request", http: "server { listen \(place); location / { return 200 \(name); } }",
            in: namespace.name, ready: place)
    }

    /// R12: no later than the last good probe of `rise` can be, jitter and timeout included; what a busy machine takes
    /// to run the threads comes on top.
    private static let latest: TimeInterval = 3 * 0.300 * 1.1 + 0.200 + 2

    @Test(
        "R12, R13: one killed, one blackholed, one reset: clients see nothing while one is good, and each is back in time",
        .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
    func killedBlackholedReset() throws {
        let namespace = try Namespace()
        let places = try (0..<3).map { _ in Place(namespace.host, try FreePort.take()) }
        var servers = try zip(["one", "two", "three"], places).map { try Self.nginx($0, $1, in: namespace) }
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, places)
        #expect(Set(try (0..<6).map { _ in try ask(entry) }) == ["one", "two", "three"])
        try namespace.nft("add table inet t; add chain inet t c { type filter hook input priority 0; }")

        // Killed.
        servers[0].child.signal(SIGKILL)
        try servers[0].child.waitForExit()
        #expect(try serve(entry, until: "backend_down", of: places[0], 1, node) == ["two", "three"])
        #expect(try event("backend_down", places[0], of: node).text.contains("\"reason\":\"refused\",\"probes\":2"))

        // Blackholed, while the first is still gone.
        try namespace.nft("add rule inet t c tcp dport \(places[1].port) drop")
        #expect(try serve(entry, until: "backend_down", of: places[1], 1, node) == ["three"])
        #expect(try event("backend_down", places[1], of: node).text.contains("\"reason\":\"timeout\",\"probes\":2"))

        // The first comes back.
        servers[0] = try Self.nginx("one", places[0], in: namespace)
        var recovered = Date()
        #expect(try serve(entry, until: "backend_up", of: places[0], 1, node) == ["one", "three"])
        try expectInTime(event("backend_up", places[0], of: node), recovered)

        // The third resets every connection; the second is still dark.
        try namespace.nft("add rule inet t c tcp dport \(places[2].port) reject with tcp reset")
        #expect(try serve(entry, until: "backend_down", of: places[2], 1, node) == ["one"])
        #expect(try event("backend_down", places[2], of: node).text.contains("\"reason\":\"refused\",\"probes\":2"))

        // Both come back.
        recovered = Date()
        try namespace.nft("flush chain inet t c")
        _ = try serve(entry, until: "backend_up", of: places[1], 1, node)
        let all = try serve(entry, until: "backend_up", of: places[2], 1, node)
        #expect(all == ["one", "two", "three"])
        for place in places[1...] { try expectInTime(event("backend_up", place, of: node), recovered) }

        // Nobody saw anything of it.
        node.child.signal(SIGTERM)
        try node.child.waitForExit()
        let lines = node.child.lines.filter { $0.stream == .out }.compactMap { LogLine($0.text) }
        #expect(lines.count > 30)
        for line in lines { #expect(line.bytesToClient > 0, "\(line)") }
    }

    private func expectInTime(_ up: Said, _ recovered: Date) {
        #expect(up.count == 3, "\(up.text)")
        #expect(up.time.timeIntervalSince(recovered) <= Self.latest, "\(up.text)")
    }

    @Test("R12: all out means a reset at once, and nobody waits for a connect timeout")
    func failsFast() throws {
        let gone = Place("::1", try FreePort.take())
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [gone])
        _ = try event("backend_down", gone, of: node)
        let client = try Socket.connect(to: entry)
        let from = try client.local
        #expect(try client.receiveToEnd().ending == .reset)
        let line = try node.log(of: from)
        #expect(line.reason.hasPrefix("backend.") && line.attempts == 0, "\(line)")
    }

    // MARK: PROXY headers that are not understood

    @Test("R18: a plain nginx behind a v2 route is proxy_rejected before the first client, and not down")
    func nginxRejects() throws {
        let place = Place("::1", try FreePort.take())
        let nginx = try Nginx(
            seen: "$request", http: "server { listen \(place); location / { return 200 plain; } }", ready: place)
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [place], proxy: true)
        let said = try event("backend_proxy_rejected", place, of: node)
        #expect(said.text.contains("\"routes\":[\"rt_web\"]") && said.text.contains("\"probe\":\"good\""))
        #expect(node.child.lines.allSatisfy { $0.stream == .error && !$0.isEvent("backend_down") })
        #expect(!nginx.child.hasEnded)
    }

    @Test("R18: an nginx that expects the header takes the probe's")
    func nginxAccepts() throws {
        let place = Place("::1", try FreePort.take())
        let start = {
            try Nginx(
                seen: "$request",
                http: "server { listen \(place) proxy_protocol; location / { return 200 $proxy_protocol_addr; } }",
                ready: place)
        }
        var nginx = try start()
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [place], proxy: true)
        nginx.child.signal(SIGKILL)
        _ = try event("backend_down", place, of: node)
        nginx = try start()
        // Three good probes, each of which waited for an answer to its header.
        _ = try event("backend_up", place, of: node)
        #expect(try ask(entry) == "::1")
        #expect(!node.child.lines.contains { $0.isEvent("backend_proxy_rejected") })
        #expect(!nginx.child.hasEnded)
    }

    @Test("R18: an SMTP-like server that greets, complains and says goodbye is proxy_rejected before the first client")
    func smtpRejects() throws {
        let server = try Server { socket in
            try socket.send("220 mail.example.com ESMTP\r\n")
            var text = ""
            while case .bytes(let chunk) = try socket.receive() {
                text += String(decoding: chunk, as: UTF8.self)
                while let end = text.firstIndex(of: "\n") ?? text.firstIndex(of: "\r\n") {
                    let line = text[..<end].trimmingCharacters(in: .whitespacesAndNewlines)
                    text.removeSubrange(...end)
                    if line == "QUIT" {
                        try socket.send("221 bye\r\n")
                        return socket.finish()
                    }
                    try socket.send("500 command not recognized\r\n")
                }
            }
        }
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [server.place], proxy: true)
        let said = try event("backend_proxy_rejected", server.place, of: node)
        #expect(said.text.contains("\"probe\":\"good\""))
        #expect(node.child.lines.allSatisfy { $0.stream == .error })
    }
}
