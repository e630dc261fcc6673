import Foundation
import Glibc
import TestSupport
import Testing

/// A node with `state`, told by pushes or by a file, killed and started again.
@Suite("R22, R23: desired state that a node keeps")
struct KeptStateTests {
    private struct Site: KeptSite {
        let folder: TemporaryFolder
        let entry: Place
        let (one, two): (Server, Server)
        var file: String { folder.path + "/state.json" }

        init() throws {
            folder = try TemporaryFolder()
            entry = Place("::1", try FreePort.take())
            (one, two) = (try Server.saying("1"), try Server.saying("2"))
        }

        func env(_ id: String) -> String { "{\"env_id\":\"\(id)\",\"app_id\":\"a\",\"org_id\":\"o\"}" }
        func instance(_ id: String, _ env: String) -> String {
            "{\"instance_id\":\"\(id)\",\"env_id\":\"\(env)\",\"process_type\":\"w\",\"overlay_ipv6\":\"::1\","
                + "\"status\":\"ready\"}"
        }
        func route(_ id: String, _ env: String, _ server: Server) -> String {
            "{\"route_id\":\"\(id)\",\"env_id\":\"\(env)\",\"listen_port\":\(entry.port),\"protocol_hint\":\"tcp_raw\","
                + "\"backend_process_type\":\"w\",\"backend_port\":\(server.place.port)}"
        }
        func document(_ revision: Int, _ server: Server, more: String = "") -> String {
            "{\"format\":\"pipelined.state/1\",\"revision\":\(revision),\"envs\":[\(env("e")),\(env("f"))],"
                + "\"instances\":[\(instance("i", "e"))],\"routes\":[\(route("r", "e", server))\(more)]}"
        }
        func change(_ revision: Int, base: Int? = nil, put: String = "", delete: String = "") -> String {
            "{\"format\":\"pipelined.change/1\",\"revision\":\(revision),\"actor\":\"test\","
                + (base.map { "\"base\":\($0)," } ?? "") + "\"put\":{\(put)},\"delete\":{\(delete)}}"
        }

        func apply(_ text: String, _ words: [String] = []) throws -> (exit: Child.Exit, out: String, error: String) {
            try Binary.run(["apply", "-", "--admin", admin] + words, input: text)
        }

        func asks() throws -> String {
            String(decoding: try Socket.connect(to: entry).receiveToEnd().bytes, as: UTF8.self)
        }

        var status: [String: Any] { get throws { try Admin.json(["status"], admin) } }
    }

    @Test("what is pushed is in force when that is answered, and after a SIGKILL; who owns a port is remembered")
    func pushes() throws {
        let site = try Site()
        var node = try site.start("push")
        #expect(try site.apply(site.document(1, site.one)).exit == .code(0))
        #expect(try site.asks() == "1")
        let answer = try site.apply(site.change(2, base: 1, put: "\"routes\":[\(site.route("r", "e", site.two))]"))
        #expect(answer.exit == .code(0) && answer.out.contains("1 objects"), "\(answer)")
        #expect(try site.asks() == "2")
        // Another env asks for the port: it is quarantined, and stays so over a restart.
        let stolen = try site.apply(site.change(3, put: "\"routes\":[\(site.route("a", "f", site.one))]"))
        #expect(stolen.exit == .code(5) && stolen.out.contains("belongs to the raw route of o/a/e"), "\(stolen)")
        #expect(try site.asks() == "2")
        for _ in 0..<2 {
            try node.kill()
            node = try site.start("push")
            #expect(try site.asks() == "2")
            let state = try (try site.status["desired_state"] as? [String: Any]).unwrap("desired_state")
            #expect(state["revision"] as? Int == 3 && state["source"] as? String == "push")
            #expect(state["routes"] as? Int == 2 && state["otherwise"] as? Int == 1)
        }
        // The owner lets go: who waited has it at once.
        let held = try site.apply(site.change(4, delete: "\"routes\":[\"r\"],\"instances\":[\"i\"]"))
        #expect(held.exit == .code(4), "\(held)")
        let id = try (held.out.split { " :".contains($0) }.first { $0.hasPrefix("held-") }).unwrap("an id")
        #expect(try Binary.run(["apply", "--discard", String(id), "--admin", site.admin]).exit == .code(0))
        let moved = site.change(
            4, put: "\"instances\":[\(site.instance("i", "f"))]", delete: "\"routes\":[\"r\"]")
        #expect(try site.apply(moved).exit == .code(0))
        #expect(try site.asks() == "1")
    }

