import Foundation
import Glibc
import TestSupport
import Testing

/// A node with pushes of which a guard holds one.
@Suite("R29: a held update, what comes behind it, and what an operator decides")
struct HeldNodeTests {
    private struct Site: KeptSite {
        let folder: TemporaryFolder
        let entry: Place
        let servers: [Server]

        init() throws {
            folder = try TemporaryFolder()
            entry = Place("::1", try FreePort.take())
            servers = [try Server.saying("1"), try Server.saying("2")]
        }

        func env(suspended: Bool = false) -> String {
            "{\"env_id\":\"e\",\"app_id\":\"a\",\"org_id\":\"o\",\"suspended\":\(suspended)}"
        }
        func instance(_ number: Int, _ status: String = "ready") -> String {
            "{\"instance_id\":\"i\(number)\",\"env_id\":\"e\",\"process_type\":\"w\(number)\",\"overlay_ipv6\":\"::1\","
                + "\"status\":\"\(status)\"}"
        }
        func route(_ number: Int) -> String {
            "{\"route_id\":\"r\",\"env_id\":\"e\",\"listen_port\":\(entry.port),\"protocol_hint\":\"tcp_raw\","
                + "\"backend_process_type\":\"w\(number)\",\"backend_port\":\(servers[number - 1].place.port)}"
        }
        func document(_ revision: Int, instances: [String], route number: Int) -> String {
            "{\"format\":\"pipelined.state/1\",\"revision\":\(revision),\"envs\":[\(env())],"
                + "\"instances\":[\(instances.joined(separator: ","))],\"routes\":[\(route(number))]}"
        }
        /// With enough instances for the guard.
        func whole(_ revision: Int) -> String {
            document(revision, instances: (1...30).map { instance($0) }, route: 1)
        }
        func change(_ revision: Int, base: Int? = nil, _ put: String) -> String {
            "{\"format\":\"pipelined.change/1\",\"revision\":\(revision),"
                + (base.map { "\"base\":\($0)," } ?? "") + "\"put\":{\(put)}}"
        }

        func run(_ words: [String], input: String? = nil) throws -> (exit: Child.Exit, out: String, error: String) {
            try Binary.run(["apply", "--admin", admin] + words, input: input ?? "")
        }
        func apply(_ text: String) throws -> (exit: Child.Exit, out: String, error: String) {
            try run(["-"], input: text)
        }
        func asks() throws -> String {
            String(decoding: try Socket.connect(to: entry).receiveToEnd().bytes, as: UTF8.self)
        }
        var state: [String: Any] {
            get throws {
                try (Admin.json(["status"], admin)["desired_state"] as? [String: Any]).unwrap("desired_state")
            }
        }
        func id(_ text: String) throws -> String {
            let word = try (text.split { " `:\n,;".contains($0) }.first { $0.hasPrefix("held-") }).unwrap("an id")
            return String(word)
        }
    }

    @Test("what comes behind waits in order, but for what takes away; confirmed, all of it is in force")
    func confirmed() throws {
        let site = try Site()
        let node = try site.start()
        defer { withExtendedLifetime(node) {} }
        #expect(try site.apply(site.whole(1)).exit == .code(0))
        let held = try site.apply(site.document(2, instances: [1, 2].map { site.instance($0) }, route: 1))
        #expect(held.exit == .code(4) && held.out.contains("removes 28 of 30 instances"), "\(held)")
        let id = try site.id(held.out)
        // It gives the name's route another backend, and takes one away.
        let both = site.change(
            3, base: 2, "\"routes\":[\(site.route(2))],\"instances\":[\(site.instance(1, "draining"))]")
        let waits = try site.apply(both)
        #expect(waits.exit == .code(4) && waits.out.contains("waits behind \(id)"), "\(waits)")
        #expect(waits.out.contains("1 objects are not ready any more"), "\(waits)")
        #expect(try site.asks() == "")
        let state = try site.state
        #expect(state["held"] as? String == id && state["held_waiting"] as? Int == 1 && state["held_since"] is String)
        #expect(state["instances"] as? Int == 30)
        // The same once more waits once.
        #expect(try site.apply(both).out.contains("waits already behind \(id)"))
        #expect(try site.apply(site.change(4, base: 1, "")).exit == .code(1))
        #expect(try site.apply(site.change(4, base: 3, "\"envs\":[\(site.env(suspended: true))]")).exit == .code(4))
        #expect(try site.apply(site.change(5, "\"envs\":[\(site.env())]")).exit == .code(4))
        #expect(try site.state["held_waiting"] as? Int == 3)
        let suspended = {
            try Binary.run(["state", "export", "--admin", site.admin]).out.contains("\"suspended\":true")
        }
        #expect(try suspended())
        let done = try site.run(["--confirm", id])
        #expect(done.exit == .code(0) && done.out.contains("3 that waited behind it follow"), "\(done)")
        try awaitUntil("all follow") {
            try site.state["held_waiting"] as? Int == 0 && site.state["revision"] as? Int == 5
        }
        #expect(try site.state["instances"] as? Int == 2 && !suspended())
        #expect(try site.asks() == "2")
        try awaitUntil("it is said") { node.child.lines.contains { $0.isEvent("state_released") } }
    }

