import Foundation
import Glibc
import TestSupport
import Testing

/// A node with a data directory, and `pipelined audit` beside it.
@Suite("The journal of a running node")
struct JournalNodeTests {
    private struct Site {
        let folder: TemporaryFolder
        let config: String
        let entry: Place
        let backend: ManualServer
        var data: String { folder.path + "/data" }
        var admin: String { folder.path + "/admin.sock" }

        init(_ settings: [String] = [], more: String = "") throws {
            folder = try TemporaryFolder()
            entry = Place("::1", try FreePort.take())
            backend = try ManualServer()
            let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [backend.place])
            config =
                ConfigText(
                    settings: ["admin unix:\(folder.path)/admin.sock", "state \(folder.path)/data"] + settings,
                    rawListeners: [entry], routes: more.isEmpty ? [route] : [], more: more
                ).description
        }

        func start() throws -> Node { try Node(config, folder: folder) }

        func audit(_ words: [String] = []) throws -> (exit: Child.Exit, out: String, error: String) {
            try Binary.run(["audit", data] + words)
        }

        /// The lines as objects.
        func lines(_ words: [String] = []) throws -> [[String: Any]] {
            let answer = try audit(["--json"] + words)
            #expect(answer.exit == .code(0) && answer.error == "", "\(answer.error)")
            return try answer.out.split(separator: "\n").map {
                try (try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any]).unwrap("object: \($0)")
            }
        }

        func outcomes() throws -> [String] { try lines().compactMap { $0["outcome"] as? String } }

        func await(_ count: Int) throws {
            try awaitUntil("\(count) lines") { try lines().count >= count }
        }
    }

    private func end(_ node: Node) throws {
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
    }

    @Test("R25: a start, reloads by signal and by the socket, refused ones and the stop have lines, with who and why")
    func life() throws {
        let site = try Site(more: "\nroutes file state.json\n")
        let document = { (revision: Int) in
            """
            {"format":"pipelined.state/1","revision":\(revision),"actor":"deploy@acme","envs":[],"instances":[],
             "routes":[]}
            """
        }
        try site.folder.write("state.json", document(7))
        let node = try site.start()
        try site.folder.write("state.json", document(8))
        node.child.signal(SIGHUP)
        try node.waitForEvent("reloaded")
        try site.folder.write("state.json", document(6))
        #expect(try Binary.run(["reload", "--admin", site.admin]).exit == .code(1))
        #expect(try Binary.run(["reload", "--admin", site.admin, "--confirm"]).exit == .code(0))
        #expect(try node.reload("nonsense\n").isEvent("reload_refused"))
        try end(node)
        let lines = try site.lines()
        #expect(
            lines.compactMap { $0["outcome"] as? String } == [
                "opened", "started", "applied", "rejected", "applied", "rejected", "admin", "stopped",
            ])
        #expect(lines.map { $0["seq"] as? Int } == (1...8).map { $0 })
        #expect(lines.map { $0["revision"] as? Int } == [nil, 7, 8, 8, 6, 6, nil, nil])
        #expect(
            lines.map { $0["actor"] as? String }.suffix(6) == [
                "deploy@acme", "admin", "deploy@acme", "SIGHUP", "SIGTERM", nil,
            ])
        #expect(lines[2...6].allSatisfy { $0["uid"] as? Int == Int(getuid()) })
        #expect(lines[3]["command"] as? String == "pipelined" && lines[3]["source"] as? String == "config")
        #expect((lines[3]["why"] as? String)?.contains("has revision 6, but 8 is applied") == true, "\(lines[3])")
        #expect(lines[4]["what"] as? String == "reload by admin, confirmed")
        #expect((lines[5]["why"] as? String)?.contains("errors") == true, "\(lines[5])")
        #expect(lines[6]["pid"] as? Int == Int(getpid()) && lines[6]["what"] as? String == "the node drains")
        #expect(Set(lines.map { $0["node_pid"] as? Int }) == [Int(node.child.pid)])
    }

    @Test("audit shows, filters and verifies, by the directory and by the config; a kept hash finds what was changed")
    func audit() throws {
        let site = try Site()
        let node = try site.start()
        for _ in 0..<3 { #expect(try Binary.run(["reload", "--admin", site.admin]).exit == .code(0)) }
        try site.await(5)
        let table = try site.audit()
        #expect(table.out.hasPrefix("TIME  ") && table.out.contains("reload by admin"), "\(table.out)")
        #expect(try Binary.run(["audit", node.config]).out == table.out)
        #expect(try Binary.run(["audit", site.data + "/journal"]).out == table.out)
        #expect(try site.lines(["--outcome", "applied", "--actor", "admin", "--since", "1h"]).count == 3)
        #expect(try site.lines(["--until", "1h"]).isEmpty && site.lines(["--contains", "serves"]).count == 1)
        #expect(
            try site.lines(["--source", "config"]).count == 3 && site.lines(["--actor", "\(getuid())"]).count == 3)
        let status = try Admin.json(["status"], site.admin)
        let journal = try (status["journal"] as? [String: Any]).unwrap("journal: \(status)")
        #expect(journal["status"] as? String == "open" && journal["written"] as? Int == 4)
        let head = try (journal["head"] as? String).unwrap("head")
        let verdict = try site.audit(["--verify", "--from", head])
        #expect(verdict.exit == .code(0), "\(verdict)")
        #expect(verdict.out.contains("whole: 5 lines in 1 files") && verdict.out.contains("head \(head)"))
        try end(node)
        #expect(try site.audit(["--verify", "--from", head, "--json"]).out.contains("\"whole\":true"))
        let file = site.data + "/journal/0000000001.jsonl"
        let text = try String(contentsOfFile: file, encoding: .utf8)
        try text.replacing("rt_raw", with: "rt_row").replacing("by admin", with: "by nobody")
            .write(toFile: file, atomically: false, encoding: .utf8)
        let broken = try site.audit(["--verify"])
        #expect(broken.exit == .code(1))
        #expect(
            broken.out.contains("broken: 0000000001.jsonl, line 3: its hash is not that of its text"), "\(broken.out)")
        #expect(try site.audit().error.contains("line 3: its hash is not that of its text"))
        try String(
            text.split(separator: "\n", omittingEmptySubsequences: false).prefix(3).joined(separator: "\n") + "\n"
        )
        .write(toFile: file, atomically: false, encoding: .utf8)
        #expect(try site.audit(["--verify"]).out.contains("was written, and the journal ends at line 3"))
        #expect(try site.audit(["--verify", "--from", head]).out.contains("no line has that hash"))
    }

    @Test("wrong places and wrong words are said: exit codes 1 and 2")
    func wrong() throws {
        let folder = try TemporaryFolder()
        let config = try folder.write(
            "c.pipeline", ConfigText(rawListeners: [Place("::1", try FreePort.take())]).description)
        let without = try Binary.run(["audit", config])
        #expect(without.exit == .code(1) && without.error.contains("names no data directory"), "\(without)")
        #expect(try Binary.run(["audit", "/nonexistent"]).exit == .code(1))
        #expect(try Binary.run(["audit", folder.path]).error.contains("there is no journal"))
        for words in [
            ["--since", "yesterday"], ["--from", "abc", "--verify"], ["--from", "1h"], ["--verify", "-f"],
        ] {
            #expect(try Binary.run(["audit", folder.path] + words).exit == .code(2), "\(words)")
        }
    }

    @Test("R25: after SIGKILL the next node goes on with the chain")
    func killed() throws {
        let site = try Site()
        for round in 1...3 {
            let node = try site.start()
            #expect(try Binary.run(["reload", "--admin", site.admin]).exit == .code(0))
            try site.await(1 + 2 * round)
            node.child.signal(SIGKILL)
            try node.child.waitForExit()
        }
        #expect(try site.outcomes() == ["opened"] + (1...3).flatMap { _ in ["started", "applied"] })
        #expect(try site.audit(["--verify"]).exit == .code(0))
    }

    @Test("a node that drains and its successor write one chain, and say who handed over")
    func handOver() throws {
        let site = try Site()
        let old = try site.start()
        let held = try Socket.connect(to: site.entry)
        let server = try site.backend.accept()
        old.child.signal(SIGTERM)
        try old.waitForEvent("draining")
        try site.entry.waitUntilNobodyListens()
        let new = try site.start()
        try old.waitForEvent("handed_over")
        #expect(try Binary.run(["reload", "--admin", site.admin]).exit == .code(0))
        held.finish()
        server.finish()
        #expect(try old.child.waitForExit() == .code(0))
        try end(new)
        let lines = try site.lines()
        let what = { (node: Node) in
            lines.filter { $0["node_pid"] as? Int == Int(node.child.pid) }.compactMap { $0["outcome"] as? String }
        }
        #expect(what(old) == ["opened", "started", "admin", "admin", "stopped"], "\(lines)")
        #expect(what(new) == ["started", "applied", "admin", "stopped"])
        #expect(lines.contains { ($0["what"] as? String)?.hasPrefix("hand_over") == true && $0["uid"] as? Int == 0 })
        #expect(try site.audit(["--verify"]).exit == .code(0))
    }

    @Test("audit -f shows lines as they come")
    func follows() throws {
        let site = try Site()
        let node = try site.start()
        try site.await(2)
        let follower = try Child(Binary.path, ["audit", site.data, "-f", "--json"])
        _ = try follower.wait("the start") { $0.first { $0.text.contains("\"outcome\":\"started\"") } }
        for round in 1...3 {
            #expect(try Binary.run(["reload", "--admin", site.admin]).exit == .code(0))
            _ = try follower.wait("reload \(round)") { lines in
                lines.count { $0.text.contains("reload by admin") } == round ? true : nil
            }
        }
        try end(node)
        _ = try follower.wait("the end") { $0.first { $0.text.contains("\"outcome\":\"stopped\"") } }
    }

    @Test("a start that fails has a line; a data directory that can't be used stops no node, and status says so")
    func starts() throws {
        let site = try Site()
        let taken = try ManualServer()
        let config = try site.folder.write(
            "taken.pipeline",
            ConfigText(settings: ["state \(site.data)"], rawListeners: [taken.place]).description)
        #expect(try Binary.run(["run", config]).exit == .code(1))
        let lines = try site.lines()
        #expect(lines.last?["outcome"] as? String == "rejected", "\(lines)")
        #expect((lines.last?["why"] as? String)?.contains(taken.place.description) == true)
        // A file stands in its place.
        let other = try Site()
        try other.folder.write("data", "precious")
        let node = try other.start()
        try node.waitForEvent("journal_failed")
        let status = try Binary.run(["status", "--admin", other.admin])
        #expect(status.out.contains("problem: the journal is not written: can't open the directory"), "\(status.out)")
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
        #expect(node.child.output.contains("\"journal_complete\":false"))
    }

    @Test(
        "journal size and files are settings that a reload changes; without `state` they have no effect, and it is said"
    )
    func settings() throws {
        let site = try Site(["journal size 64KiB", "journal files 2"])
        let node = try site.start()
        let text = site.config.replacing("journal files 2", with: "journal files 3")
        let reloaded = try node.reload(text)
        #expect(reloaded.isEvent("reloaded"))
        #expect(!node.child.output.contains("reload_partial"))
        let moved = try node.reload(text.replacing("state \(site.data)", with: "state \(site.data)2"))
        #expect(moved.isEvent("reloaded"))
        _ = try node.child.wait("what needs a restart") { lines in
            lines.first { $0.isEvent("reload_partial") && $0.text.contains("state \(site.data) -> ") }
        }
        let alone = try site.folder.write(
            "alone.pipeline", site.config.replacing("    state \(site.data)\n", with: ""))
        let check = try Binary.run(["check", alone])
        #expect(check.exit == .code(0) && check.error.contains("without `state` there is no journal"), "\(check)")
    }
}
