import CLinux
import FilterCatalog
import Glibc
import Pipeline
import PipelineRuntime
import Synchronization
import TestSupport
import Testing

@testable import PipelineAdmin
@testable import PipelineNode

/// A pipe whose reader reads when the test says so.
private final class SlowPipe {
    let read: Int32
    private(set) var write: Int32

    init() throws {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw PipeFault() }
        (read, write) = (ends[0], ends[1])
        _ = fcntl(read, F_SETFL, O_NONBLOCK)
    }
    struct PipeFault: Error {}

    deinit {
        close(read)
        closeWriter()
    }
    func closeWriter() {
        if write >= 0 { close(write) }
        write = -1
    }

    /// What is there now.
    func take() -> [UInt8] {
        var room = [UInt8](repeating: 0, count: 65536)
        var all: [UInt8] = []
        while true {
            let count = Glibc.read(read, &room, room.count)
            guard count > 0 else { return all }
            all += room[..<count]
        }
    }
}

@Suite("R27: no stream that stands still stops who writes to it", .serialized)
struct LogWriterTests {
    private static let line = Array((String(repeating: "x", count: 99) + "\n").utf8)

    @Test("a stalled reader of either stream costs the other nothing; lines are dropped, counted, and go on behind it")
    func stalled() throws {
        for stalled in ["stdout", "stderr"] {
            let (out, error) = (try SlowPipe(), try SlowPipe())
            let writer = try #require(LogWriter.start(out: out.write, error: error.write).writer)
            let (slow, quick) = stalled == "stdout" ? (writer.out, writer.error) : (writer.error, writer.out)
            let (slowPipe, quickPipe) = stalled == "stdout" ? (out, error) : (error, out)
            var taken = 0
            for _ in 0..<30_000 where slow.append(Self.line) { taken += 1 }
            #expect(taken < 30_000 && slow.counts.dropped == UInt64(30_000 - taken))
            quick.append(Array("through\n".utf8))
            var passed: [UInt8] = []
            try awaitUntil("\(stalled) stalls, the other writes") {
                passed += quickPipe.take()
                return String(decoding: passed, as: UTF8.self).contains("through\n")
            }
            // The reader comes back: whole lines, then how many are missing, then the next.
            var text: [UInt8] = []
            try awaitUntil("what waited") {
                text += slowPipe.take()
                return slow.counts.waiting == 0 && !slow.counts.isDropping
            }
            slow.append(Array("after\n".utf8))
            try awaitUntil("what comes after") {
                text += slowPipe.take()
                return text.suffix(6) == Array("after\n".utf8)[...]
            }
            let lines = text.split(separator: 0x0A)
            #expect(lines.dropLast(2).allSatisfy { $0.count == 99 })
            #expect(lines.count == taken + 2)
            let notice = String(decoding: lines[lines.count - 2], as: UTF8.self)
            #expect(notice.contains("\"event\":\"lines_dropped\"") && notice.contains("\"count\":\(30_000 - taken)"))
            #expect(writer.finish(patience: 60_000))
        }
    }

    @Test("a pipe that was given non-blocking is no broken one, and one that can't be opened anew is asked first")
    func nonBlocking() throws {
        let (out, error) = (try SlowPipe(), try SlowPipe())
        _ = fcntl(out.write, F_SETFL, O_NONBLOCK)
        let writer = try #require(LogWriter.start(out: out.write, error: error.write).writer)
        #expect(fcntl(error.write, F_GETFL) & O_NONBLOCK == 0, "who shares the descriptor keeps its ways")
        for _ in 0..<2000 { writer.out.append(Self.line) }
        var count = 0
        try awaitUntil("all of it") {
            count += out.take().count
            return count == 200_000
        }
        #expect(writer.out.counts.error == 0 && writer.out.counts.dropped == 0)
        #expect(writer.finish(patience: 60_000))
    }

    @Test("a full disk ends nothing: the lines that waited are written when there is room")
    func full() throws {
        let full = open("/dev/full", O_WRONLY | O_CLOEXEC)
        defer { close(full) }
        let error = try SlowPipe()
        let writer = try #require(LogWriter.start(out: full, error: error.write).writer)
        writer.out.append(Self.line)
        try awaitUntil("that it failed") { writer.out.counts.error == ENOSPC }
        #expect(writer.out.counts.waiting == 100 && !writer.out.counts.hasEnded)
        var said: [UInt8] = []
        try awaitUntil("that it is said") {
            said += error.take()
            return String(decoding: said, as: UTF8.self).contains("\"event\":\"log_failed\"")
        }
        #expect(LogReport(writer).problems.first?.contains("the disk is full") == true)
        #expect(!writer.finish(patience: 10), "what can't be written is not awaited for ever")
    }

