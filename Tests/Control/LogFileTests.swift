import CLinux
import FilterCatalog
import Foundation
import Glibc
import Pipeline
import PipelineRuntime
import Synchronization
import TestSupport
import Testing

@testable import PipelineAdmin
@testable import PipelineNode

/// A log writer whose standard streams are files of the test, in a folder that goes with it.
final class WriterSite {
    let folder: String
    let writer: LogWriter
    private let descriptors: [Int32]

    init() throws {
        let template = FileManager.default.temporaryDirectory.appendingPathComponent("pipelined-log-XXXXXX").path
        var path = Array(template.utf8CString)
        try #require(mkdtemp(&path) != nil)
        folder = String(decoding: path.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        let folder = folder
        descriptors = ["out", "err"].map { open("\(folder)/\($0)", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600) }
        try #require(descriptors.allSatisfy { $0 >= 0 })
        writer = try #require(LogWriter.start(out: descriptors[0], error: descriptors[1]).writer)
    }

    deinit {
        _ = writer.finish(patience: 2000)
        for descriptor in descriptors { close(descriptor) }
        try? FileManager.default.removeItem(atPath: folder)
    }

    func path(_ name: String) -> String { "\(folder)/\(name)" }
    func text(_ name: String) -> String { (try? String(contentsOfFile: path(name), encoding: .utf8)) ?? "" }
    func lines(_ name: String) -> [String] { text(name).split(separator: "\n").map(String.init) }
    func has(_ name: String, _ event: String) -> Bool { text(name).contains("\"event\":\"\(event)\"") }

    func use(connections: LogDestination = .standard, events: LogDestination = .standard) throws(LogFileError) {
        var settings = LogSettings()
        (settings.connections, settings.events) = (connections, events)
        let staged = try writer.stage(settings)
        writer.moveConnections(staged)
        writer.moveEvents(staged)
        // The writer may be about to write the next line where it did before.
        writer.flush(patience: 500)
    }

    func say(_ text: String) { writer.out.append(Array("\(text)\n".utf8)) }
}

@Suite("Logs that a host can rotate", .serialized)
struct LogFileTests {
    @Test("rename and reopen, again and again while lines come: each line once, in order, none in no file")
    func rotated() throws {
        let site = try WriterSite()
        try site.use(connections: .file(site.path("log")))
        var names: [String] = []
        for number in 0..<4000 {
            site.say("line \(number)")
            guard number % 500 == 250 else { continue }
            names.append("log.\(number)")
            try #require(rename(site.path("log"), site.path(names.last ?? "")) == 0)
            let before = site.lines("err").count { $0.contains("log_reopened") }
            #expect(site.writer.reopen())
            try awaitUntil("it is open again") { site.lines("err").count { $0.contains("log_reopened") } > before }
            #expect(FileManager.default.fileExists(atPath: site.path("log")))
        }
        #expect(site.writer.flush(patience: 60_000))
        let all = (names + ["log"]).flatMap(site.lines)
        #expect(all == (0..<4000).map { "line \($0)" })
        #expect(site.lines("out").isEmpty)
        #expect(try FileManager.default.attributesOfItem(atPath: site.path("log"))[.posixPermissions] as? Int == 0o640)
    }

    @Test("a file that rotation has made beforehand is taken with the mode and owner that it has")
    func madeBefore() throws {
        let site = try WriterSite()
        try site.use(connections: .file(site.path("log")))
        try #require(rename(site.path("log"), site.path("log.1")) == 0)
        close(open(site.path("log"), O_CREAT | O_CLOEXEC, 0o600))
        #expect(site.writer.reopen())
        try awaitUntil("it is open again") { site.has("err", "log_reopened") }
        site.say("new")
        #expect(site.writer.flush(patience: 60_000))
        #expect(site.lines("log") == ["new"])
        #expect(try FileManager.default.attributesOfItem(atPath: site.path("log"))[.posixPermissions] as? Int == 0o600)
    }

    /// What may stand in the place of a log file by the time that it is opened again.
    enum Obstacle: String, CaseIterable { case noFolder, fifo, link, folder, socket }