    @Test("what is discarded comes to nothing, and what waits behind it follows; each step is in the journal")
    func discarded() throws {
        let site = try Site()
        let node = try site.start()
        defer { withExtendedLifetime(node) {} }
        #expect(try site.apply(site.whole(1)).exit == .code(0))
        let held = try site.apply(site.document(2, instances: [], route: 1))
        let id = try site.id(held.out)
        #expect(try site.run(["--discard", "held-1"]).exit == .code(1))
        #expect(try site.apply(site.change(3, base: 2, "\"routes\":[\(site.route(2))]")).exit == .code(4))
        #expect(try site.apply(site.change(4, "\"routes\":[\(site.route(2))]")).exit == .code(4))
        let gone = try site.run(["--discard", id])
        #expect(gone.exit == .code(0) && gone.out.hasPrefix("discarded: \(id) comes to nothing"), "\(gone)")
        // Revision 3 stands on what was discarded: it is refused. Revision 4 stands on nothing.
        try awaitUntil("it follows") { try site.state["revision"] as? Int == 4 }
        #expect(try site.asks() == "2" && site.state["instances"] as? Int == 30)
        #expect(try site.state["held"] is NSNull && site.state["held_waiting"] as? Int == 0)
        let journal = try Binary.run(["audit", site.data]).out
        for part in ["\(id), which was held, is discarded", "waits behind \(id)", "stands on revision 2"] {
            #expect(journal.contains(part), "\(part): \(journal)")
        }
        #expect(try site.run(["--discard", id]).exit == .code(1))
    }

    @Test("of what follows a guard may hold one; what waits at the end comes to nothing, but for what it took away")
    func ended() throws {
        let site = try Site()
        var node = try site.start()
        #expect(try site.apply(site.whole(1)).exit == .code(0))
        let first = try site.id(site.apply(site.document(2, instances: [site.instance(1)], route: 1)).out)
        #expect(try site.apply(site.document(3, instances: [], route: 1)).exit == .code(4))
        #expect(try site.apply(site.change(4, "\"envs\":[\(site.env(suspended: true))]")).exit == .code(4))
        #expect(try site.run(["--discard", first]).exit == .code(0))
        try awaitUntil("the next one is held") {
            try site.state["held"] as? String != first && site.state["held"] is String
        }
        #expect(try site.state["held_waiting"] as? Int == 1)
        node.child.signal(SIGTERM)
        _ = try node.child.waitForExit()
        let journal = try Binary.run(["audit", site.data]).out
        #expect(journal.contains("and 1 behind it, dropped"), "\(journal)")
        node = try site.start()
        #expect(try site.state["held"] is NSNull && site.state["revision"] as? Int == 1)
        #expect(try Binary.run(["state", "export", "--admin", site.admin]).out.contains("\"suspended\":true"))
    }

