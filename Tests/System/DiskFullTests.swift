import Foundation
import Glibc
import TestSupport
import Testing

/// A node whose state directory is a small file system of its own.
@Suite("R23: a node on a disk that is full", .enabled(if: geteuid() == 0, "needs root, and a tmpfs"))
struct DiskFullTests {
    private final class Site: KeptSite {
        let folder: TemporaryFolder
        let entry: Place
        let server: Server

        init() throws {
            folder = try TemporaryFolder()
            entry = Place("::1", try FreePort.take())
            server = try Server.saying("1")
            mkdir(data, 0o700)
            guard mount("tmpfs", data, "tmpfs", 0, "size=16m,mode=700") == 0 else {
                throw Failure(call: "mount a tmpfs")
            }
        }
        deinit { umount2(data, Int32(MNT_DETACH)) }

        private func env(suspended: Bool = false) -> String {
            "{\"env_id\":\"e\",\"app_id\":\"a\",\"org_id\":\"o\",\"suspended\":\(suspended)}"
        }
        private func instance(_ status: String) -> String {
            "{\"instance_id\":\"i\",\"env_id\":\"e\",\"process_type\":\"w\",\"overlay_ipv6\":\"::1\","
                + "\"status\":\"\(status)\"}"
        }
        func route(_ id: String, env: String = "e", port: UInt16? = nil) -> String {
            "{\"route_id\":\"\(id)\",\"env_id\":\"\(env)\",\"listen_port\":\(port ?? entry.port),\"protocol_hint\":\"tcp_raw\","
                + "\"backend_process_type\":\"w\",\"backend_port\":\(server.place.port)}"
        }
        var document: String {
            "{\"format\":\"pipelined.state/1\",\"revision\":1,\"envs\":[\(env())],"
                + "\"instances\":[\(instance("ready"))],\"routes\":[\(route("r")),\(route("other", port: 9))]}"
        }
        func change(_ revision: Int, put: String = "", delete: String = "") -> String {
            "{\"format\":\"pipelined.change/1\",\"revision\":\(revision),\"base\":1,\"put\":{\(put)},"
                + "\"delete\":{\(delete)}}"
        }
        /// It drains the only instance, and gives the env another one.
        var drains: String {
            let more = instance("ready").replacing("\"i\"", with: "\"j\"")
            return change(2, put: "\"instances\":[\(instance("draining")),\(more)]")
        }
        var removes: String { change(2, delete: "\"routes\":[\"r\"]") }

        func apply(_ text: String, _ words: [String] = ["-"]) throws -> (exit: Child.Exit, out: String, error: String) {
            try Binary.run(["apply", "--admin", admin] + words, input: text)
        }
        func asks() throws -> String {
            String(decoding: try Socket.connect(to: entry).receiveToEnd().bytes, as: UTF8.self)
        }
        var state: [String: Any] {
            get throws {
                try (Admin.json(["status"], admin)["desired_state"] as? [String: Any]).unwrap("desired_state")
            }
        }

        /// Nobody else can write a byte there, nor the node.
        /// - Parameter takes: has the node write a little, and says whether it did.
        func fill(_ takes: (Int) throws -> Bool) throws {
            let others = open(data + "/others", O_WRONLY | O_CREAT | O_APPEND, 0o600)
            let block = [UInt8](repeating: 1, count: 4096)
            while write(others, block, block.count) > 0 {}
            close(others)
            unlink(data + "/reserve")
            let rest = open(data + "/others", O_WRONLY | O_APPEND)
            while write(rest, block, block.count) > 0 {}
            close(rest)
            // What is left of the page that the log ends in.
            var number = 0
            while try takes(number) {
                number += 1
                guard number < 100 else { throw Failure("a disk that is never full") }
            }
        }
        func fill() throws {
            try fill { number in
                let org = "{\"org_id\":\"org-\(number)\"}"
                return try apply("{\"format\":\"pipelined.change/1\",\"put\":{\"orgs\":[\(org)]}}").exit == .code(0)
            }
        }
        func makeRoom() { unlink(data + "/others") }
    }