    @Test(
        "what can't be opened again is said once, lines go on to the old file, and the node finds the way back by itself",
        arguments: Obstacle.allCases)
    func obstacles(_ obstacle: Obstacle) throws {
        let site = try WriterSite()
        try #require(mkdir(site.path("logs"), 0o755) == 0)
        try site.use(connections: .file(site.path("logs/log")))
        site.say("first")
        #expect(site.writer.flush(patience: 60_000))
        switch obstacle {
        case .noFolder: try #require(rename(site.path("logs"), site.path("old")) == 0)
        case .fifo, .link, .folder, .socket:
            try #require(mkdir(site.path("old"), 0o755) == 0)
            try #require(rename(site.path("logs/log"), site.path("old/log")) == 0)
            try put(obstacle, at: site.path("logs/log"), aim: site.path("victim"))
        }
        #expect(site.writer.reopen())
        try awaitUntil("that it failed") { site.has("err", "log_reopen_failed") }
        site.say("second")
        #expect(site.writer.flush(patience: 60_000))
        #expect(site.lines("old/log") == ["first", "second"])
        #expect(site.text("victim") == "nothing of ours\n" || obstacle != .link)
        let report = LogReport(site.writer)
        #expect(report.problems.count { $0.contains("can't be opened again") } == 1, "\(report.problems)")
        if obstacle == .noFolder {
            try #require(mkdir(site.path("logs"), 0o755) == 0)
        } else {
            try FileManager.default.removeItem(atPath: site.path("logs/log"))
        }
        try awaitUntil("it is open again") { site.has("err", "log_reopened") }
        site.say("third")
        #expect(site.writer.flush(patience: 60_000))
        #expect(site.lines("logs/log") == ["third"] && site.lines("old/log").count == 2)
        #expect(LogReport(site.writer).problems.isEmpty)
        #expect(site.lines("err").count { $0.contains("log_reopen_failed") } == 1)
    }

    @Test("a second attempt comes a second later and says nothing new; a new signal is a new question")
    func attempts() throws {
        let site = try WriterSite()
        let (start, path) = (Instant(nanoseconds: 5_000_000_000), site.path("none/log"))
        var reopening = LogReopening()
        #expect(reopening.due == nil)
        for _ in 0..<2 {
            reopening.ask()
            #expect(try #require(reopening.due) <= start)
            for isNews in [true, false, false] {
                guard case .failed(ENOENT, isNews) = reopening.attempt(path, start) else {
                    Issue.record("not \(isNews)")
                    return
                }
                #expect(reopening.due == start + .seconds(1))
            }
        }
        try #require(mkdir(site.path("none"), 0o755) == 0)
        guard case .opened = reopening.attempt(path, start) else {
            Issue.record("not opened")
            return
        }
        #expect(reopening.due == nil)
    }

    private func put(_ obstacle: Obstacle, at path: String, aim: String) throws {
        switch obstacle {
        case .fifo: try #require(mkfifo(path, 0o600) == 0)
        case .link:
            try "nothing of ours\n".write(toFile: aim, atomically: false, encoding: .utf8)
            try #require(symlink(aim, path) == 0)
        case .folder: try #require(mkdir(path, 0o755) == 0)
        case .socket: close(cl_unix_listen(path, 0o600, 1))
        case .noFolder: break
        }
    }

    /// What this process has open of a folder: other tests open and close what is theirs meanwhile.
    private func openFiles(under folder: String) throws -> [String] {
        let all = "/proc/self/fd"
        return try FileManager.default.contentsOfDirectory(atPath: all)
            .compactMap { try? FileManager.default.destinationOfSymbolicLink(atPath: "\(all)/\($0)") }
            .filter { $0.hasPrefix(folder + "/") }.sorted()
    }

    @Test("the same at the start refuses it, with what to do, and leaves nothing open")
    func refused() throws {
        let site = try WriterSite()
        try #require(mkfifo(site.path("fifo"), 0o600) == 0)
        try #require(symlink(site.path("aim"), site.path("link")) == 0)
        let before = try openFiles(under: site.folder)
        for (name, words) in [
            ("fifo", "no regular file"), ("link", "symbolic link"), ("none/log", "make it"), ("", "directory"),
        ] {
            let error = #expect(throws: LogFileError.self) { try site.use(connections: .file(site.path(name))) }
            #expect(error?.description.contains(words) == true, "\(String(describing: error))")
        }
        #expect(!FileManager.default.fileExists(atPath: site.path("aim")))
        #expect(try openFiles(under: site.folder) == before)
        site.say("as ever")
        #expect(site.writer.flush(patience: 60_000))
        #expect(site.lines("out") == ["as ever"])
    }

