import CLinux
import Pipeline
import PipelineRuntime
import PipelineText
import Synchronization

/// A bounded queue of lines for a standard stream. Adding never blocks: without room the newest lines are dropped and
/// counted, and a later line reports their number (R27).
///
/// Threading: ``append(_:)`` and ``counts`` from any thread, the rest is the writer's.
package final class LogStream: @unchecked Sendable {
    package struct Counts: Sendable, Equatable {
        /// Taken, and dropped for want of room or of a reader.
        package var lines: UInt64 = 0
        package var dropped: UInt64 = 0
        /// Bytes that are not written yet.
        package var waiting = 0
        /// The errno of the last write; 0: it went well.
        package var error: Int32 = 0
        /// Its reader is gone for good.
        package var hasEnded = false
        /// Lines are being dropped now.
        package var isDropping = false
        /// Nobody has taken anything of what waits for ``LogSink/stallTime``.
        package var isStalled = false
        /// Its file could not be opened again: an errno; 0: nobody waits for that.
        package var reopenError: Int32 = 0
    }

    private struct Ring {
        var counts = Counts()
        var head = 0
        /// Bytes of the first line that are written. It stays in the queue until it is whole, so that another file can
        /// have all of it.
        var partial = 0
        /// Dropped since the last report.
        var unsaid: UInt64 = 0
        /// The last byte that was written ended a line.
        var isAtLineStart = true
    }

    private let memory: UnsafeMutableRawBufferPointer
    private let ring = Mutex(Ring())
    private let wake: @Sendable () -> Void

    /// - Parameters:
    ///   - capacity: bytes that wait at most; touched as they do.
    ///   - wake: the writer.
    init(capacity: Int, wake: @escaping @Sendable () -> Void) {
        memory = .allocate(byteCount: max(1, capacity), alignment: 16)
        self.wake = wake
    }

    deinit { memory.deallocate() }

    package var counts: Counts { ring.withLock { $0.counts } }

    /// Takes a line, its line break included; false: it was dropped.
    @discardableResult package func append(_ line: [UInt8]) -> Bool {
        let (isTaken, isNews) = ring.withLock { ring in
            let isFirst = ring.counts.waiting == 0
            // The report of dropped lines comes before the next line.
            guard !ring.counts.hasEnded, ring.unsaid == 0, put(line, &ring) else {
                ring.counts.dropped += 1
                guard !ring.counts.hasEnded else { return (false, false) }
                ring.unsaid += 1
                // The writer may wait for a reader that never comes: it has to say so.
                let begins = !ring.counts.isDropping
                ring.counts.isDropping = true
                return (false, begins)
            }
            ring.counts.lines += 1
            return (true, isFirst)
        }
        if isNews { wake() }
        return isTaken
    }

    private func put(_ line: [UInt8], _ ring: inout Ring) -> Bool {
        guard line.count <= memory.count - ring.counts.waiting else { return false }
        let start = (ring.head + ring.counts.waiting) % memory.count
        let first = min(line.count, memory.count - start)
        line.withUnsafeBytes { bytes in
            UnsafeMutableRawBufferPointer(rebasing: memory[start..<start + first])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<first]))
            memory.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[first...]))
        }
        ring.counts.waiting += line.count
        return true
    }

    // MARK: The writer's side

    /// The next piece to write: complete lines if possible, at most `limit` bytes. It stays in the queue until
    /// ``wrote(_:)``.
    func piece(limit: Int) -> UnsafeRawBufferPointer {
        let (range, isWhole) = ring.withLock { ring in
            let start = (ring.head + ring.partial) % memory.count
            let rest = ring.counts.waiting - ring.partial
            let count = min(limit, rest, memory.count - start)
            return (start..<start + count, count == rest)
        }
        let bytes = UnsafeRawBufferPointer(rebasing: memory[range])
        guard !isWhole, let end = bytes.lastIndex(of: 0x0A) else { return bytes }
        return UnsafeRawBufferPointer(rebasing: bytes[...end])
    }

    /// Copies the first line with its line break. Nothing of it may be written yet.
    func copyLine(into line: inout [UInt8]) {
        let (head, waiting) = ring.withLock { ($0.head, $0.counts.waiting) }
        line.removeAll(keepingCapacity: true)
        let first = UnsafeRawBufferPointer(rebasing: memory[head..<min(memory.count, head + waiting)])
        let rest = UnsafeRawBufferPointer(rebasing: memory[..<(waiting - first.count)])
        for part in [first, rest] {
            if let end = part.firstIndex(of: 0x0A) {
                line.append(contentsOf: part[...end])
                return
            }
            line.append(contentsOf: part)
        }
    }

    /// - Parameter isProven: it went well, as far as that can be known.
    func wrote(_ count: Int, isProven: Bool = true) {
        guard count > 0 else { return }
        ring.withLock { ring in
            ring.partial += count
            if isProven { ring.counts.error = 0 }
            let end = ring.head + ring.partial
            ring.isAtLineStart = memory[(end - 1) % memory.count] == 0x0A
            if ring.isAtLineStart || ring.partial == ring.counts.waiting { return release(ring.partial, &ring) }
            var back = 1
            while back < count, memory[(end - 1 - back) % memory.count] != 0x0A { back += 1 }
            if back < count { release(ring.partial - back, &ring) }
        }
    }

    private func release(_ count: Int, _ ring: inout Ring) {
        ring.head = (ring.head + count) % memory.count
        ring.counts.waiting -= count
        ring.partial -= count
    }

    /// Lines that were handed over, and that somebody has said did not arrive, or that nobody takes.
    func lost(_ count: UInt64) { ring.withLock { $0.counts.dropped += count } }

    /// The next piece goes somewhere else: a line that was written in part begins anew, and a stream that had ended
    /// goes on. What was wrong is so until something is written.
    func restart() {
        ring.withLock { ring in
            ring.partial = 0
            ring.isAtLineStart = true
            if ring.counts.waiting == 0 { ring.counts.error = 0 }
            ring.counts.reopenError = 0
            ring.counts.hasEnded = false
        }
    }

    func failedToReopen(_ error: Int32) { ring.withLock { $0.counts.reopenError = error } }

    var isAtLineStart: Bool { ring.withLock { $0.isAtLineStart } }
    var isEmpty: Bool { ring.withLock { $0.counts.waiting == 0 } }

    func stalled(_ isStalled: Bool) { ring.withLock { $0.counts.isStalled = isStalled } }

    func failed(_ error: Int32) { ring.withLock { $0.counts.error = error } }

    /// Ends writing, and drops queued lines.
    func end(_ error: Int32) {
        ring.withLock { ring in
            ring.counts.error = error
            ring.counts.hasEnded = true
            ring.counts.waiting = 0
            ring.partial = 0
            ring.counts.isDropping = false
            ring.unsaid = 0
        }
    }

    /// Reports lines that were lost before this queue. False: there is no room for the report now.
    func sayMissing(_ count: UInt64, _ why: StaticString) -> Bool {
        ring.withLock { ring in
            ring.counts.hasEnded || ring.unsaid == 0 && put(LogStream.mark(count, why), &ring)
        }
    }

    private static func mark(_ count: UInt64, _ why: StaticString) -> [UInt8] {
        ControlLog.line("lines_dropped", "\(why)", time: cl_wall_clock()) { $0.field("count", count) }
    }

    /// Reports the number of dropped lines, once a quarter of the queue is free. 0: none, or not yet.
    func sayDropped() -> UInt64 {
        ring.withLock { ring in
            let dropped = ring.unsaid
            guard dropped > 0, memory.count - ring.counts.waiting >= memory.count / 4 else { return 0 }
            let why: StaticString = "the reader of this stream was too slow, or the stream could not be written"
            guard put(LogStream.mark(dropped, why), &ring) else { return 0 }
            ring.unsaid = 0
            ring.counts.isDropping = false
            return dropped
        }
    }
}

extension ControlLog {
    package init(_ stream: LogStream) { self.init { stream.append($0) } }
}