    @Test("only a reader that is gone for good ends a stream, and that is said once")
    func gone() throws {
        let error = try SlowPipe()
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)
        signal(SIGPIPE, SIG_IGN)
        let writer = try #require(LogWriter.start(out: ends[1], error: error.write).writer)
        close(ends[0])
        for _ in 0..<3 { writer.out.append(Self.line) }
        try awaitUntil("the end") { writer.out.counts.hasEnded }
        #expect(!writer.out.append(Self.line) && writer.out.counts.dropped >= 1)
        #expect(!writer.finish(patience: 60_000))
        close(ends[1])
        let said = String(decoding: error.take(), as: UTF8.self)
        #expect(said.split(separator: "\n").count { $0.contains("\"event\":\"log_broken\"") } == 1)
    }

    @Test("both streams into one pipe: no line is cut by one of the other")
    func shared() throws {
        let both = try SlowPipe()
        let writer = try #require(LogWriter.start(out: both.write, error: both.write).writer)
        let long = Array((String(repeating: "o", count: 50_000) + "\n").utf8)
        let other = Array((String(repeating: "e", count: 3000) + "\n").utf8)
        for _ in 0..<15 {
            writer.out.append(long)
            for _ in 0..<4 { writer.error.append(other) }
        }
        var text: [UInt8] = []
        try awaitUntil("all of it") {
            text += both.take()
            return text.count == 15 * (long.count + 4 * other.count)
        }
        for line in text.split(separator: 0x0A) { #expect(Set(line).count == 1) }
        #expect(writer.finish(patience: 60_000))
    }

    @Test("refused connections of a flood are counted in a line, relayed ones are logged whole")
    func refusals() throws {
        let (out, error) = (try SlowPipe(), try SlowPipe())
        let writer = try #require(LogWriter.start(out: out.write, error: error.write).writer)
        let ring = RecordRing(capacity: 1 << 14)
        writer.follow([ring], reasons: ReasonTable(catalog: catalog), writes: true, watch: nil)
        var record = ConnectionRecord()
        record.reason = RuntimeReason.clientLeftEarly.code
        for number in 0..<6000 {
            record.isRelayed = number % 20 == 0
            record.client = Endpoint(IPAddress(high: 0x2001_0DB8 << 32, low: UInt64(number)), 1000)
            #expect(ring.push(record))
        }
        var text: [UInt8] = []
        try awaitUntil("the count") {
            text += out.take()
            return String(decoding: text, as: UTF8.self).contains("\"event\":\"refusals\"")
        }
        #expect(writer.flush(patience: 60_000))
        text += out.take()
        let lines = String(decoding: text, as: UTF8.self).split(separator: "\n")
        let summed = Int(writer.summed)
        #expect(summed > 0 && lines.count { $0.contains("\"event\":\"connection\"") } == 6000 - summed)
        #expect(lines.contains { $0.contains("2001:db8::/64") })
        #expect(lines.count { $0.contains("\"event\":\"connection\"") } >= 300 + 100)
        #expect(writer.finish(patience: 60_000))
    }

    @Test("R27: records that a worker could not hand over are missing with a mark")
    func lost() throws {
        let (out, error) = (try SlowPipe(), try SlowPipe())
        let writer = try #require(LogWriter.start(out: out.write, error: error.write).writer)
        let ring = RecordRing(capacity: 4)
        let losses = Losses()
        writer.follow(
            [ring], reasons: ReasonTable(catalog: catalog), writes: true, watch: nil,
            lost: { losses.count.load(ordering: .relaxed) })
        var record = ConnectionRecord()
        record.isRelayed = true
        for _ in 0..<9 where !ring.push(record) { losses.count.wrappingAdd(1, ordering: .relaxed) }
        var text = ""
        try awaitUntil("the mark") {
            text += String(decoding: out.take(), as: UTF8.self)
            return text.contains("\"event\":\"lines_dropped\"")
        }
        #expect(writer.finish(patience: 60_000))
        text += String(decoding: out.take(), as: UTF8.self)
        let told = losses.count.load(ordering: .relaxed)
        #expect(told > 0 && text.contains("\"count\":\(told)"), "\(text)")
    }

    @Test("R27: a mark that finds no room, or no reader, is not counted as a line that was dropped")
    func lostWithoutReader() throws {
        let error = try SlowPipe()
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { close(ends[1]) }
        signal(SIGPIPE, SIG_IGN)
        let writer = try #require(LogWriter.start(out: ends[1], error: error.write).writer)
        let (ring, asked) = (RecordRing(capacity: 4), Losses())
        close(ends[0])
        writer.out.append(Self.line)
        try awaitUntil("the end of the stream") { writer.out.counts.hasEnded }
        let before = writer.out.counts.dropped
        writer.follow(
            [ring], reasons: ReasonTable(catalog: catalog), writes: true, watch: nil,
            lost: { 10 + asked.count.wrappingAdd(1, ordering: .relaxed).newValue })
        try awaitUntil("some looks of the writer") { asked.count.load(ordering: .relaxed) > 5 }
        #expect(writer.out.counts.dropped == before)
        _ = writer.finish(patience: 60_000)
    }
}

private final class Losses: Sendable {
    let count = Atomic<UInt64>(0)
}