    @Test("a stream through a held update: each push is answered in order, as if it had come alone")
    func streamed() throws {
        let site = try Site()
        let node = try site.start()
        defer { withExtendedLifetime(node) {} }
        let pushes = [
            site.whole(1), site.document(2, instances: [1, 2].map { site.instance($0) }, route: 1),
            site.change(3, base: 2, "\"instances\":[\(site.instance(1, "draining"))]"),
            site.change(4, base: 3, "\"routes\":[\(site.route(2))]"),
        ]
        let streamed = try site.run(["--stream", "--json", "-"], input: pushes.joined(separator: "\n"))
        #expect(streamed.exit == .code(4), "\(streamed)")
        func outcomes(_ text: String) throws -> [String] {
            try text.split(separator: "\n").map { line in
                let json = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
                return try (json?["outcome"] as? String).unwrap("an outcome in \(line)")
            }
        }
        #expect(try outcomes(streamed.out) == ["applied", "held", "held", "held"])
        #expect(try site.asks() == "" && site.state["held_waiting"] as? Int == 2)
        // One that is refused, in the middle, counts more.
        let more = [
            site.change(5, base: 4, ""), site.change(6, base: 1, ""), site.change(6, base: 5, ""),
        ]
        let second = try site.run(["--stream", "--json", "-"], input: more.joined())
        #expect(second.exit == .code(1), "\(second)")
        #expect(try outcomes(second.out) == ["held", "refused", "held"])
        let id = try (site.state["held"] as? String).unwrap("what is held")
        #expect(try site.run(["--confirm", id]).exit == .code(0))
        // What comes behind the confirmation comes behind all that waited.
        let last = try site.run(["--stream", "--json", "-"], input: site.change(7, base: 6, ""))
        #expect(last.exit == .code(0), "\(last)")
        #expect(try outcomes(last.out) == ["applied"])
        #expect(try site.asks() == "2" && site.state["revision"] as? Int == 7)
        #expect(try site.state["held_waiting"] as? Int == 0)
    }

    @Test("a routes file that a reload reads, and a guard holds: of what later ones read, what takes away is in force")
    func reloaded() throws {
        let site = try Site()
        let path = "\(site.folder.path)/routes.json"
        func reload(_ text: String, _ words: [String] = []) throws -> Child.Exit {
            try text.write(toFile: path, atomically: true, encoding: .utf8)
            return try Binary.run(["reload", "--admin", site.admin] + words).exit
        }
        try site.whole(1).write(toFile: path, atomically: true, encoding: .utf8)
        let node = try site.start("file routes.json")
        defer { withExtendedLifetime(node) {} }
        #expect(try reload(site.document(2, instances: [site.instance(1)], route: 1)) == .code(1))
        try awaitUntil("it is held") { try site.state["held_since"] is String }
        #expect(try site.asks() == "1")
        let last = site.document(3, instances: [site.instance(1, "failed")], route: 2)
        #expect(try reload(last) == .code(1))
        try awaitUntil("the next one waits") { try site.state["held_waiting"] as? Int == 1 }
        #expect(try site.asks() == "" && site.state["instances"] as? Int == 30)
        #expect(try Binary.run(["audit", site.data]).out.contains("reload, what it takes away, before it"))
        #expect(try reload(last, ["--confirm"]) == .code(0))
        #expect(try site.state["held_since"] is NSNull && site.state["instances"] as? Int == 1)
    }

    @Test("a routes file that a guard holds: of what it says later, what takes away is in force")
    func file() throws {
        let site = try Site()
        let path = "\(site.folder.path)/routes.json"
        func write(_ text: String) throws {
            try text.write(toFile: path + ".new", atomically: false, encoding: .utf8)
            rename(path + ".new", path)
        }
        try write(site.whole(1))
        let node = try site.start("file routes.json watch")
        defer { withExtendedLifetime(node) {} }
        #expect(try site.asks() == "1")
        try write(site.document(2, instances: [site.instance(1)], route: 2))
        try awaitUntil("it is held") { try site.state["held_since"] is String }
        #expect(try site.asks() == "1" && site.state["held_waiting"] as? Int == 0)
        try write(site.document(3, instances: [site.instance(1, "failed")], route: 2))
        try awaitUntil("the next one waits") { try site.state["held_waiting"] as? Int == 1 }
        #expect(try site.asks() == "" && site.state["instances"] as? Int == 30)
        try write(site.whole(4))
        try awaitUntil("it is in force") { try site.state["revision"] as? Int == 4 }
        #expect(try site.asks() == "1" && site.state["held_since"] is NSNull)
        // Held once more, and then as it is in force: what was taken away is given back.
        try write(site.document(5, instances: [site.instance(1)], route: 1))
        try awaitUntil("it is held") { try site.state["held_since"] is String }
        try write(site.document(6, instances: [site.instance(1, "failed")], route: 1))
        try awaitUntil("the next one waits") { try site.state["held_waiting"] as? Int == 1 }
        #expect(try site.asks() == "")
        try write(site.whole(4))
        try awaitUntil("it is given back") { try site.state["held_since"] is NSNull }
        #expect(try site.asks() == "1" && site.state["held_waiting"] as? Int == 0)
    }
}