    @Test("without a file there is nothing to open again")
    func noFile() throws {
        let site = try WriterSite()
        #expect(!site.writer.reopen())
    }

    @Test("events: what was said before stays on standard error, which says where they go on; and they come back")
    func events() throws {
        let site = try WriterSite()
        site.writer.error.append(Array("before\n".utf8))
        try site.use(events: .file(site.path("events")))
        try awaitUntil("it is open") { site.has("events", "log_opened") }
        site.writer.error.append(Array("after\n".utf8))
        #expect(site.writer.flush(patience: 60_000))
        #expect(site.lines("err").first == "before" && site.lines("events").last == "after")
        #expect(site.lines("err").count == 2 && site.has("err", "log_opened"))
        try site.use()
        try awaitUntil("they are back") { site.lines("err").count == 3 }
        site.writer.error.append(Array("back\n".utf8))
        #expect(site.writer.flush(patience: 60_000))
        #expect(site.lines("err").last == "back" && site.lines("events").count == 2)
    }

    @Test("both logs in one file: no line is cut by one of the other")
    func shared() throws {
        let site = try WriterSite()
        try site.use(connections: .file(site.path("log")), events: .file(site.path("log")))
        let long = Array((String(repeating: "o", count: 50_000) + "\n").utf8)
        let other = Array((String(repeating: "e", count: 3000) + "\n").utf8)
        for round in 0..<15 {
            site.writer.out.append(long)
            for _ in 0..<4 { site.writer.error.append(other) }
            if round % 5 == 4 { #expect(site.writer.reopen()) }
        }
        #expect(site.writer.flush(patience: 60_000))
        let lines = site.lines("log").filter { !$0.hasPrefix("{") }
        #expect(lines.count == 75 && lines.allSatisfy { Set($0).count == 1 })
    }

    @Test("a line that was written in part is whole for the next file, wherever it stands in the queue")
    func cut() throws {
        let stream = LogStream(capacity: 1000, wake: {})
        let line = { (number: Int) in Array((String(repeating: "\(number % 10)", count: 299) + "\n").utf8) }
        for number in 0..<50 {
            stream.append(line(number))
            stream.append(line(number + 1))
            // A whole line, and a part of the next.
            var left = 300 + 10 + number * 5
            while left > 0 {
                let piece = stream.piece(limit: left)
                left -= piece.count
                stream.wrote(piece.count)
            }
            #expect(!stream.isAtLineStart && stream.counts.waiting == 300)
            stream.restart()
            #expect(stream.isAtLineStart)
            var copy: [UInt8] = []
            stream.copyLine(into: &copy)
            #expect(copy == line(number + 1))
            var written: [UInt8] = []
            while !stream.isEmpty {
                let piece = stream.piece(limit: 123)
                written += Array(piece)
                stream.wrote(piece.count)
            }
            #expect(written == line(number + 1))
        }
        stream.append(Array("no end".utf8))
        stream.wrote(stream.piece(limit: 100).count)
        #expect(stream.isEmpty && !stream.isAtLineStart)
    }

    @Test("the writer is woken when lines come to wait, and when they begin to be dropped")
    func wakes() {
        let wakes = Mutex(0)
        let stream = LogStream(capacity: 1000, wake: { wakes.withLock { $0 += 1 } })
        let line = [UInt8](repeating: 0x0A, count: 300)
        for _ in 0..<3 { #expect(stream.append(line)) }
        #expect(wakes.withLock { $0 } == 1)
        // It may have gone to sleep meanwhile, for a reader that never comes: nobody else would have it say so.
        for _ in 0..<5 { #expect(!stream.append(line)) }
        #expect(wakes.withLock { $0 } == 2)
    }
}
