import Foundation
import Glibc
import TestSupport
import Testing

/// An rsyslog with a configuration of the test's own, in the foreground: what it has understood of each message is a line
/// of `seen`.
private final class Rsyslog: Sendable {
    private let child: Child
    private let folder: String

    static var isInstalled: Bool { Child.find("rsyslogd") != nil }
    static func socket(_ folder: String) -> String { "\(folder)/dev-log" }

    /// - Parameter port: of UDP.
    init(_ folder: TemporaryFolder, port: UInt16) throws {
        self.folder = folder.path
        let config = try folder.write(
            "rsyslog.conf",
            """
            global(workDirectory="\(folder.path)")
            module(load="imuxsock" SysSock.Use="off")
            module(load="imudp")
            template(name="seen" type="string" string="%syslogfacility-text%.%syslogseverity-text% %app-name% %procid% %msgid% %hostname% %msg%\\n")
            input(type="imuxsock" Socket="\(Rsyslog.socket(folder.path))")
            input(type="imudp" address="127.0.0.1" port="\(port)")
            action(type="omfile" file="\(folder.path)/seen" template="seen")

            """)
        child = try Child("rsyslogd", ["-n", "-iNONE", "-f", config])
        let path = Rsyslog.socket(folder.path)
        try awaitUntil("rsyslog has its socket: \(child.output)") {
            guard !child.hasEnded else { throw Failure("rsyslogd ended: \(child.output)") }
            return access(path, F_OK) == 0
        }
    }

    /// As a restart does: nothing is left of it.
    func stop() throws {
        child.signal(SIGTERM)
        try child.waitForExit()
        unlink(Rsyslog.socket(folder))
    }

    var seen: [Message] {
        let text = (try? String(contentsOfFile: "\(folder)/seen", encoding: .utf8)) ?? ""
        return text.split(separator: "\n").compactMap { Message($0) }
    }

    struct Message {
        let priority: String
        let tag: String
        let process: String
        let event: String
        let host: String
        let text: String

        init?(_ line: Substring) {
            let words = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: false).map(String.init)
            guard words.count == 6 else { return nil }
            (priority, tag, process, event, host) = (words[0], words[1], words[2], words[3], words[4])
            text = words[5].trimmingCharacters(in: .whitespaces)
        }
        var isJSON: Bool { (try? JSONSerialization.jsonObject(with: Data(text.utf8))) is [String: Any] }
    }
}

@Suite("A real syslog daemon reads what a node sends it", .enabled(if: Rsyslog.isInstalled, "rsyslog is not installed"))
struct SyslogTests {
    private static func connectOnce(_ entry: Place) throws {
        let client = try Socket.connect(to: entry)
        try client.send("x")
        _ = try client.receive(exactly: 1)
        client.finish()
        _ = try client.receiveToEnd()
    }

    @Test("by its socket and over UDP: facility, severity, tag, process and event, and each line whole")
    func fields() throws {
        let folder = try TemporaryFolder()
        let port = try FreePort.take()
        let daemon = try Rsyslog(folder, port: port)
        let (server, entry) = (try Server.echo(), Place("::1", try FreePort.take()))
        var config = ReloadTests.config(entry, [server.place])
        config.settings = [
            "connection_log syslog unix:\(Rsyslog.socket(folder.path)) facility local3 tag edge",
            "event_log syslog 127.0.0.1:\(port) facility daemon",
        ]
        let site = try ReloadTests.Site(config, at: entry, in: folder)
        for _ in 0..<50 { try Self.connectOnce(entry) }
        site.node.child.signal(SIGUSR2)
        try awaitUntil("their messages") {
            daemon.seen.count { $0.priority.hasPrefix("local3") } == 50
                && daemon.seen.contains { $0.text.contains("signal_ignored") }
        }
        let pid = "\(site.node.child.pid)"
        for message in daemon.seen { #expect(message.isJSON && message.process == pid, "\(message)") }
        let connections = daemon.seen.filter { $0.priority.hasPrefix("local3") }
        #expect(connections.allSatisfy { $0.priority == "local3.info" && $0.tag == "edge" })
        #expect(Set(connections.compactMap { LogLine($0.text)?.uniqueID }).count == 50)
        let event = try daemon.seen.first { $0.text.contains("signal_ignored") }.unwrap("event")
        #expect(event.priority == "daemon.notice" && event.tag == "pipelined" && event.event == "signal_ignored")
        #expect(!event.host.isEmpty && event.host != "-")
        site.node.child.signal(SIGTERM)
        #expect(try site.node.child.waitForExit() == .code(0))
        try daemon.stop()
    }

    @Test("a daemon that is away and comes back: the node serves on, and every line arrives once")
    func restarted() throws {
        let folder = try TemporaryFolder()
        let port = try FreePort.take()
        var daemon = try Rsyslog(folder, port: port)
        let (server, entry) = (try Server.echo(), Place("::1", try FreePort.take()))
        var config = ReloadTests.config(entry, [server.place])
        config.settings = ["connection_log syslog unix:\(Rsyslog.socket(folder.path)) format rfc3164"]
        let site = try ReloadTests.Site(config, at: entry, in: folder)
        for round in 1...3 {
            for _ in 0..<20 { try Self.connectOnce(entry) }
            try awaitUntil("their messages") { daemon.seen.count == 20 + 40 * (round - 1) }
            try daemon.stop()
            for _ in 0..<20 { try Self.connectOnce(entry) }
            _ = try site.node.child.waitForError("that it is away") { lines in
                lines.count { $0.isEvent("log_failed") } == round ? true : nil
            }
            let problems = try Admin.json(["status"], site.admin)["problems"] as? [String] ?? []
            #expect(problems.contains { $0.contains("no syslog daemon is there") }, "\(problems)")
            daemon = try Rsyslog(folder, port: port)
            _ = try site.node.child.waitForError("that it is back") { lines in
                lines.count { $0.isEvent("log_recovered") } == round ? true : nil
            }
            try awaitUntil("what waited") { daemon.seen.count == 40 * round }
        }
        #expect(Set(daemon.seen.compactMap { LogLine($0.text)?.uniqueID }).count == 120)
        site.node.child.signal(SIGTERM)
        #expect(try site.node.child.waitForExit() == .code(0))
        try daemon.stop()
    }
}
