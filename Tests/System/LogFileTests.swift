import Foundation
import Glibc
import TestSupport
import Testing

/// A node with one raw route to an echo server, whose logs go where a test says.
private struct LogSite {
    let site: ReloadTests.Site
    let server: Server
    var node: Node { site.node }
    var folder: String { site.node.folder.path }

    /// - Parameter settings: lines of `node`; `DIR` is the test's folder.
    init(_ settings: [String]) throws {
        let server = try Server.echo()
        self.server = server
        let folder = try TemporaryFolder()
        let entry = Place("::1", try FreePort.take())
        mkdir("\(folder.path)/logs", 0o755)
        var config = ReloadTests.config(entry, [server.place])
        config.settings = settings.map { $0.replacing("DIR", with: folder.path) }
        site = try ReloadTests.Site(config, at: entry, in: folder)
    }

    func path(_ name: String) -> String { "\(folder)/\(name)" }
    func lines(_ name: String) -> [String] {
        ((try? String(contentsOfFile: path(name), encoding: .utf8)) ?? "").split(separator: "\n").map(String.init)
    }
    func log(_ names: [String]) -> [LogLine] { names.flatMap(lines).compactMap { LogLine($0) } }

    func connectOnce() throws {
        let client = try Socket.connect(to: site.entry)
        try client.send("hello")
        guard try client.receive(exactly: 5) == Array("hello".utf8) else { throw Failure("not relayed") }
        client.finish()
        _ = try client.receiveToEnd()
    }
    func connect(_ count: Int) throws { for _ in 0..<count { try connectOnce() } }

    func status() throws -> [String: Any] { try Admin.json(["status"], site.admin) }
    func write(_ settings: [String]) throws {
        var config = ReloadTests.config(site.entry, [server.place])
        config.settings = settings.map { $0.replacing("DIR", with: folder) }
        try site.write(config)
    }
    func stop() throws {
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
    }
}

@Suite("Logs that a host can rotate, of a whole node")
struct LogFileNodeTests {
    private static let shipped = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("config/logrotate/pipelined").path
    private static let file = "connection_log file DIR/logs/connections.json"

    @Test("rename, SIGUSR1, again and again under load: each connection has one line, in one of the files")
    func rotatedUnderLoad() throws {
        let site = try LogSite([Self.file])
        let (enough, done) = (Flag(), Promise<Int>())
        Thread.detachNewThread {
            done.fulfil(
                Result {
                    var count = 0
                    while !enough.isSet {
                        try site.connectOnce()
                        count += 1
                    }
                    return count
                })
        }
        var names = ["logs/connections.json"]
        for number in 1...8 {
            // Something in each of them.
            try awaitUntil("a line") { !site.lines("logs/connections.json").isEmpty }
            names.append("logs/connections.json.\(number)")
            #expect(rename(site.path(names[0]), site.path(names[number])) == 0)
            site.node.child.signal(SIGUSR1)
            _ = try site.node.child.waitForError("it is open again") { lines in
                lines.count { $0.isEvent("log_reopened") } == number ? true : nil
            }
        }
        enough.set()
        let count = try done.value()
        try awaitUntil("every line") { site.log(names).count >= count }
        let unique = Set(site.log(names).compactMap(\.uniqueID))
        #expect(unique.count == count && site.log(names).count == count)
        #expect(!site.node.child.lines.contains { $0.stream == .out && $0.text.contains("\"event\":\"connection\"") })
        #expect(!site.node.child.lines.contains { $0.isEvent("signal_ignored") })
        try site.stop()
    }

    @Test("the shipped logrotate file, run by logrotate itself", .enabled(if: Child.find("logrotate") != nil))
    func logrotate() throws {
        let site = try LogSite([Self.file, "event_log file DIR/logs/events.json"])
        try site.connect(5)
        try awaitUntil("their lines") { site.log(["logs/connections.json"]).count == 5 }
        let shipped = try String(contentsOfFile: Self.shipped, encoding: .utf8)
        let ours =
            shipped
            .replacing("/var/log/pipelined", with: site.path("logs"))
            .replacing(
                "systemctl kill --kill-who=main --signal=USR1 'pipelined*.service'",
                with: "kill -USR1 \(site.node.child.pid)"
            )
            .replacing("create 0640 root adm", with: "create 0640 \(NSUserName()) \(NSUserName())")
        #expect(ours != shipped && ours.contains("kill -USR1") && !ours.contains("/var/log"))
        let config = try site.node.folder.write("logrotate.conf", ours)
        for number in 1...3 {
            let state = site.path("state")
            let run = try Child("logrotate", ["--force", "--state", state, config])
            #expect(try run.waitForExit() == .code(0), "\(run.output)")
            try awaitUntil("the new files are written to") {
                site.lines("logs/events.json").count { $0.contains("log_reopened") } == 2
            }
            try site.connect(5)
            try awaitUntil("their lines") { site.log(["logs/connections.json"]).count == 5 }
            // What was before the last one is compressed.
            let names = try FileManager.default.contentsOfDirectory(atPath: site.path("logs")).sorted()
            let old = (1...number).flatMap { ["connections.json.\($0)", "events.json.\($0)"] }
                .map { $0.hasSuffix(".1") ? $0 : "\($0).gz" }
            #expect(names == (["connections.json", "events.json"] + old).sorted())
        }
        let mode = try FileManager.default.attributesOfItem(atPath: site.path("logs/events.json"))[.posixPermissions]
        #expect(mode as? Int == 0o640)
        try site.stop()
    }

