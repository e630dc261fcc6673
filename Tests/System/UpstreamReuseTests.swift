import TestSupport
import Testing

/// What the relay does to save work must not show: short connections one after the other, each with an end of its own,
/// with upstream sockets that are used again and without, with streams that gather and without.
@Suite("Upstream sockets that are used again, and streams that gather")
struct UpstreamReuseTests {
    enum End: CaseIterable { case clientReset, clientFin, backendReset, backendFin }

    static let settings = [
        ["spare_sockets 128 per worker", "coalesce 1ms"], ["spare_sockets 0 per worker", "coalesce 0s"],
        ["spare_sockets 1 per worker", "coalesce 100ms", "descriptors shared"],
    ]

    @Test(
        "R15: 400 short connections in a row, ended in four ways: bytes and ends are each connection's own",
        arguments: settings)
    func ends(settings: [String]) throws {
        let server = try ManualServer()
        let entry = Place("::1", try FreePort.take())
        let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])
        let node = try Node(ConfigText(settings: settings, rawListeners: [entry], routes: [route]).description)
        // A port that a reset has freed may be a later client's.
        var before: [Place: Int] = [:]
        for number in 0..<400 {
            let client = try Socket.connect(to: entry)
            let place = try client.local
            let request = Array("request \(number)".utf8)
            try client.send(request)
            let backend = try server.accept()
            #expect(try backend.receive(exactly: request.count) == request)
            let answer = Array("answer \(number)".utf8)
            try backend.send(answer)
            #expect(try client.receive(exactly: answer.count) == answer)
            let end = End.allCases[number % 4]
            let (seen, reason) = try finish(client, backend, end)
            #expect(seen.bytes.isEmpty)
            #expect(seen.ending == (end == .clientReset || end == .backendReset ? .reset : .fin), "\(number): \(end)")
            let line = try log(node, of: place, after: before[place, default: 0])
            before[place, default: 0] += 1
            #expect(line.reason == reason, "\(number)")
            #expect(line.bytesToBackend == request.count && line.bytesToClient == answer.count, "\(number)")
        }
    }

    /// The line of a client's connection that comes after `count` others from the same port.
    private func log(_ node: Node, of place: Place, after count: Int) throws -> LogLine {
        try node.child.wait("log line \(count + 1) of \(place)") { lines in
            let found = lines.compactMap { LogLine($0.text) }.filter { $0.client == place.description }
            return found.count > count ? found[count] : nil
        }
    }

    /// What the other side saw of the end, and the reason that the log should have.
    private func finish(_ client: Socket, _ backend: Socket, _ end: End) throws -> (
        (bytes: [UInt8], ending: Ending), String
    ) {
        switch end {
        case .clientReset:
            client.reset()
            return (try backend.receiveToEnd(), "relay.reset client")
        case .backendReset:
            backend.reset()
            return (try client.receiveToEnd(), "relay.reset upstream")
        case .clientFin:
            client.finish()
            let seen = try backend.receiveToEnd()
            backend.finish()
            _ = try client.receiveToEnd()
            return (seen, "relay.closed client")
        case .backendFin:
            backend.finish()
            let seen = try client.receiveToEnd()
            client.finish()
            _ = try backend.receiveToEnd()
            return (seen, "relay.closed upstream")
        }
    }

    @Test("a bulk stream that pauses is moved on to its last byte, without an end to push it", arguments: settings)
    func pauses(settings: [String]) throws {
        let pair = try RelayTests.Pair(settings: settings)
        for (from, to) in [(pair.client, pair.backend), (pair.backend, pair.client)] {
            for size in [8 << 20, 3_000_001, 1, 1 << 20, (1 << 20) + 1, 5 << 20] {
                let bytes = pattern(size)
                let sent = concurrently { try from.send(bytes) }
                #expect(try to.receive(exactly: size) == bytes)
                try sent.value()
            }
        }
    }

    /// A short connection that its client resets; how the node began it, once the backend has seen the end.
    private static func visit(_ entry: Place, _ server: ManualServer, _ number: Int) throws -> Syn {
        let client = try Socket.connect(to: entry)
        let request = Array("request \(number)".utf8)
        try client.send(request)
        let backend = try server.accept()
        let syn = try backend.syn
        _ = try backend.receive(exactly: request.count)
        client.reset()
        _ = try backend.receiveToEnd()
        return syn
    }

    @Test("S24: who knows one env's sequence numbers can't tell those of another's, nor of its own to another backend")
    func sequenceNumbers() throws {
        // Backends of the first env, of the second one, and of the first one's other route.
        let servers = try (0..<3).map { _ in try ManualServer(keepsSyns: true) }
        let entries = try (0..<3).map { _ in Place("::1", try FreePort.take()) }
        let routes = zip(entries, servers).enumerated().map { number, pair in
            RouteText(
                host: nil, id: "rt_\(number)", owner: number == 1 ? "acme/shop/test" : "acme/shop/prod",
                port: pair.0.port, backends: [pair.1.place])
        }
        let node = try Node(
            ConfigText(settings: ["spare_sockets 128 per worker"], rawListeners: entries, routes: routes).description)
        var seen: [(site: Int, syn: Syn)] = []
        for number in 0..<30 {
            seen.append((number % 3, try Self.visit(entries[number % 3], servers[number % 3], number)))
        }
        var again = 0
        for later in seen.indices {
            for earlier in max(0, later - 7)..<later where seen[earlier].syn.foretells(seen[later].syn) {
                #expect(seen[earlier].site == seen[later].site, "\(earlier) foretells \(later)")
                again += 1
            }
        }
        // Of each route the first one only is new.
        #expect(again >= 20, "sockets are used again")
        withExtendedLifetime(node) {}
    }

    @Test("S24: two envs that share a backend's address share no socket to it")
    func sharedAddress() throws {
        let server = try ManualServer(keepsSyns: true)
        let entries = try (0..<2).map { _ in Place("::1", try FreePort.take()) }
        let routes = entries.enumerated().map { number, entry in
            RouteText(host: nil, id: "rt_\(number)", port: entry.port, backends: [server.place])
        }
        let node = try Node(
            ConfigText(settings: ["spare_sockets 128 per worker"], rawListeners: entries, routes: routes).description)
        var last: [Int: Syn] = [:]
        for number in 0..<20 {
            let syn = try Self.visit(entries[number % 2], server, number)
            if let other = last[1 - number % 2] { #expect(!other.foretells(syn), "\(number)") }
            if let own = last[number % 2] { #expect(own.foretells(syn), "\(number)") }
            last[number % 2] = syn
        }
        withExtendedLifetime(node) {}
    }
}