    @Test("what is refused changes nothing and says what is applied: an older revision, another base, no JSON, a guard")
    func refusals() throws {
        let site = try Site()
        let node = try site.start("push")
        defer { withExtendedLifetime(node) {} }
        #expect(try site.apply(site.document(7, site.one)).exit == .code(0))
        for (text, words, part) in [
            (site.document(6, site.two), [], "revision 6, but 7 is applied"),
            (site.change(8, base: 5, delete: "\"routes\":[\"r\"]"), [], "stands on revision 5, but revision 7"),
            ("{\"format\": \"pipelined.state/1\"", [], "expected"),
            ("{\"format\": \"pipelined.state/2\"}", [], "not supported"),
        ] as [(String, [String], String)] {
            let answer = try site.apply(text, words)
            #expect(answer.exit == .code(1) && (answer.out + answer.error).contains(part), "\(answer)")
            #expect(try site.asks() == "1")
        }
        #expect(try site.apply(site.document(6, site.two), ["--older"]).exit == .code(0))
        #expect(try site.asks() == "2")
        // R29: it would take away everything.
        let held = try site.apply(site.change(8, delete: "\"routes\":[\"r\"]"))
        #expect(held.exit == .code(4) && held.out.contains("removes 1 of 1 routes"), "\(held)")
        #expect(try site.asks() == "2")
        let id = try (held.out.split(separator: " ").first { $0.hasPrefix("held-") }).unwrap("an id")
        let problems = try site.status["problems"] as? [String] ?? []
        #expect(problems.contains { $0.contains(id.replacing(":", with: "")) }, "\(problems)")
        #expect(try Binary.run(["apply", "--confirm", "held-1", "--admin", site.admin]).exit == .code(1))
        let journal = try Binary.run(["audit", "--outcome", "rejected", site.data])
        for part in ["held-1 is not", "can't be read", "not supported", "revision 6, but 7"] {
            #expect(journal.out.contains(part), "\(journal)")
        }
        let confirmed = try Binary.run(
            ["apply", "--confirm", String(id.replacing(":", with: "")), "--admin", site.admin])
        #expect(confirmed.exit == .code(0), "\(confirmed)")
        try awaitUntil("nobody listens") { try site.status["routes"] as? Int == 0 }
    }

    @Test("an export is what is in force: pushed elsewhere, it is served alike")
    func exports() throws {
        let (site, other) = (try Site(), try Site())
        let nodes = [try site.start("push"), try other.start("push")]
        defer { withExtendedLifetime(nodes) {} }
        let bad = ",{\"route_id\":\"bad\",\"env_id\":\"nobody\",\"listen_port\":1}"
        #expect(try site.apply(site.document(5, site.two, more: bad)).exit == .code(5))
        let exported = try Binary.run(["state", "export", "--admin", site.admin])
        #expect(exported.exit == .code(0) && !exported.out.contains("\"bad\""), "\(exported.out)")
        let moved = exported.out.replacing("\(site.entry.port)", with: "\(other.entry.port)")
        #expect(try other.apply(moved).exit == .code(0))
        #expect(try other.asks() == "2")
        #expect(try Binary.run(["state", "export", "--admin", other.admin]).out == moved)
    }

    @Test("R23: a node whose state file is away, or no document any more, starts from what it had, and says so")
    func fileAway() throws {
        let site = try Site()
        try site.document(3, site.one).write(toFile: site.file, atomically: true, encoding: .utf8)
        var node = try site.start("file state.json")
        #expect(try site.asks() == "1")
        for text in [nil, "{", site.document(2, site.two)] as [String?] {
            try node.kill()
            try FileManager.default.removeItem(atPath: site.file)
            try text?.write(toFile: site.file, atomically: true, encoding: .utf8)
            if text == nil { try "".write(toFile: site.file + ".gone", atomically: true, encoding: .utf8) }
            node = try site.start("file state.json")
            #expect(try site.asks() == "1")
            #expect(node.child.lines.contains { $0.isEvent("config_warning") }, "\(text ?? "none")")
            let problems = try site.status["problems"] as? [String] ?? []
            #expect(problems.contains { $0.contains("not in force") }, "\(problems)")
            if text == nil { try "x".write(toFile: site.file, atomically: true, encoding: .utf8) }
        }
        try site.document(4, site.two).write(toFile: site.file, atomically: true, encoding: .utf8)
        try node.reload(revision: 4)
        #expect(try site.asks() == "2")
        #expect(try (site.status["problems"] as? [String] ?? []).allSatisfy { !$0.contains("not in force") })
    }

