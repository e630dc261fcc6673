import Pipeline
import PipelineHost
import PipelineLanguage
import PipelineNode
import PipelineRouting
import TestSupport
import Testing

@Suite("Loading a config: its routes, its state file, and what is wrong with them")
struct LoaderTests {
    @Test("a config with blocks and a state file gives one table and every listener that raw routes ask for")
    func whole() throws {
        let config =
            Fixture.pipelines + "routes file state.json\n" + Fixture.route("app.example.com", id: "rt_web")
            + Fixture.route(nil, id: "rt_db", port: 5432) + Fixture.route(nil, id: "rt_x", port: 10005)
        let state = Fixture.state(
            [
                Fixture.stateRoute("rt_s", "blog.example.com", env: "env_b"),
                Fixture.stateRoute("rt_p", nil, port: 10001),
            ]
            .joined(separator: ",\n"))
        let loaded = Fixture.load(config, state: state)
        #expect(loaded.summary == [])
        let node = try #require(loaded.node)
        #expect(node.routes.routeCount == 5)
        #expect(node.revision == 42)
        #expect(
            node.listeners.map(\.endpoint.description) == [
                "[::]:443", "0.0.0.0:443", "[::]:5432", "[::]:10001", "[::]:10005",
            ])
        #expect(node.listeners.last?.hint == .tcpRaw)
    }

    @Test("R5: two blocks that claim one name are an error at both names")
    func conflictInBlocks() {
        let config =
            Fixture.pipelines + Fixture.route("app.example.com", id: "rt_1")
            + Fixture.route("APP.example.com.", id: "rt_2", owner: "evil/shop/prod")
        let loaded = Fixture.load(config)
        #expect(loaded.node == nil)
        #expect(loaded.underlined == ["app.example.com", "APP.example.com."])
        let message = loaded.summary.first ?? ""
        #expect(
            message.contains("acme/shop/prod") && message.contains("evil/shop/prod") && message.contains("rt_2"),
            "\(message)")
    }

    @Test(
        "a block's bad field is an error where it stands",
        arguments: [
            ("192.0.2.1", "", "192.0.2.1"), ("a..example.com", "", "a..example.com"),
            ("app.example.com", "proxy_protocol v2", "v2"),
            ("app.example.com", "backend_expects_proxy_protocol true", "true"),
        ])
    func badBlock(_ host: String, _ more: String, _ underlined: String) {
        let loaded = Fixture.load(Fixture.pipelines + Fixture.route(host, id: "rt_1", more: more))
        #expect(loaded.node == nil)
        #expect(loaded.hasErrors)
        #expect(loaded.underlined == [underlined])
        #expect(loaded.diagnostics.allSatisfy { !$0.help.isEmpty })
    }

    @Test("errors of the language, of route blocks and of the state file are all said at once")
    func allAtOnce() {
        let config =
            Fixture.pipelines + "listen nowhere tls_passthrough via tls\nroutes file state.json\n"
            + Fixture.route("app.example.com", id: "rt_1") + Fixture.route("a..b", id: "rt_2")
            + Fixture.route("app.example.com", id: "rt_3", owner: "evil/shop/prod")
            + Fixture.route("x.example.com", id: "rt_4", port: 70000)
        let loaded = Fixture.load(config, state: "{")
        #expect(loaded.underlined == ["nowhere", "state.json", "app.example.com", "a..b", "app.example.com", "70000"])
        #expect(loaded.summary.allSatisfy { $0.contains(" error: ") })
        #expect(loaded.node == nil)
    }

    @Test("a state file that is not there is an error at the line that names it, and says which path was tried")
    func missingState() {
        let loaded = Fixture.load(Fixture.pipelines + "routes file state.json\n")
        #expect(loaded.node == nil)
        #expect(loaded.underlined == ["state.json"])
        #expect(loaded.summary.first?.contains("conf/state.json") == true, "\(loaded.summary)")
    }

    @Test(
        "a state file that can't be used as a whole is an error, with its place",
        arguments: [
            ("not json", "1:1"), ("{\"format\": \"pipelined.state/1\"", "conf/state.json:1"),
            (
                "{\"format\": \"pipelined.state/2\", \"envs\": [], \"instances\": [], \"routes\": []}",
                "pipelined.state/2"
            ),
            ("{\"format\": \"pipelined.state/1\", \"envs\": {}, \"instances\": [], \"routes\": []}", "envs"),
            ("", "1:1"),
        ])
    func unusableState(_ state: String, _ mentions: String) {
        let loaded = Fixture.load(Fixture.pipelines + "routes file state.json\n", state: state)
        #expect(loaded.node == nil)
        #expect(loaded.hasErrors)
        #expect(loaded.summary.joined().contains(mentions), "\(loaded.summary)")
        #expect(loaded.underlined.allSatisfy { $0 == "state.json" })
    }

    @Test("R24: one bad object of the state file is a warning with its line, and the rest runs")
    func quarantined() throws {
        let routes = [
            Fixture.stateRoute("rt_1", "one.example.com"),
            Fixture.stateRoute("rt_2", "two..example.com"),
            Fixture.stateRoute("rt_3", "one.example.com", env: "env_b"),
            Fixture.stateRoute("rt_1", "four.example.com"),
            Fixture.stateRoute("rt_4", "fine.example.com"),
            "{\"route_id\": 5}",
        ]
        let state = Fixture.state(routes.joined(separator: ",\n"))
        let loaded = Fixture.load(Fixture.pipelines + "routes file state.json\n", state: state)
        let node = try #require(loaded.node)
        // Whose one.example.com is nothing says, and rt_1 is there twice.
        #expect(node.routes.listing().map(\.id) == ["rt_4"])
        #expect(!loaded.hasErrors)
        let text = loaded.summary.joined(separator: "\n")
        #expect(text.contains("conf/state.json:11:"), "the bad name's line: \(text)")
        for id in ["rt_2", "rt_3"] { #expect(text.contains(id), "\(text)") }
        #expect(loaded.summary.allSatisfy { $0.contains(" warning: ") })
    }

    @Test("R5: a block and the state file that claim one name are both left out; an entry of hostnames decides")
    func sourcesClash() throws {
        let config =
            Fixture.pipelines + "routes file state.json\n" + Fixture.route("app.example.com", id: "rt_mine")
        let state = Fixture.state(Fixture.stateRoute("rt_theirs", "app.example.com", env: "env_b"))
        let loaded = Fixture.load(config, state: state)
        #expect(try #require(loaded.node).routes.routeCount == 0)
        let text = loaded.summary.joined(separator: "\n")
        #expect(text.contains("left out: route \"rt_mine\"") && text.contains("left out: route rt_theirs"), "\(text)")
        for (env, id) in [("acme/shop/prod", "rt_mine"), ("env_b", "rt_theirs")] {
            let entry = "\"hostnames\": [{\"hostname\": \"app.example.com\", \"env_id\": \"\(env)\", \"claimed\": 3}],"
            let decided = Fixture.load(config, state: state.replacing("\"routes\":", with: entry + "\"routes\":"))
            #expect(try #require(decided.node).routes.listing().map(\.id) == [id])
        }
    }

    @Test("R27: many problems of a state file are shown up to a limit, and the number of the rest")
    func manyProblems() {
        let routes = (0..<300).map { Fixture.stateRoute("rt_\($0)", "bad..example") }
        let loaded = Fixture.load(
            Fixture.pipelines + "routes file state.json\n", state: Fixture.state(routes.joined(separator: ",\n")))
        #expect(loaded.diagnostics.count == 101)
        #expect(loaded.summary.last?.contains("200 more") == true)
    }

    @Test("an exposed port that a listen line has is opened once, and only exposed ports are opened for raw routes")
    func plan() throws {
        let config = Fixture.pipelines + Fixture.route(nil, id: "rt_1", port: 10000)
        let node = try #require(Fixture.load(config).node)
        let plan = ListenerPlan.listeners(
            node.program, RequestedPorts(byHint: [.tcpRaw: [443, 5432, 10000, 10000, 10011]]))
        #expect(plan.map(\.endpoint.description) == ["[::]:443", "0.0.0.0:443", "[::]:5432", "[::]:10000"])
    }

    @Test("an exposed port that a `listen` line may have connections of is not opened again, whatever the interfaces")
    func exposedInterfaces() throws {
        let listens = ["[::]:5000", "[::]:5001", "[::]:5002"]
        let lines = zip(listens, ["", " interface eth0", " interface eth0"]).map {
            "listen \($0) tcp_raw via raw\($1)\n"
        }
        let exposes = "expose [::] ports 5000-5001 via raw\nexpose [::] ports 5002 via raw interface eth1\n"
        let node = try #require(Fixture.load(Fixture.pipelines + lines.joined() + exposes).node)
        let plan = ListenerPlan.listeners(node.program, RequestedPorts(byHint: [.tcpRaw: [5000, 5001, 5002]]))
        let shown = plan.filter { $0.endpoint.port >= 5000 && $0.endpoint.port <= 5002 }.map {
            "\($0.endpoint) \($0.spec.options.interface ?? "any")"
        }
        #expect(shown == ["[::]:5000 any", "[::]:5001 eth0", "[::]:5002 eth0", "[::]:5002 eth1"])
    }

    @Test("what is wrong with every port of a range is said once, with the number of the others")
    func rangeProblems() throws {
        let block = "    id       rt\n    owner    a/b/c\n    listen   40000-40100\n    backend  [fd00::1]:1\n}\n"
        let loaded = Fixture.load(Fixture.pipelines + "route {\n" + block)
        #expect(loaded.underlined == ["40000-40100", "40000-40100"])
        #expect(loaded.summary.first?.contains("40000 has no listener") == true, "\(loaded.summary)")
        #expect(
            loaded.summary.last?.contains("100 more ports of this range are like that") == true, "\(loaded.summary)")
        #expect(loaded.node?.routes.routeCount == 101)
        let denied = Fixture.load(Fixture.pipelines + "route {\n" + block.replacing("40000-40100", with: "130-140"))
        #expect(denied.node == nil)
        #expect(denied.summary.contains { $0.contains("137 is in denied_ports") }, "\(denied.summary)")
    }

    @Test("a state file's path is relative to the config file")
    func relative() {
        #expect(configPath("a.json", from: "conf/x.pipeline") == "conf/a.json")
        #expect(configPath("/a.json", from: "conf/x.pipeline") == "/a.json")
        #expect(configPath("a.json", from: "x.pipeline") == "a.json")
    }

    @Test("a file that can't be read says why and what to do")
    func unreadable() {
        func problem(_ path: String, limit: Int = 100) -> String? {
            do throws(FileError) {
                _ = try Files.read(path, limit: limit)
                return nil
            } catch {
                return "\(error)"
            }
        }
        #expect(problem("/nonexistent") == "/nonexistent: no such file; check the path")
        #expect(problem("/tmp")?.contains("it is a directory") == true)
        #expect(problem("/dev/zero")?.contains("not a regular file") == true)
        #expect(problem("/proc/self/status", limit: 3)?.contains("more than 3 bytes") == true)
        #expect(problem("a\0b")?.contains("NUL") == true)
    }
}