    @Test("without a file SIGUSR1 still says that it does nothing")
    func noFile() throws {
        let site = try LogSite(["connection_log syslog unix:DIR/none"])
        site.node.child.signal(SIGUSR1)
        try site.node.waitForEvent("signal_ignored")
        try site.stop()
    }

    @Test("a directory that is gone at SIGUSR1: status says so, and the node finds back by itself")
    func folderGone() throws {
        let site = try LogSite([Self.file])
        try site.connect(1)
        #expect(rename(site.path("logs"), site.path("old")) == 0)
        site.node.child.signal(SIGUSR1)
        try site.node.waitForEvent("log_reopen_failed")
        try site.connect(1)
        try awaitUntil("both lines") { site.log(["old/connections.json"]).count == 2 }
        let problems = try site.status()["problems"] as? [String] ?? []
        #expect(problems.count { $0.contains("can't be opened again: its directory is not there") } == 1, "\(problems)")
        mkdir(site.path("logs"), 0o755)
        try site.node.waitForEvent("log_reopened")
        try site.connect(1)
        try awaitUntil("the third") { site.log(["logs/connections.json"]).count == 1 }
        #expect(try (site.status()["problems"] as? [String])?.isEmpty == true)
        try site.stop()
    }

    @Test(
        "a user that may not make files: without the rotation's own new file lines go on, and with it they move",
        .enabled(if: geteuid() == 0 && Child.find("setpriv") != nil))
    func permissions() throws {
        let folder = try TemporaryFolder()
        let (server, entry, user) = (try Server.echo(), Place("::1", try FreePort.take()), uid_t(65534))
        let log = "\(folder.path)/log"
        let make = {
            try "".write(toFile: log, atomically: false, encoding: .utf8)
            guard chown(log, user, user) == 0 else { throw Failure(call: "chown") }
        }
        try make()
        var config = ReloadTests.config(entry, [server.place])
        config.settings = ["connection_log file \(log)"]
        let path = try folder.write("node.pipeline", config.description)
        let child = try Child(
            "setpriv", ["--reuid", "\(user)", "--regid", "\(user)", "--clear-groups", Binary.path, "run", path])
        _ = try child.waitForError("ready") { lines in lines.first { $0.isEvent("ready") } }
        let connect = {
            let client = try Socket.connect(to: entry)
            try client.send("x")
            _ = try client.receive(exactly: 1)
            client.finish()
            _ = try client.receiveToEnd()
        }
        let lines = { (path: String) in
            ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "").split(separator: "\n").count
        }
        #expect(rename(log, "\(log).1") == 0)
        child.signal(SIGUSR1)
        let said = try child.waitForError("why not") { lines in lines.first { $0.isEvent("log_reopen_failed") } }
        #expect(said.text.contains("may not write there"))
        try connect()
        try awaitUntil("its line, in the old file") { lines("\(log).1") == 1 }
        try make()
        _ = try child.waitForError("it is open") { lines in lines.first { $0.isEvent("log_reopened") } }
        try connect()
        try awaitUntil("its line, in the new file") { lines(log) == 1 && lines("\(log).1") == 1 }
        child.signal(SIGTERM)
        #expect(try child.waitForExit() == .code(0))
    }

    @Test("a log file that can't be opened refuses the start, and the reload, with what to do")
    func refused() throws {
        let folder = try TemporaryFolder()
        var config = ReloadTests.config(Place("::1", try FreePort.take()), [Place("::1", 9)])
        config.settings = ["connection_log file \(folder.path)/none/log"]
        let path = try folder.write("node.pipeline", config.description)
        let run = try Binary.run(["run", path])
        #expect(run.exit == .code(1))
        #expect(run.error.contains("can't open the log file \(folder.path)/none/log: its directory is not there"))
        let site = try LogSite([Self.file])
        try site.write(["event_log file DIR/none/log"])
        let answer = try site.site.run("reload")
        #expect(answer.exit == .code(1) && (answer.out + answer.error).contains("none/log"), "\(answer)")
        try site.connect(1)
        try awaitUntil("the line where it was") { site.log(["logs/connections.json"]).count == 1 }
        try site.stop()
    }

    @Test("a reload moves both logs, and back; SIGUSR1 goes by what is in force; status names where they go")
    func reloads() throws {
        let site = try LogSite([])
        try site.connect(2)
        _ = try site.node.child.wait("two lines") { lines in
            lines.count { $0.stream == .out && LogLine($0.text) != nil } == 2 ? true : nil
        }
        try site.write([Self.file, "event_log file DIR/logs/events.json"])
        #expect(try site.site.run("reload").exit == .code(0))
        try site.connect(3)
        try awaitUntil("three lines") { site.log(["logs/connections.json"]).count == 3 }
        // The reload itself was said where events went until then.
        try awaitUntil("its event") {
            site.lines("logs/events.json").contains { $0.contains("\"event\":\"log_opened\"") }
        }
        let streams = try site.status()["streams"] as? [[String: Any]] ?? []
        #expect(
            streams.map { $0["to"] as? String } == [site.path("logs/connections.json"), site.path("logs/events.json")])
        #expect(streams.map { $0["log"] as? String } == ["connections", "events"])
        site.node.child.signal(SIGUSR1)
        try awaitUntil("both are open again") {
            site.lines("logs/events.json").count { $0.contains("\"event\":\"log_reopened\"") } == 2
        }
        #expect(try site.status()["problems"] as? [String] == [])
        try site.write([])
        #expect(try site.site.run("reload").exit == .code(0))
        try site.connect(1)
        _ = try site.node.child.wait("a third line") { lines in
            lines.count { $0.stream == .out && LogLine($0.text) != nil } == 3 ? true : nil
        }
        #expect(site.log(["logs/connections.json"]).count == 3)
        try site.stop()
        #expect(site.node.child.lines.contains { $0.isEvent("stopped") })
    }

    @Test(
        "a full disk under a log file: the node goes on, and so does the log once there is room",
        .enabled(if: geteuid() == 0))
    func fullDisk() throws {
        let folder = try TemporaryFolder()
        let server = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        var config = ReloadTests.config(entry, [server.place])
        config.settings = ["connection_log file \(folder.path)/disk/log", "admin unix:\(folder.path)/admin.sock"]
        let path = try folder.write("node.pipeline", config.description)
        let child = try Child(
            "/bin/sh",
            [
                "-c",
                """
                exec unshare -m --propagation private sh -c 'mkdir "\(folder.path)/disk" && \
                mount -t tmpfs -o size=64k tmpfs "\(folder.path)/disk" && \
                exec "\(Binary.path)" run "\(path)"'
                """,
            ])
        _ = try child.waitForError("ready") { lines in lines.first { $0.isEvent("ready") } }
        let disk = "/proc/\(child.pid)/root\(folder.path)/disk"
        let connect = {
            let client = try Socket.connect(to: entry)
            try client.send("x")
            _ = try client.receive(exactly: 1)
            client.finish()
            _ = try client.receiveToEnd()
        }
        var count = 0
        try awaitUntil("the disk is full") {
            for _ in 0..<10 { try connect() }
            count += 10
            return child.lines.contains { $0.isEvent("log_failed") }
        }
        for _ in 0..<5 { try connect() }
        count += 5
        // Rotation makes room: the old file goes, the next is begun, and a line that was cut is whole in it.
        let first = try String(contentsOfFile: "\(disk)/log", encoding: .utf8)
        #expect(unlink("\(disk)/log") == 0)
        child.signal(SIGUSR1)
        _ = try child.waitForError("it goes on") { lines in lines.first { $0.isEvent("log_recovered") } }
        try awaitUntil("every line, once") {
            let text = try String(contentsOfFile: "\(disk)/log", encoding: .utf8)
            let all = (first.split(separator: "\n") + text.split(separator: "\n")).compactMap { LogLine(String($0)) }
            return Set(all.compactMap(\.uniqueID)).count == count && all.count == count
        }
        child.signal(SIGTERM)
        #expect(try child.waitForExit() == .code(0))
    }

    @Test("sampling and reasons: sums by `sample_rate` are the counters', and `status` has what has no line")
    func choice() throws {
        let site = try LogSite(["log sample 1/3", "log except address.*", "log connections refusals 1M/s"])
        try site.connect(300)
        try awaitUntil("all are counted") {
            let lines = site.node.child.lines.filter { $0.stream == .out }
            return try lines.count + (site.status()["log_sampled_out"] as? Int ?? -1) == 300
        }
        let lines = site.node.child.lines.filter { $0.stream == .out }
        #expect(lines.allSatisfy { $0.number("sample_rate") == 3 } && (30...170).contains(lines.count))
        try site.stop()
    }
}
