import Foundation
import Glibc
import TestSupport
import Testing

/// A reload under traffic: nothing that is connected notices, and nothing that connects fails.
@Suite("R26: a reload keeps what runs, and changes all or nothing")
struct ReloadTests {
    /// One raw route on one port, from a config that can be written anew.
    struct Site {
        let node: Node
        let entry: Place
        let admin: String

        init(_ config: (Place) -> ConfigText) throws {
            let entry = Place("::1", try FreePort.take())
            try self.init(config(entry), at: entry, in: try TemporaryFolder())
        }

        init(_ config: ConfigText, at entry: Place, in folder: TemporaryFolder) throws {
            self.entry = entry
            admin = "\(folder.path)/admin.sock"
            var text = config
            text.settings.append("admin unix:\(admin)")
            node = try Node(text.description, folder: folder)
        }

        func write(_ config: ConfigText) throws {
            var text = config
            text.settings.append("admin unix:\(admin)")
            try node.folder.write("node.pipeline", text.description)
        }

        func run(_ command: String, _ more: [String] = []) throws -> (exit: Child.Exit, out: String, error: String) {
            try Binary.run([command, "--admin", admin] + more)
        }
    }

    static func config(_ entry: Place, _ backends: [Place], more: [RouteText] = [], workers: Int = 2) -> ConfigText {
        ConfigText(
            workers: workers, rawListeners: [entry],
            routes: [RouteText(host: nil, id: "rt_raw", port: entry.port, backends: backends)] + more)
    }

    @Test("SIGUSR1 and SIGUSR2, which rotate or upgrade other proxies, end nothing", arguments: [SIGUSR1, SIGUSR2])
    func othersSignals(signal: Int32) throws {
        let server = try Server.echo()
        let site = try Site { ReloadTests.config($0, [server.place]) }
        let client = try Socket.connect(to: site.entry)
        site.node.child.signal(signal)
        try site.node.waitForEvent("signal_ignored")
        try client.send("still here")
        #expect(try client.receive(exactly: 10) == Array("still here".utf8))
    }

    @Test("SIGHUP: new connections go by the new routes, an open one keeps its own, and its bytes stay whole")
    func keepsConnections() throws {
        let (old, new) = (try Server.echo(), try Server.saying("new"))
        let site = try Site { ReloadTests.config($0, [old.place]) }
        let client = try Socket.connect(to: site.entry)
        let sent = pattern(300_000)
        try client.send(Array(sent[..<100_000]))
        var seen = try client.receive(exactly: 100_000)
        try site.write(ReloadTests.config(site.entry, [new.place]))
        site.node.child.signal(SIGHUP)
        try site.node.waitForEvent("reloaded")
        let other = try Socket.connect(to: site.entry)
        #expect(try other.receiveToEnd().bytes == Array("new".utf8))
        let rest = Array(sent[100_000...])
        let writer = concurrently { try client.send(rest) }
        seen += try client.receive(exactly: 200_000)
        try writer.value()
        #expect(seen == sent)
        client.finish()
        #expect(try client.receiveToEnd().ending == .fin)
    }