    @Test("an object that nobody can name is told of after a start and after a reload, and so is its file's next state")
    func unnamed() throws {
        let site = try Site()
        let bad = ",{\"route_id\":7,\"env_id\":\"e\",\"listen_port\":1}"
        try site.document(1, site.one, more: bad).write(toFile: site.file, atomically: true, encoding: .utf8)
        let node = try site.start("file state.json")
        let told = {
            try (site.status["problems"] as? [String] ?? []).contains {
                $0.contains("state.json") && $0.contains("route_id")
            }
        }
        #expect(try site.asks() == "1")
        #expect(try told())
        try site.document(2, site.two).write(toFile: site.file, atomically: true, encoding: .utf8)
        try node.reload(revision: 2)
        #expect(try !told())
        try site.document(3, site.one, more: bad).write(toFile: site.file, atomically: true, encoding: .utf8)
        try node.reload(revision: 3)
        #expect(try site.asks() == "1")
        #expect(try told())
    }

    @Test("a directory that others may write to: what was kept is served, nothing new is taken until its mode is right")
    func exposed() throws {
        let site = try Site()
        var node = try site.start("push")
        #expect(try site.apply(site.document(1, site.one)).exit == .code(0))
        try node.kill()
        chmod(site.data, 0o775)
        node = try site.start("push")
        #expect(try site.asks() == "1")
        #expect(node.child.lines.contains { $0.isEvent("state_exposed") })
        let told = { try (site.status["problems"] as? [String] ?? []).contains { $0.contains("chmod 0700") } }
        #expect(try told())
        let refused = try site.apply(site.document(2, site.two))
        #expect(refused.exit == .code(1) && refused.out.contains("others may write to it"), "\(refused)")
        #expect(try site.asks() == "1")
        chmod(site.data, 0o700)
        #expect(try site.apply(site.document(2, site.two)).exit == .code(0))
        #expect(try site.asks() == "2")
        #expect(try !told())
    }

    @Test("files with other modes are used and put right; a damaged log costs what is behind it, which `status` names")
    func damaged() throws {
        let site = try Site()
        var node = try site.start("push")
        #expect(try site.apply(site.document(41, site.one)).exit == .code(0))
        for (revision, server) in [(42, site.two), (43, site.one)] {
            let change = site.change(revision, put: "\"routes\":[\(site.route("r", "e", server))]")
            #expect(try site.apply(change).exit == .code(0))
        }
        try node.kill()
        for name in ["snapshot.2", "log.2", "durable", "lock"] { chmod("\(site.data)/\(name)", 0o644) }
        node = try site.start("push")
        #expect(try site.asks() == "1" && site.status["problems"] as? [String] == [])
        #expect(node.child.lines.count { $0.isEvent("state_mode") } == 4)
        try node.kill()
        let log = URL(fileURLWithPath: "\(site.data)/log.2")
        var bytes = try Data(contentsOf: log)
        let place = try bytes.range(of: Data("\"backend_port\":\(site.two.place.port)".utf8)).unwrap("revision 42")
        bytes[place.lowerBound] ^= 1
        try bytes.write(to: log)
        node = try site.start("push")
        #expect(try site.asks() == "1" && (site.status["desired_state"] as? [String: Any])?["revision"] as? Int == 41)
        let lost = { try (site.status["problems"] as? [String] ?? []).contains { $0.contains("came revision 43") } }
        #expect(try lost())
        #expect(try site.apply(site.document(44, site.two)).exit == .code(0))
        #expect(try site.asks() == "2" && !lost())
        withExtendedLifetime(node) {}
    }