    @Test("what takes away is in force at once, is said not to be durable, and is kept once there is room")
    func room() throws {
        let site = try Site()
        let node = try site.start()
        #expect(try site.apply(site.document).exit == .code(0))
        #expect(try site.asks() == "1")
        try site.fill()
        let answer = try site.apply(site.drains)
        #expect(answer.exit == .code(6), "\(answer)")
        #expect(answer.out.hasPrefix("taken away: ") && answer.out.contains("not durable"), "\(answer)")
        #expect(answer.out.contains("no room (ENOSPC)") && answer.out.contains("make room"), "\(answer)")
        #expect(try site.asks() == "")
        _ = try node.child.waitForError("its event") { lines in lines.first { $0.isEvent("state_not_durable") } }
        let state = try site.state
        #expect(state["not_durable"] as? Int == 1 && state["not_durable_since"] is String)
        #expect(state["revision"] as? Int == 1 && state["instances"] as? Int == 1)
        #expect(try Binary.run(["status", "--admin", site.admin]).out.contains("not durable since"))
        // By a stream: an answer each, and the worst of them.
        let stream = try site.apply(site.removes + "\n" + site.drains, ["--stream", "--json", "-"])
        #expect(stream.exit == .code(1), "\(stream)")
        let lines = stream.out.split(separator: "\n")
        #expect(lines.count == 2 && lines[0].contains("\"outcome\":\"taken_away\",\"durable\":false"), "\(stream)")
        #expect(lines.count == 2 && lines[1].contains("\"outcome\":\"refused\""), "\(stream)")
        #expect(try Binary.run(["routes", "--admin", site.admin]).out.contains("withdrawn"))
        site.makeRoom()
        _ = try node.child.waitForError("that it is durable") { lines in lines.first { $0.isEvent("state_durable") } }
        #expect(try site.state["not_durable"] as? Int == 0)
        #expect(try site.apply(site.removes).exit == .code(0))
        #expect(try site.state["routes"] as? Int == 1)
        for words in ["what it takes away, not durable", "no room (ENOSPC)", "is durable: 2 objects"] {
            try awaitUntil("\(words) in the journal") {
                try Binary.run(["audit", "\(site.data)/journal"]).out.contains(words)
            }
        }
    }

    @Test("a restart before there is room serves it again, whether the node was killed or ended; later it does not")
    func restart() throws {
        let site = try Site()
        var node = try site.start()
        #expect(try site.apply(site.document).exit == .code(0))
        try site.fill()
        for isKilled in [true, false] {
            #expect(try site.apply(site.removes).exit == .code(6))
            #expect(try site.asks() == "")
            if isKilled {
                try node.kill()
            } else {
                node.child.signal(SIGTERM)
                #expect(try node.child.waitForExit() == .code(0))
                let says = { (line: Child.Line) in
                    line.isEvent("state_not_durable") && line.text.contains("the node ends")
                }
                #expect(node.child.lines.contains(where: says))
            }
            node = try site.start()
            #expect(try site.asks() == "1" && site.state["not_durable"] as? Int == 0)
        }
        #expect(try site.apply(site.removes).exit == .code(6))
        site.makeRoom()
        _ = try node.child.waitForError("that it is durable") { lines in lines.first { $0.isEvent("state_durable") } }
        try node.kill()
        node = try site.start()
        #expect(try site.asks() == "")
        // Its port is its own still.
        let other = try site.apply(
            site.change(
                3,
                put: "\"envs\":[{\"env_id\":\"f\",\"app_id\":\"a\",\"org_id\":\"o\"}],"
                    + "\"routes\":[\(site.route("a", env: "f"))]"))
        #expect(other.exit == .code(5) && other.out.contains("belongs to the raw route of o/a/e"), "\(other)")
    }

    @Test("a routes file: a reload is refused, and what takes away of it is in force")
    func file() throws {
        let site = try Site()
        try site.document.write(toFile: site.folder.path + "/state.json", atomically: true, encoding: .utf8)
        let node = try site.start("file state.json")
        #expect(try site.asks() == "1")
        let say = { (revision: Int, status: String) in
            try site.document.replacing("\"ready\"", with: "\"\(status)\"")
                .replacing("\"revision\":1", with: "\"revision\":\(revision)")
                .write(toFile: site.folder.path + "/state.json", atomically: true, encoding: .utf8)
            return try Binary.run(["reload", "--admin", site.admin])
        }
        try site.fill { try say($0 + 2, "ready").exit == .code(0) }
        let answer = try say(200, "failed")
        #expect(answer.exit == .code(1) && (answer.out + answer.error).contains("no room"), "\(answer)")
        try awaitUntil("what it takes away is in force") { try site.asks() == "" }
        site.makeRoom()
        _ = try node.child.waitForError("that it is durable") { lines in lines.first { $0.isEvent("state_durable") } }
        #expect(try Binary.run(["reload", "--admin", site.admin]).exit == .code(0))
        #expect(try site.state["revision"] as? Int == 200)
    }
}