    @Test("a config that does not compile changes nothing, and what is wrong is in the event and in the answer")
    func refuses() throws {
        let server = try Server.saying("old")
        let site = try Site { ReloadTests.config($0, [server.place]) }
        try site.node.folder.write("node.pipeline", "pipeline raw {\n    backnd round_robin\n}\n")
        site.node.child.signal(SIGHUP)
        try site.node.waitForEvent("reload_refused")
        let line = try site.node.child.wait("the refusal") { $0.first { $0.isEvent("reload_refused") } }
        #expect(line.text.contains("node.pipeline:2:5: error: "), "\(line.text)")
        #expect(line.text.contains("did you mean"), "\(line.text)")
        let answer = try site.run("reload")
        #expect(answer.exit == .code(1))
        #expect(
            answer.out.contains("the config, or a file that it names, has errors: nothing was changed"), "\(answer.out)"
        )
        let client = try Socket.connect(to: site.entry)
        #expect(try client.receiveToEnd().bytes == Array("old".utf8))
    }

    @Test("a listener that can't be opened refuses the reload as a whole, with the reason")
    func refusesTakenPort() throws {
        let (server, other) = (try Server.saying("old"), try ManualServer())
        let site = try Site { ReloadTests.config($0, [server.place]) }
        var config = ReloadTests.config(site.entry, [server.place])
        config.rawListeners.append(other.place)
        try site.write(config)
        let answer = try site.run("reload")
        #expect(answer.exit == .code(1))
        #expect(answer.out.contains("\(other.place): the port is taken"), "\(answer.out)")
        #expect(try Socket.connect(to: site.entry).receiveToEnd().bytes == Array("old".utf8))
    }

    @Test("R11: round robin goes on where it was")
    func keepsPosition() throws {
        let servers = try ["a", "b", "c"].map { try Server.saying($0) }
        let places = servers.map(\.place)
        let site = try Site { ReloadTests.config($0, places) }
        let once = { String(decoding: try Socket.connect(to: site.entry).receiveToEnd().bytes, as: UTF8.self) }
        var seen = ""
        for _ in 0..<4 {
            seen += try once()
            #expect(try site.run("reload").exit == .code(0))
        }
        #expect(seen == "abca")
    }

    @Test("settings of `node` that need a new start are named, and keep their value")
    func partial() throws {
        let server = try Server.echo()
        let site = try Site { ReloadTests.config($0, [server.place]) }
        try site.write(ReloadTests.config(site.entry, [server.place], workers: 1))
        let said = try site.run("reload")
        #expect(said.exit == .code(0))
        #expect(said.out.contains("need a restart to take effect: workers 2 -> 1"), "\(said.out)")
        #expect(try site.run("status").out.contains("problem: settings of `node` that need a restart to take effect"))
        let line = try site.node.child.wait("what was not changed") { $0.first { $0.isEvent("reload_partial") } }
        #expect(line.text.contains("\"workers 2 -> 1\""), "\(line.text)")
    }

    @Test("`listen` lines come and go: new ones serve, removed ones close, the others never blink")
    func listeners() throws {
        let server = try Server.saying("x")
        let site = try Site { ReloadTests.config($0, [server.place]) }
        let second = Place("::1", try FreePort.take())
        let extra = RouteText(host: nil, id: "rt_2", port: second.port, backends: [server.place])
        let errors = Flag()
        let stop = Flag()
        let loop = concurrently {
            var count = 0
            while !stop.isSet {
                do {
                    let bytes = try Socket.connect(to: site.entry).receiveToEnd().bytes
                    if bytes != Array("x".utf8) { errors.set() }
                } catch { errors.set() }
                count += 1
            }
            return count
        }
        for _ in 0..<5 {
            var config = ReloadTests.config(site.entry, [server.place], more: [extra])
            config.rawListeners.append(second)
            try site.write(config)
            #expect(try site.run("reload").exit == .code(0))
            #expect(try Socket.connect(to: second).receiveToEnd().bytes == Array("x".utf8))
            try site.write(ReloadTests.config(site.entry, [server.place]))
            #expect(try site.run("reload").exit == .code(0))
            let deadline = Deadline()
            while let early = try? Socket.connect(to: second), !deadline.hasPassed { early.reset() }
            #expect(!deadline.hasPassed)
        }
        stop.set()
        #expect(try loop.value() > 0)
        #expect(!errors.isSet)
    }

    @Test("R22, R24, R8: routes of the state file come and go under traffic, and `expose` ports with them")
    func stateFile() throws {
        let server = try Server.saying("x")
        let port = try FreePort.take()
        let folder = try TemporaryFolder()
        let entry = Place("::1", try FreePort.take())
        let state = { (revision: Int, routes: [String]) in
            try folder.write(
                "state.json",
                """
                {"format":"pipelined.state/1","revision":\(revision),
                 "envs":[{"env_id":"e","app_id":"a","org_id":"o"}],
                 "instances":[{"instance_id":"i","env_id":"e","process_type":"w","overlay_ipv6":"::1","status":"ready"}],
                 "routes":[\(routes.joined(separator: ","))]}
                """)
        }
        let route = { (id: String, port: UInt16) in
            """
            {"route_id":"\(id)","env_id":"e","hostname":null,"listen_port":\(port),"protocol_hint":"tcp_raw",
             "backend_process_type":"w","backend_port":\(server.place.port)}
            """
        }
        _ = try state(1, [])
        var config = ReloadTests.config(entry, [server.place])
        config.more = "expose [::] ports \(port) via raw\nroutes file state.json\n"
        let node = try Node(config.description, folder: folder)
        let exposed = Place("::1", port)
        #expect((try? Socket.connect(to: exposed)) == nil)
        var revision = 1
        for round in 0..<3 {
            revision += 1
            // The second object is bad: it is left out, and nobody else notices.
            _ = try state(revision, [route("rt_x", port), "{\"route_id\":\"rt_bad\",\"env_id\":\"nobody\"}"])
            node.child.signal(SIGHUP)
            try wait(node, revision)
            #expect(try Socket.connect(to: exposed).receiveToEnd().bytes == Array("x".utf8), "round \(round)")
            #expect(try Socket.connect(to: entry).receiveToEnd().bytes == Array("x".utf8))
            revision += 1
            _ = try state(revision, [])
            node.child.signal(SIGHUP)
            try wait(node, revision)
            let deadline = Deadline()
            while let early = try? Socket.connect(to: exposed), !deadline.hasPassed { early.reset() }
            #expect(!deadline.hasPassed)
        }
    }

    private func wait(_ node: Node, _ revision: Int) throws {
        _ = try node.child.wait("revision \(revision)") { lines in
            lines.first { $0.isEvent("reloaded") && $0.text.contains("\"revision\":\(revision),") }
        }
    }
}