    @Test("R24: what is wrong with objects is said again after a restart, of those too that nobody decides about again")
    func problemsRemembered() throws {
        let site = try Site()
        var node = try site.start("push")
        let mismatch = site.route("r", "e", site.one).replacing(
            "\"protocol_hint\"", with: "\"proxy_protocol\":\"v2\",\"protocol_hint\"")
        let bad = ",\(site.route("w", "nobody", site.one)),\(site.route("z", "f", site.one))"
        #expect(try site.apply(site.document(1, site.one, more: bad)).exit == .code(5))
        let env = "{\"env_id\":\"g\",\"app_id\":7,\"org_id\":\"o\"}"
        let change = site.change(2, put: "\"envs\":[\(env)],\"routes\":[\(mismatch)]")
        #expect(try site.apply(change).exit == .code(5))
        let problems = { try site.status["problems"] as? [String] ?? [] }
        let before = try problems()
        for part in ["route \"r\"", "route \"w\"", "route \"z\"", "env \"g\""] {
            #expect(before.contains { $0.contains(part) }, "\(part): \(before)")
        }
        try node.kill()
        node = try site.start("push")
        let after = try problems()
        for part in ["route \"r\"", "route \"w\"", "route \"z\"", "env \"g\""] {
            #expect(after.contains { $0.contains(part) }, "\(part): \(after)")
        }
        // What goes, or is good by now, is no problem any more.
        let mended = "\"envs\":[\(site.env("g"))]"
        let good = ",\"routes\":[\(site.route("r", "e", site.one))]"
        let answer = try site.apply(site.change(3, put: mended + good, delete: "\"routes\":[\"w\",\"z\"]"))
        #expect(answer.exit == .code(0), "\(answer)")
        #expect(try problems() == [])
        withExtendedLifetime(node) {}
    }

    @Test("R29: a start without a `routes` line takes away nothing that was pushed, until a reload confirms it")
    func noSource() throws {
        let site = try Site()
        var node = try site.start("push")
        #expect(try site.apply(site.document(1, site.one)).exit == .code(0))
        try node.kill()
        let config = ConfigText(
            settings: ["admin unix:\(site.admin)", "state \(site.data)"], rawListeners: [site.entry])
        node = try Node(config.description, folder: site.folder)
        #expect(try site.asks() == "1")
        #expect(try (site.status["problems"] as? [String] ?? []).contains { $0.contains("removes 1 of 1 routes") })
        #expect(try Binary.run(["reload", "--confirm", "--admin", site.admin]).exit == .code(0))
        try awaitUntil("it is gone") { try site.status["routes"] as? Int == 0 }
    }

    @Test("a `route` block that goes gives its port to who waits for it, at once")
    func blockGoes() throws {
        let site = try Site()
        let config = { (block: String) in
            ConfigText(settings: ["admin unix:\(site.admin)", "state \(site.data)"], rawListeners: [site.entry])
                .description + "\nroutes push\n" + block
        }
        let block =
            "route {\n    id blk\n    owner c/a/e\n    listen \(site.entry.port)\n    backend \(site.two.place)\n}\n"
        let node = try Node(config(block), folder: site.folder)
        #expect(try site.apply(site.document(1, site.one)).exit == .code(5))
        #expect(try site.asks() == "2")
        #expect(try node.reload(config("")).isEvent("reloaded"))
        #expect(try site.asks() == "1")
    }

    @Test("R16: a reload that takes the header's stage away refuses what wants the header, pushed or not")
    func reloaded() throws {
        let site = try Site()
        let config = { (stage: String) in
            """
            node a {
                admin  unix:\(site.admin)
                state  \(site.data)
            }
            pipeline raw {
                backend
            \(stage)}
            listen \(site.entry) tcp_raw via raw
            routes push

            """
        }
        let node = try Node(config("    proxy_v2\n"), folder: site.folder)
        let header = "\"proxy_protocol\":\"v2\",\"backend_expects_proxy_protocol\":true,"
        let text = site.document(1, site.one).replacing("\"protocol_hint\"", with: header + "\"protocol_hint\"")
        #expect(try site.apply(text).exit == .code(0))
        #expect(try site.asks() == "1")
        #expect(try node.reload(config("")).isEvent("reloaded"))
        #expect(try site.asks() == "")
        #expect(try node.reload(config("    proxy_v2\n")).isEvent("reloaded"))
        #expect(try site.asks() == "1")
    }

    @Test("routes push needs a directory to keep them, and a socket to come by")
    func check() throws {
        let folder = try TemporaryFolder()
        let config = try folder.write(
            "node.pipeline",
            "listen [::1]:443 tls_passthrough via a\npipeline a {\n    sni\n    backend\n}\nroutes push\n")
        let answer = try Binary.run(["check", config])
        #expect(
            answer.exit == .code(1) && answer.error.contains("`routes push` needs a `state` directory"), "\(answer)")
    }
}
