import Testing

/// Which backend is tried, and what happens if it can't be had (R10, R11, R13).
@Suite("Backends are tried in turn")
struct BackendTests {
    /// A port that refuses: nothing listens there.
    private static func refusing() throws -> Place { Place("::1", try FreePort.take()) }

    private func node(_ entry: Place, _ backends: [Place], settings: [String] = []) throws -> Node {
        let route = RouteText(host: "a.example.com", id: "rt_a", port: entry.port, backends: backends)
        return try Node(ConfigText(settings: settings, tlsListeners: [entry], routes: [route]).description)
    }

    private func ask(_ entry: Place) throws -> (from: Place, bytes: [UInt8], ending: Ending) {
        let client = try Socket.connect(to: entry)
        let place = try client.local
        try client.send(clientHello("a.example.com"))
        let (bytes, ending) = try client.receiveToEnd()
        client.finish()
        return (place, bytes, ending)
    }

    @Test("R13: a refused connect goes on to the next backend, and the client sees nothing of it")
    func triesNext() throws {
        let good = try Server.saying("good")
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [Self.refusing(), Self.refusing(), good.place])
        // A sixth would not try them: they are ejected by then.
        for _ in 0..<5 {
            let answer = try ask(entry)
            #expect(answer.bytes == Array("good".utf8))
            let line = try node.log(of: answer.from)
            #expect(line.backend == good.place.description)
            // Each retry takes a turn of its own: the next connection begins where this one ended.
            #expect(line.attempts == 3, "\(line)")
        }
    }

    @Test("R13: three backends are tried and no more; then the client gets a reset")
    func givesUpAfterThree() throws {
        let good = try Server.saying("good")
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [Self.refusing(), Self.refusing(), Self.refusing(), good.place])
        let answer = try ask(entry)
        #expect(answer.bytes == [] && answer.ending == .reset)
        let line = try node.log(of: answer.from)
        #expect(line.reason == "backend.refused upstream")
        #expect(line.attempts == 3)
        // The turn went on: the next one begins at the second.
        #expect(try ask(entry).bytes == Array("good".utf8))
    }

    @Test("R13: no backend that can be had is a reset, and named", arguments: [1, 2])
    func resetsWithoutBackend(count: Int) throws {
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, (0..<count).map { _ in try Self.refusing() })
        let answer = try ask(entry)
        #expect(answer.bytes == [] && answer.ending == .reset)
        let line = try node.log(of: answer.from)
        #expect(line.reason == "backend.refused upstream" && line.attempts == count)
    }

    @Test("R10, R13: a route whose instances are all not ready is a reset, and named")
    func resetsWithoutReadyInstance() throws {
        let folder = try TemporaryFolder()
        let entry = Place("::1", try FreePort.take())
        try folder.write("routes.json", StateText(port: entry.port, backendPort: 9, status: "draining").description)
        let node = try Node(
            ConfigText(tlsListeners: [entry], more: "routes file routes.json\n").description, folder: folder)
        let answer = try ask(entry)
        #expect(answer.bytes == [] && answer.ending == .reset)
        let line = try node.log(of: answer.from)
        #expect(line.reason == "backend.no_backend upstream" && line.route == "rt_state")
    }

    @Test("R13: a backend that does not answer is given up after connect_timeout, and the next is tried")
    func timesOut() throws {
        // A listener whose queue is full: the kernel drops the SYN, as an unreachable host would.
        let full = try ManualServer(backlog: 0)
        let fillers = try full.fill()
        let good = try Server.saying("good")
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [full.place, good.place], settings: ["connect_timeout 300ms"])
        let answer = try ask(entry)
        #expect(answer.bytes == Array("good".utf8))
        let line = try node.log(of: answer.from)
        #expect(line.attempts == 2 && line.backend == good.place.description)
        #expect(line.durationMilliseconds >= 300)
        #expect(!fillers.isEmpty)
    }

    @Test(
        "R13: retries and retry_within bound who else is tried",
        arguments: [
            ("round_robin", 2, "good"), ("round_robin, retries 1", 2, "good"), ("round_robin, retries off", 1, ""),
            ("round_robin, retry_within 100ms", 1, ""), ("round_robin, retry_within 10s", 2, "good"),
        ])
    func retries(backend: String, attempts: Int, said: String) throws {
        let full = try ManualServer(backlog: 0)
        let fillers = try full.fill()
        let good = try Server.saying("good")
        let entry = Place("::1", try FreePort.take())
        let route = RouteText(host: "a.example.com", id: "rt_a", port: entry.port, backends: [full.place, good.place])
        var config = ConfigText(settings: ["connect_timeout 300ms"], tlsListeners: [entry], routes: [route])
        config.backend = backend
        let node = try Node(config.description)
        let answer = try ask(entry)
        let line = try node.log(of: answer.from)
        #expect(answer.bytes == Array(said.utf8) && line.attempts == attempts, "\(line)")
        #expect(!said.isEmpty || line.reason == "backend.timeout upstream", "\(line)")
        #expect(!fillers.isEmpty)
    }

    @Test("R11: backends take turns, over several workers as well", arguments: [1, 2])
    func takesTurns(workers: Int) throws {
        let servers = try (0..<3).map { try Server.saying("\($0)") }
        let entry = Place("::1", try FreePort.take())
        let route = RouteText(host: "a.example.com", id: "rt_a", port: entry.port, backends: servers.map(\.place))
        let node = try Node(ConfigText(workers: workers, tlsListeners: [entry], routes: [route]).description)
        let answers = try (0..<9).map { _ in String(decoding: try ask(entry).bytes, as: UTF8.self) }
        #expect(answers.joined() == "012012012")
        _ = try node.logs(9)
    }

    @Test("R22: routes of a state file are served")
    func servesStateFile() throws {
        let good = try Server.saying("good")
        let folder = try TemporaryFolder()
        let entry = Place("::1", try FreePort.take())
        try folder.write(
            "routes.json", StateText(port: entry.port, backendPort: good.place.port, status: "ready").description)
        let node = try Node(
            ConfigText(tlsListeners: [entry], more: "routes file routes.json\n").description, folder: folder)
        let answer = try ask(entry)
        #expect(answer.bytes == Array("good".utf8))
        #expect(try node.log(of: answer.from).route == "rt_state")
    }
}

/// A state file with one route to one instance at `::1`.
struct StateText: CustomStringConvertible {
    let port: UInt16
    let backendPort: UInt16
    let status: String
    var format = "pipelined.state/1"
    var hostname = "\"a.example.com\""
    /// More objects of `routes`, each with a comma before it.
    var moreRoutes = ""

    var description: String {
        """
        { "format": "\(format)", "revision": 1, "actor": "test",
          "envs": [{ "env_id": "env_1", "app_id": "app", "org_id": "org", "ipv4_address": null }],
          "instances": [{ "instance_id": "i_1", "env_id": "env_1", "process_type": "web", "overlay_ipv6": "::1",
                          "node_id": "n_1", "status": "\(status)", "drain_grace_seconds": 10 }],
          "routes": [\(route("rt_state", hostname))\(moreRoutes)] }
        """
    }

    func route(_ id: String, _ hostname: String) -> String {
        """
        { "route_id": "\(id)", "env_id": "env_1", "hostname": \(hostname), "listen_port": \(port),
          "protocol_hint": "tls_passthrough", "backend_process_type": "web", "backend_port": \(backendPort) }
        """
    }
}
