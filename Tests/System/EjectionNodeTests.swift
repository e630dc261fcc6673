import Testing

/// Nodes without a `health` block pass over backends that fail (R12), unless a block says otherwise.
@Suite("R12: passive ejection without being asked for")
struct EjectionNodeTests {
    private func node(_ entry: Place, _ backends: [Place], health: String = "") throws -> Node {
        let route = RouteText(id: "rt", port: entry.port, backends: backends)
        return try Node(
            ConfigText(
                settings: ["connect_timeout 200ms"], rawListeners: [entry],
                backend: health.isEmpty ? "round_robin" : "round_robin, health otherwise", routes: [route], more: health
            ).description)
    }

    private func ask(_ entry: Place, times: Int) throws -> [String] {
        try (0..<times).map { _ in
            let client = try Socket.connect(to: entry)
            return String(decoding: try client.receiveToEnd().bytes, as: UTF8.self)
        }
    }

    /// Who answered how often, and how many connections had to try twice.
    private func serve100(_ dead: Place, health: String = "") throws -> (answers: [String: Int], slow: Int) {
        let servers = try (0..<4).map { try Server.saying("\($0)") }
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [servers[0].place, dead] + servers[1...].map(\.place), health: health)
        let answers = try ask(entry, times: 100)
        let lines = try node.logs(100)
        return (
            Dictionary(answers.map { ($0, 1) }, uniquingKeysWith: +), lines.values.count { $0.attempts > 1 }
        )
    }

    @Test("R11, R13: a dead one of five is passed over after five clients, and its neighbour gets no more than others")
    func refusing() throws {
        let (answers, slow) = try serve100(Place("::1", try FreePort.take()))
        // Of 100: 25 each, and a few more or less for the five that went on to another.
        for name in ["0", "1", "2", "3"] { #expect((20...30).contains(answers[name] ?? 0), "\(answers)") }
        // A busy machine may come to the time at which it is tried again.
        #expect((5...7).contains(slow), "\(slow) had to try twice")
    }

    @Test("R13: one that does not answer at all costs five clients the connect timeout, and not every fifth for ever")
    func silent() throws {
        let full = try ManualServer(backlog: 0)
        let fillers = try full.fill()
        let (answers, slow) = try serve100(full.place)
        for name in ["0", "1", "2", "3"] { #expect((20...30).contains(answers[name] ?? 0), "\(answers)") }
        #expect((5...7).contains(slow) && !fillers.isEmpty, "\(slow) had to try twice")
    }

    @Test("a health block says otherwise, and even then the neighbour gets no more than others")
    func otherwise() throws {
        let health = "\nhealth otherwise {\n    probe  off\n    eject  off\n}\n"
        let (answers, slow) = try serve100(Place("::1", try FreePort.take()), health: health)
        for name in ["0", "1", "2", "3"] { #expect((20...30).contains(answers[name] ?? 0), "\(answers)") }
        #expect(slow >= 20, "\(slow) had to try twice")
    }

    @Test("R12: a route's only backend is never out: it is tried by every client, and serves as soon as it is there")
    func onlyOne() throws {
        let place = Place("::1", try FreePort.take())
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [place])
        #expect(try ask(entry, times: 20).allSatisfy(\.isEmpty))
        #expect(try node.logs(20).values.allSatisfy { $0.reason == "backend.refused upstream" && $0.attempts == 1 })
        let server = try Server("::1", port: place.port) { socket in
            try socket.send("back")
            socket.finish()
            _ = try socket.receiveToEnd()
        }
        #expect(try ask(entry, times: 3) == ["back", "back", "back"])
        #expect(server.place == place)
    }
}
