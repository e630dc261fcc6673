import CLinux
import Foundation
import Glibc
import Pipeline
import TestSupport
import Testing

@testable import PipelineHost
@testable import PipelineNode

@Suite("Watching what a path leads to")
struct FileWatchTests {
    private let folder: String

    init() throws {
        var template = Array("\(NSTemporaryDirectory())pipelined-watch-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Failure(call: "mkdtemp") }
        folder = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    private func path(_ name: String) -> String { "\(folder)/\(name)" }
    private func put(_ name: String) throws { try "x".write(toFile: path(name), atomically: false, encoding: .utf8) }

    /// All that has come by now: events of one's own calls are there when they return.
    private func take(_ watch: FileWatch, _ name: String) throws -> FileNews {
        var error: Int32 = 0
        let news = watch.take(path(name), error: &error)
        #expect(error == 0)
        return news
    }

    @Test("a trail has each name of the way, links followed")
    func trail() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        mkdir(path("real"), 0o700)
        try put("real/file")
        symlink("real", path("link"))
        symlink("../link/./file", path("real/alias"))
        let trail = PathTrail(path("link/alias"))
        #expect(trail.end?.kind == .file)
        #expect(trail.steps.suffix(5).map(\.name) == ["link", "real", "alias", "link", "real", "file"].suffix(5))
        #expect(trail.steps.last?.path.hasSuffix("/real/file") == true)
        #expect(PathTrail(path("real/none/file")).error == ENOENT)
        #expect(PathTrail(path("real/file/x")).error == ENOTDIR)
        #expect(PathTrail("/").end == nil && PathTrail("/").steps.isEmpty)
        symlink("loop", path("loop"))
        #expect(PathTrail(path("loop")).error == ELOOP)
    }

    @Test("what an event means: whole, unfinished, or nothing of interest")
    func news() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let watch = try FileWatch.open(path("file")).watch.unwrap("watch")
        #expect(try take(watch, "file").standing == .unchanged)
        try put("other")
        #expect(try take(watch, "file").standing == .unchanged)
        let file = open(path("file"), O_WRONLY | O_CREAT, 0o600)
        #expect(try take(watch, "file").standing == .unfinished)
        #expect(write(file, "x", 1) == 1)
        var got = try take(watch, "file")
        #expect(got.standing == .unfinished && got.isWritten)
        close(file)
        got = try take(watch, "file")
        #expect(got.standing == .whole && got.isWritten)
        rename(path("other"), path("file"))
        got = try take(watch, "file")
        #expect(got.standing == .whole && !got.isWritten)
        // The new one is watched, and the one before is not.
        try put("file")
        #expect(try take(watch, "file").standing == .whole)
        unlink(path("file"))
        #expect(try take(watch, "file").standing == .unfinished)
        symlink("target", path("file"))
        _ = try take(watch, "file")
        try put("target")
        #expect(try take(watch, "file").standing == .whole)
        symlink("target", path("second"))
        rename(path("second"), path("file"))
        #expect(try take(watch, "file").standing == .whole)
        chmod(path("target"), 0o640)
        #expect(try take(watch, "file").mayBeReadable)
    }

    @Test("IN_Q_OVERFLOW: what was lost counts as a change, and the watch goes on")
    func overflow() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try put("file")
        let watch = try FileWatch.open(path("file")).watch.unwrap("watch")
        let text = try String(contentsOfFile: "/proc/sys/fs/inotify/max_queued_events", encoding: .utf8)
        let most = try Int(text.trimmingCharacters(in: .whitespacesAndNewlines)).unwrap("limit")
        for _ in 0...(most / 2) {
            close(open(path("noise"), O_WRONLY | O_CREAT, 0o600))
            unlink(path("noise"))
        }
        // This one has no room.
        try put("new")
        rename(path("new"), path("file"))
        var isLost = false
        for _ in 0..<most where !isLost {
            let news = try take(watch, "file")
            isLost = news.isLost
            if isLost { #expect(news.standing == .whole) }
        }
        #expect(isLost)
        try put("file")
        #expect(try take(watch, "file").standing == .whole)
    }

    @Test("a read waits for a file at rest, and for others' turns")
    func schedule() {
        let at = { (milliseconds: UInt64) in Instant(nanoseconds: milliseconds * 1_000_000) }
        var schedule = ReadSchedule()
        #expect(schedule.start == nil)
        schedule.note(.unfinished, at(1000))
        #expect(schedule.start == at(1500))
        schedule.note(.unfinished, at(1400))
        #expect(schedule.start == at(1900))
        schedule.note(.unchanged, at(1450))
        #expect(schedule.start == at(1900))
        schedule.note(.whole, at(1500))
        #expect(schedule.start == at(1500))
        schedule.begin()
        #expect(schedule.start == nil)
        // It took 100 ms: others have 200.
        schedule.ended(began: at(1500), at(1600))
        schedule.note(.whole, at(1601))
        #expect(schedule.start == at(1800))
        schedule.begin()
        schedule.ended(began: at(1800), at(1800))
        schedule.retry(at: at(2800))
        #expect(schedule.start == at(2800))
        schedule.note(.whole, at(1802))
        #expect(schedule.start == at(1805))
    }
}
