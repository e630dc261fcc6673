import CLinux
import Glibc
import Pipeline
import PipelineAlerts
import PipelineIntercept
import PipelineRuntime
import PipelineText
import PipelineThreads
import Synchronization

/// The log thread: writes node events to standard error, and ended connections to standard output. A slow reader, a
/// full disk or an unread pipe affects only lines: those without room are dropped and counted until there is room again
/// (R27). Only a reader that is gone for good (EPIPE) ends a stream.
///
/// Threading: made, given its connections and finished by the control thread; streams take lines from any.
package final class LogWriter: @unchecked Sendable {
    private static let outBytes = 1 << 20
    private static let errorBytes = 1 << 18
    /// Records that are formatted in one iteration, before they are written.
    private static let recordsInTurn = 64
    /// Priority (nice): below the workers, but high enough not to starve, so that relayed connections' lines are not
    /// lost.
    private static let priorityBelow: Int32 = 5
    /// Between looks into the workers' rings, and while many come.
    private static let pause = TimeSpan.milliseconds(50)
    private static let shortPause = TimeSpan.milliseconds(5)
    private static let manyRecords = 128

    private struct Connections {
        let rings: [RecordRing]
        var log: ConnectionLog
        let writes: Bool
        let watch: FlowWatch?
        let paths: UnreachablePaths?
        /// The total number of records dropped by rings.
        let lost: @Sendable () -> UInt64
        var saidLost: UInt64 = 0
    }

    package let out: LogStream
    package let error: LogStream
    private let loop: ThreadLoop
    private let waiting = Mutex<Connections?>(nil)
    private let refusalsPerSecond = Atomic<Int>(RefusalBudget.usual)
    private let refusalsSummed = Atomic<UInt64>(0)
    private let flushAsked = Atomic<Int>(0)
    private let flushed = Atomic<Int>(0)
    // The thread's own.
    private var isNew = true
    private var outSink: LogSink
    private var errorSink: LogSink
    private let sharesTarget: Bool
    private var connections: Connections?
    private var budget = RefusalBudget()
    private var takenInTurns = 0
    private var isOutSaidFailing = false
    private var hasSaidBroken = false
    private var droppedInOut: UInt64 = 0

    /// Starts the thread.
    /// - Parameters: descriptors to write to; they stay the caller's.
    /// - Returns: nil, with an errno, if the kernel gives no descriptor or no thread.
    package static func start(out: Int32 = 1, error: Int32 = 2) -> (writer: LogWriter?, error: Int32) {
        let (made, failure) = ThreadLoop.make()
        guard let loop = made else { return (nil, failure) }
        let streams = (
            out: LogStream(capacity: outBytes, wake: loop.wake), error: LogStream(capacity: errorBytes, wake: loop.wake)
        )
        let outSink = LogSink.open(out, streams.out)
        let errorSink = LogSink.open(error, streams.error)
        guard let first = outSink.sink, let second = errorSink.sink else {
            return (nil, outSink.sink == nil ? outSink.error : errorSink.error)
        }
        let writer = LogWriter(first, second, loop, sharesTarget: cl_same_file(out, error) != 0)
        let failed = loop.start("log", stackBytes: 1 << 19) { writer.iterate() }
        return failed == 0 ? (writer, 0) : (nil, failed)
    }

    private init(_ out: LogSink, _ error: LogSink, _ loop: ThreadLoop, sharesTarget: Bool) {
        (outSink, errorSink) = (out, error)
        (self.out, self.error) = (out.stream, error.stream)
        self.loop = loop
        self.sharesTarget = sharesTarget
    }

    deinit {
        for descriptor in [outSink.descriptor, errorSink.descriptor] { _ = cl_close(descriptor.number) }
    }

    // MARK: The control thread's side

    /// Starts to read these rings.
    /// - Parameters:
    ///   - reasons: names for reason codes; the same for every program of this build.
    ///   - writes: false: records only go to `watch`.
    ///   - watch: gets every record.
    ///   - paths: gets them too.
    ///   - lost: the number of records dropped by rings; called on the writer's thread.
    func follow(
        _ rings: [RecordRing], reasons: ReasonTable, writes: Bool, watch: FlowWatch?, paths: UnreachablePaths? = nil,
        lost: @escaping @Sendable () -> UInt64 = { 0 }
    ) {
        waiting.withLock {
            let log = ConnectionLog(reasons) { watch?.addresses(of: $0) ?? [] }
            $0 = Connections(rings: rings, log: log, writes: writes, watch: watch, paths: paths, lost: lost)
        }
        loop.wake()
    }

    /// Sets the number of lines a second for refused connections of each reason.
    func setRefusals(perSecond: Int) { refusalsPerSecond.store(perSecond, ordering: .relaxed) }

    /// Refused connections without their own line, which a `refusals` line counts.
    package var summed: UInt64 { refusalsSummed.load(ordering: .relaxed) }

    /// Waits until what came before is written.
    /// - Returns: false if that took longer than `patience` milliseconds, or if standard output's reader is gone.
    @discardableResult package func flush(patience: Int) -> Bool {
        let number = flushAsked.wrappingAdd(1, ordering: .acquiringAndReleasing).newValue
        loop.wake()
        for _ in 0..<max(1, patience / 2) {
            if flushed.load(ordering: .acquiring) >= number { return !out.counts.hasEnded }
            cl_sleep(2_000_000)
        }
        return false
    }

    /// The same, and ends the thread; if that takes too long, it ends with the process.
    @discardableResult package func finish(patience: Int) -> Bool {
        let isWhole = flush(patience: patience)
        // Not joined if it hangs in a write.
        _ = loop.stop(patience: .milliseconds(250))
        return isWhole
    }

    // MARK: The thread

    private func iterate() -> ThreadLoop.Next {
        if isNew {
            isNew = false
            _ = cl_lower_priority(LogWriter.priorityBelow)
        }
        if loop.isEnding { return .over }
        // Read before the rings, so that earlier records are written.
        let asked = flushAsked.load(ordering: .acquiring)
        let isFlushing = asked != flushed.load(ordering: .relaxed)
        let now = Instant(nanoseconds: cl_now())
        let hasMore = takeRecords(now, isLast: isFlushing)
        let progress = (out: write(&outSink, beside: error, now), error: write(&errorSink, beside: out, now))
        sayDropped()
        let isMoving = progress.out == .moved || progress.error == .moved
        if hasMore || isMoving { return .again }
        if isFlushing, progress.out == .idle, progress.error == .idle {
            flushed.store(asked, ordering: .releasing)
        }
        return wait(progress.out, progress.error, now)
    }

    /// One piece, unless the other stream is in the middle of a line of the same file.
    private func write(_ sink: inout LogSink, beside other: LogStream, _ now: Instant) -> LogSink.Progress {
        if sharesTarget, !other.isAtLineStart, !other.isEmpty { return sink.stream.isEmpty ? .idle : .held }
        return sink.write(now)
    }

    private func wait(_ out: LogSink.Progress, _ error: LogSink.Progress, _ now: Instant) -> ThreadLoop.Next {
        var items: [cl_poll_item] = []
        var due: [Instant] = []
        for (sink, progress) in [(outSink, out), (errorSink, error)] {
            switch progress {
            case .blocked: items.append(.writable(sink.descriptor.number))
            case .failed: if let retry = sink.retryAt { due.append(retry) }
            case .idle, .moved, .held: break
            }
        }
        if let next = budget.nextDue { due.append(next) }
        if connections != nil {
            due.append(now + (takenInTurns > LogWriter.manyRecords ? LogWriter.shortPause : LogWriter.pause))
        }
        takenInTurns = 0
        return .wait(until: due.min(), items)
    }

    // MARK: Connections

    /// True if there is more.
    private func takeRecords(_ now: Instant, isLast: Bool) -> Bool {
        if connections == nil {
            connections = waiting.withLock { waiting in
                defer { waiting = nil }
                return waiting
            }
        }
        guard connections != nil else { return false }
        budget.perSecond = refusalsPerSecond.load(ordering: .relaxed)
        var isMore = false
        let rings = connections?.rings ?? []
        for ring in rings {
            var count = 0
            while count < LogWriter.recordsInTurn, let record = ring.pop() {
                count += 1
                take(record, now)
            }
            takenInTurns += count
            isMore = isMore || count == LogWriter.recordsInTurn
        }
        for summary in isLast && !isMore ? budget.rest() : budget.due(now) { write(summary) }
        refusalsSummed.store(budget.summed, ordering: .relaxed)
        if !isMore { sayLost() }
        return isMore
    }

    /// Reports records that workers dropped, like lines that the stream dropped.
    private func sayLost() {
        guard let connections, connections.writes else { return }
        let (lost, said) = (connections.lost(), connections.saidLost)
        guard lost > said else { return }
        if out.sayMissing(lost - said, "connections ended faster than their lines could be written") {
            self.connections?.saidLost = lost
        }
    }

    private func take(_ record: ConnectionRecord, _ now: Instant) {
        connections?.watch?.enqueue(record)
        connections?.paths?.enqueue(record)
        guard connections?.writes == true, budget.admits(record, now) else { return }
        connections?.log.append(record)
        sendLine()
    }

    private func write(_ summary: RefusalBudget.Summary) {
        connections?.log.append(summary, time: cl_wall_clock())
        sendLine()
    }

    private func sendLine() {
        if let bytes = connections?.log.bytes { out.append(bytes) }
        connections?.log.removeAll()
    }

    // MARK: Events about the streams

    private func sayDropped() {
        _ = error.sayDropped()
        droppedInOut += out.sayDropped()
        let counts = out.counts
        if counts.hasEnded {
            guard !hasSaidBroken else { return }
            hasSaidBroken = true
            say(
                "log_broken", "standard output's reader is gone: connections are relayed, but no longer logged")
            return
        }
        let isFailing = counts.error != 0 || counts.isDropping
        guard isFailing != isOutSaidFailing else { return }
        isOutSaidFailing = isFailing
        if isFailing {
            say(
                "log_failed",
                "can't write standard output: \(LogWriter.why(counts)); connections are relayed; their lines wait in "
                    + "memory, and when it is full they are dropped and counted; the node tries again")
        } else {
            say("log_recovered") { $0.field("dropped", self.droppedInOut) }
            droppedInOut = 0
        }
    }

    private func say(_ event: String, _ message: String? = nil, _ fields: (inout JSONLine) -> Void = { _ in }) {
        error.append(ControlLog.line(event, message, time: cl_wall_clock(), fields))
    }

    /// Why lines of a stream wait or are dropped.
    package static func why(_ counts: LogStream.Counts) -> String {
        switch counts.error {
        case 0: "its reader is stuck or too slow"
        case ENOSPC, EDQUOT: "the disk is full"
        case EPIPE: "its reader is gone"
        default: kernelError(counts.error)
        }
    }
}
