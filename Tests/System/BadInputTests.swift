import Foundation
import TestSupport
import Testing

/// What stops a node from starting: said whole, with place and remedy, exit code 1, nothing started.
@Suite("Bad input starts nothing, and says why")
struct BadInputTests {
    /// The node's last words. Fails if it served.
    private func refusal(_ config: String, folder: TemporaryFolder? = nil) throws -> String {
        let folder = try folder ?? TemporaryFolder()
        let result = try Binary.run(["run", folder.write("node.pipeline", config)])
        #expect(result.exit == .code(1))
        #expect(result.out == "")
        #expect(!result.error.contains("\"event\":\"ready\""), "\(result.error)")
        let events = try result.error.split(separator: "\n").map { line in
            let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
            return try (object?["event"] as? String).unwrap("event: \(line)")
        }
        #expect(events.last == "not_started", "every line is JSON: \(result.error)")
        return result.error
    }

    private func config(_ entry: Place, more: String = "", routes: [RouteText]? = nil) -> String {
        let route = RouteText(host: "a.example.com", id: "rt_a", port: entry.port, backends: [Place("::1", 9)])
        return ConfigText(tlsListeners: [entry], routes: routes ?? [route], more: more).description
    }

    @Test("A port that is taken: which, by name, and what to do; the free one beside it is not served either")
    func portTaken() throws {
        let taken = try ManualServer()
        let free = Place("::1", try FreePort.take())
        let text = try refusal(
            ConfigText(
                tlsListeners: [free, taken.place],
                routes: [RouteText(host: "a.example.com", id: "rt_a", port: free.port, backends: [Place("::1", 9)])]
            ).description)
        #expect(text.contains(taken.place.description), "\(text)")
        #expect(text.contains("in use") || text.contains("taken"), "\(text)")
        #expect(throws: Failure.self) { try Socket.connect(to: free) }
    }

    @Test("Two nodes on one port: the second is refused, though listeners share ports among workers")
    func portTakenByAnotherNode() throws {
        let entry = Place("::1", try FreePort.take())
        let first = try Node(config(entry))
        let text = try refusal(config(entry))
        #expect(text.contains(entry.description), "\(text)")
        #expect(!first.child.hasEnded)
    }

    @Test("An address that this machine does not have", arguments: ["2001:db8::1", "192.0.2.1"])
    func addressAbsent(host: String) throws {
        let entry = Place(host, try FreePort.take())
        let text = try refusal(config(entry))
        #expect(text.contains(entry.description), "\(text)")
        #expect(text.contains("address"), "\(text)")
    }

    @Test("Every error of a config is reported in one go, with its line")
    func allConfigErrors() throws {
        let text = try refusal(
            """
            node edge {
                wrokers 2
            }
            pipeline tls {
                backend round_robin
                sni timeout 3 s
                proxy_v3
            }
            listen [::1]:70000 tls_passthrough via tls
            route a.example.com {
                id rt_a
            }
            """)
        for line in [2, 6, 7, 9, 10] {
            #expect(text.contains("node.pipeline\",\"line\":\(line),"), "line \(line) is missing:\n\(text)")
        }
        #expect(text.contains("workers") && text.contains("proxy_v2"), "no nearest names:\n\(text)")
    }

    @Test("A config that is not there, a folder, and one that is no text", arguments: ["absent", "folder", "binary"])
    func unreadableConfig(kind: String) throws {
        let folder = try TemporaryFolder()
        var path = "\(folder.path)/absent.pipeline"
        if kind == "folder" { path = folder.path }
        if kind == "binary" {
            path = Binary.path
        }
        let result = try Binary.run(["run", path])
        #expect(result.exit == .code(1))
        #expect(result.error.contains(path), "\(result.error.prefix(2000))")
    }

    @Test("R5: two routes that claim one name name both owners")
    func conflictingBlocks() throws {
        let entry = Place("::1", try FreePort.take())
        let routes = ["rt_first", "rt_second"].map {
            RouteText(host: "a.example.com", id: $0, port: entry.port, backends: [Place("::1", 9)])
        }
        let text = try refusal(config(entry, routes: routes))
        #expect(text.contains("acme/rt_first/prod") && text.contains("acme/rt_second/prod"), "\(text)")
    }

    @Test("R16: proxy_protocol without backend_expects_proxy_protocol is refused")
    func proxyWithoutExpectation() throws {
        let entry = Place("::1", try FreePort.take())
        let text = try refusal(
            config(entry).replacing(
                "    listen   \(entry.port)", with: "    listen   \(entry.port)\n    proxy_protocol v2"))
        #expect(text.contains("backend_expects_proxy_protocol"), "\(text)")
    }

    @Test(
        "A state file that can't be used as a whole: named, with the place",
        arguments: [
            ("", "routes.json"), ("{ \"format\": ", "routes.json"), ("[]", "object"),
            (
                "{ \"format\": \"pipelined.state/2\", \"envs\": [], \"instances\": [], \"routes\": [] }",
                "pipelined.state/2"
            ),
            ("{ \"envs\": [], \"instances\": [], \"routes\": [] }", "format"),
            ("{ \"format\": \"pipelined.state/1\", \"envs\": {}, \"instances\": [], \"routes\": [] }", "envs"),
            ("\u{0}\u{1}\u{2}", "routes.json"),
        ])
    func unusableState(state: String, names: String) throws {
        let folder = try TemporaryFolder()
        try folder.write("routes.json", state)
        let entry = Place("::1", try FreePort.take())
        let text = try refusal(config(entry, more: "routes file routes.json\n"), folder: folder)
        #expect(text.contains("routes.json") && text.contains(names), "\(text)")
    }

    @Test("A state file that is not there")
    func absentState() throws {
        let entry = Place("::1", try FreePort.take())
        let text = try refusal(config(entry, more: "routes file nowhere.json\n"))
        #expect(text.contains("nowhere.json"), "\(text)")
    }

    @Test(
        "R24: one bad object of a state file is left out with its reason, and the rest is served",
        arguments: [
            ("\"b..example\"", "hostname"), ("12", "hostname"), ("\"a.example.com\"", "rt_more"),
            ("\"192.0.2.1\"", "hostname"),
        ])
    func badObjectIsLeftOut(hostname: String, names: String) throws {
        let good = try Server.saying("good")
        let folder = try TemporaryFolder()
        let entry = Place("::1", try FreePort.take())
        var state = StateText(port: entry.port, backendPort: good.place.port, status: "ready")
        state.moreRoutes = ", " + state.route("rt_more", hostname)
        try folder.write("routes.json", state.description)
        let node = try Node(
            ConfigText(tlsListeners: [entry], more: "routes file routes.json\n").description, folder: folder)
        let said = node.child.output
        #expect(said.contains("rt_more") && said.contains(names), "\(said)")
        for line in node.child.lines { #expect(line.text.first == "{", "every line is JSON: \(line.text)") }
        let check = try Binary.run(["check", node.config])
        #expect(check.exit == .code(0) && check.out.contains("fine: ") && check.out.contains(", 1 objects left out"))
        let strict = try Binary.run(["check", "--strict", node.config])
        #expect(strict.exit == .code(1) && strict.out.contains("not fine: "), "\(strict)")
        let strictJSON = try Binary.run(["check", "--strict", "--json", node.config])
        #expect(strictJSON.exit == .code(1) && strictJSON.out.contains("left out"), "\(strictJSON)")
        let client = try Socket.connect(to: entry)
        try client.send(clientHello("a.example.com"))
        #expect(try client.receiveToEnd().bytes == Array("good".utf8))
    }
}
