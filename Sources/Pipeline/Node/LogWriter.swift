import CLinux
import Glibc
import Pipeline
import PipelineAlerts
import PipelineIntercept
import PipelineRuntime
import PipelineText
import PipelineThreads
import Synchronization

/// The log thread: writes node events to standard error, and ended connections to standard output, or both to where the
/// config says. A slow reader, a full disk, an unread pipe or an absent syslog daemon affects only lines: those without
/// room are dropped and counted until there is room again (R27). Only a reader of a standard stream that is gone for
/// good (EPIPE) ends one.
///
/// Threading: made, given its connections and finished by the control thread; streams take lines from any.
package final class LogWriter: @unchecked Sendable {
    private static let outBytes = 1 << 20
    private static let errorBytes = 1 << 18
    private static let noticeBytes = 1 << 14
    /// Records that are formatted in one iteration, before they are written.
    static let recordsInTurn = 64
    /// Priority (nice): below the workers, but high enough not to starve, so that relayed connections' lines are not
    /// lost.
    private static let priorityBelow: Int32 = 5
    /// Between looks into the workers' rings, and while many come.
    private static let pause = TimeSpan.milliseconds(50)
    private static let shortPause = TimeSpan.milliseconds(5)
    private static let manyRecords = 128

    struct Connections {
        let rings: [RecordRing]
        let reasons: ReasonTable
        var log: ConnectionLog
        let writes: Bool
        let watch: FlowWatch?
        let paths: UnreachablePaths?
        /// The total number of records dropped by rings.
        let lost: @Sendable () -> UInt64
        var saidLost: UInt64 = 0
    }

    /// What the control thread wants, until the writer takes it.
    struct Orders {
        var connections: Connections?
        var choice: NodeSettings?
        var out: LogOutlet?
        var error: LogOutlet?
        var reopens = false
    }

    package let out: LogStream
    package let error: LogStream
    /// The standard streams, which lines may come back to.
    let standard: (out: LogOutlet, error: LogOutlet)
    let loop: ThreadLoop
    let orders = Mutex(Orders())
    let refusalsSummed = Atomic<UInt64>(0)
    let excludedCount = Atomic<UInt64>(0)
    let sampledOutCount = Atomic<UInt64>(0)
    private let flushAsked = Atomic<Int>(0)
    private let flushed = Atomic<Int>(0)
    // The control thread's own.
    /// As the outlets are.
    package internal(set) var settings = LogSettings()
    // The thread's own.
    private var isNew = true
    private var outSink: LogSink
    private var errorSink: LogSink
    /// What is to be said of the event log itself, on standard error, where that is not the event log.
    private var noticeSink: LogSink
    private var sharesTarget: Bool
    var connections: Connections?
    var choice = NodeSettings()
    var selection = LogSelection(LogSettings(), ReasonTable(catalog: []))
    var budget = RefusalBudget()
    var takenInTurns = 0
    private var health: (out: LogHealth, error: LogHealth) = (LogHealth(), LogHealth())

    /// Starts the thread.
    /// - Parameters: descriptors to write to; they stay the caller's.
    /// - Returns: nil, with an errno, if the kernel gives no descriptor or no thread.
    package static func start(out: Int32 = 1, error: Int32 = 2) -> (writer: LogWriter?, error: Int32) {
        let (made, failure) = ThreadLoop.make()
        guard let loop = made else { return (nil, failure) }
        let (first, second) = (LogOutlet.standard(out, "stdout"), LogOutlet.standard(error, "stderr"))
        guard let outOutlet = first.outlet, let errorOutlet = second.outlet else {
            return (nil, first.outlet == nil ? first.error : second.error)
        }
        let writer = LogWriter(outOutlet, errorOutlet, loop)
        let failed = loop.start("log", stackBytes: 1 << 19) { writer.iterate() }
        return failed == 0 ? (writer, 0) : (nil, failed)
    }

    private init(_ out: LogOutlet, _ error: LogOutlet, _ loop: ThreadLoop) {
        standard = (out, error)
        self.loop = loop
        self.out = LogStream(capacity: LogWriter.outBytes, wake: loop.wake)
        self.error = LogStream(capacity: LogWriter.errorBytes, wake: loop.wake)
        outSink = LogSink(self.out, out)
        errorSink = LogSink(self.error, error)
        noticeSink = LogSink(LogStream(capacity: LogWriter.noticeBytes, wake: loop.wake), error)
        sharesTarget = out.isSame(as: error)
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
        orders.withLock {
            let log = ConnectionLog(reasons) { watch?.addresses(of: $0) ?? [] }
            $0.connections = Connections(
                rings: rings, reasons: reasons, log: log, writes: writes, watch: watch, paths: paths, lost: lost)
        }
        loop.wake()
    }

    /// Which connections have a line, and how many of those that were refused.
    func choose(_ settings: NodeSettings) {
        orders.withLock { $0.choice = settings }
        loop.wake()
    }

    /// Refused connections without their own line, which a `refusals` line counts.
    package var summed: UInt64 { refusalsSummed.load(ordering: .relaxed) }
    /// Connections without a line because of `log only` and `log except`, and of `log sample`.
    package var excluded: UInt64 { excludedCount.load(ordering: .relaxed) }
    package var sampledOut: UInt64 { sampledOutCount.load(ordering: .relaxed) }

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
        takeOrders()
        reopen(now)
        let hasMore = takeRecords(now, isLast: isFlushing)
        let progress = [
            write(&outSink, beside: error, now), write(&errorSink, beside: out, now), noticeSink.write(now),
        ]
        sayHealth()
        if hasMore || progress.contains(.moved) { return .again }
        if isFlushing, progress.allSatisfy({ $0 == .idle }) { flushed.store(asked, ordering: .releasing) }
        return wait(progress, now)
    }

    /// One piece, unless the other stream is in the middle of a line of the same file.
    private func write(_ sink: inout LogSink, beside other: LogStream, _ now: Instant) -> LogSink.Progress {
        if sharesTarget, !other.isAtLineStart, !other.isEmpty { return sink.stream.isEmpty ? .idle : .held }
        return sink.write(now)
    }

    private func wait(_ progress: [LogSink.Progress], _ now: Instant) -> ThreadLoop.Next {
        var items: [cl_poll_item] = []
        var due: [Instant] = []
        for (sink, progress) in zip([outSink, errorSink, noticeSink], progress) {
            switch progress {
            case .blocked:
                items.append(.writable(sink.outlet.descriptor.number))
                if let stall = sink.stallDue { due.append(stall) }
            case .failed: if let retry = sink.retryAt { due.append(retry) }
            case .idle, .moved, .held: break
            }
            if let retry = sink.reopening.due, sink.mayMove { due.append(retry) }
        }
        if let next = budget.nextDue { due.append(next) }
        if connections != nil {
            due.append(now + (takenInTurns > LogWriter.manyRecords ? LogWriter.shortPause : LogWriter.pause))
        }
        takenInTurns = 0
        return .wait(until: due.min(), items)
    }

    // MARK: Other outlets

    private func takeOrders() {
        // What was said before belongs where it was said, unless nobody takes it there.
        let movesError = errorSink.isStuck || error.isEmpty
        let movesOut = outSink.mayMove
        let taken = orders.withLock { orders in
            let all = orders
            orders = Orders(out: movesOut ? nil : all.out, error: movesError ? nil : all.error)
            return all
        }
        if let made = taken.connections { connections = made }
        if let choice = taken.choice { self.choice = choice }
        if taken.connections != nil || taken.choice != nil {
            budget.perSecond = choice.loggedRefusals
            if let reasons = connections?.reasons { selection = LogSelection(choice.log, reasons) }
        }
        if let outlet = taken.out, movesOut {
            health.out = LogHealth(after: out.counts)
            outSink.move(to: outlet)
            sayOpened(outlet, isEvents: false)
        }
        if let outlet = taken.error, movesError {
            let isNews = errorSink.outlet === standard.error
            health.error = LogHealth(after: error.counts)
            errorSink.move(to: outlet)
            sayOpened(outlet, isEvents: true, onStandardError: isNews)
        }
        if taken.reopens {
            if outSink.outlet.file != nil { outSink.reopening.ask() }
            if errorSink.outlet.file != nil { errorSink.reopening.ask() }
        }
        if taken.out != nil || taken.error != nil { sharesTarget = outSink.outlet.isSame(as: errorSink.outlet) }
    }

    /// - Parameter onStandardError: who reads it learns where events go on.
    private func sayOpened(_ outlet: LogOutlet, isEvents: Bool, onStandardError: Bool = false) {
        let fields = { (line: inout JSONLine) in
            line.field("log", LogWriter.name(isEvents))
            line.field("to", outlet.place.text)
        }
        say("log_opened", nil, fields)
        if onStandardError { sayNotice("log_opened", nil, fields) }
    }

    private func reopen(_ now: Instant) {
        let results = [reopen(&outSink, now), reopen(&errorSink, now)]
        for (result, sink) in zip(results, [outSink, errorSink]) {
            guard let result else { continue }
            let (path, isEvents) = (sink.outlet.file ?? "", sink.stream === error)
            let fields = { (line: inout JSONLine) in
                line.field("log", LogWriter.name(isEvents))
                line.field("to", path)
            }
            guard case .failed(let code, let isNews) = result else {
                sharesTarget = outSink.outlet.isSame(as: errorSink.outlet)
                say("log_reopened", nil, fields)
                continue
            }
            guard isNews else { continue }
            let message =
                "can't open the log file \(path) again: \(LogFileError.words(code)); lines go on to the file that is "
                + "open, and the node tries again"
            say("log_reopen_failed", message, fields)
            if isEvents { sayNotice("log_reopen_failed", message, fields) }
        }
    }

    /// Nil: nothing was due.
    private func reopen(_ sink: inout LogSink, _ now: Instant) -> LogReopening.Result? {
        guard let due = sink.reopening.due, due <= now, sink.mayMove, let path = sink.outlet.file else { return nil }
        let result = sink.reopening.attempt(path, now)
        switch result {
        case .opened(let outlet): sink.move(to: outlet)
        case .failed(let code, _): sink.stream.failedToReopen(code)
        }
        return result
    }

    private static func name(_ isEvents: Bool) -> String { isEvents ? "events" : "connections" }

    // MARK: Events about the streams

    private func sayHealth() {
        sayHealth(of: outSink, &health.out)
        // Nobody could read it where it failed.
        if errorSink.outlet !== standard.error {
            sayHealth(of: errorSink, &health.error)
        } else {
            _ = error.sayDropped()
        }
    }

    private func sayHealth(of sink: LogSink, _ health: inout LogHealth) {
        _ = sink.stream.sayDropped()
        let counts = sink.stream.counts
        let subject = sink.outlet.place.subject
        let isEvents = sink.stream === error
        let fields = { (line: inout JSONLine) in
            line.field("log", LogWriter.name(isEvents))
        }
        let what = isEvents ? "the node goes on" : "connections are relayed"
        switch health.news(counts) {
        case .none: break
        case .broken:
            say("log_broken", "\(subject)'s reader is gone: connections are relayed, but no longer logged")
        case .failed:
            let message =
                "can't write \(subject): \(LogWriter.why(counts)); \(what); lines wait in memory, and when it is full "
                + "they are dropped and counted; the node tries again"
            isEvents ? sayNotice("log_failed", message, fields) : say("log_failed", message, fields)
        case .recovered(let dropped):
            let all = { (line: inout JSONLine) in
                fields(&line)
                line.field("dropped", dropped)
                if sink.outlet.isUDP { line.field("more_possible", true) }
            }
            let message = sink.outlet.isUDP ? "more datagrams may be lost: of UDP only some losses are known" : nil
            say("log_recovered", message, all)
            if isEvents { sayNotice("log_recovered", message, all) }
        }
    }

    private func say(_ event: String, _ message: String? = nil, _ fields: (inout JSONLine) -> Void = { _ in }) {
        error.append(ControlLog.line(event, message, time: cl_wall_clock(), fields))
    }

    /// On standard error, also where events go elsewhere.
    private func sayNotice(_ event: String, _ message: String?, _ fields: (inout JSONLine) -> Void) {
        noticeSink.stream.append(ControlLog.line(event, message, time: cl_wall_clock(), fields))
    }

    /// Why its file is not opened again.
    package static func whyNotReopened(_ counts: LogStream.Counts) -> String { LogFileError.words(counts.reopenError) }

    /// Why lines of a stream wait or are dropped.
    package static func why(_ counts: LogStream.Counts) -> String {
        switch counts.error {
        case 0: "its reader is stuck or too slow"
        case ENOSPC, EDQUOT: "the disk is full"
        case EPIPE: "its reader is gone"
        case ECONNREFUSED, ENOENT, ENOTCONN, ECONNRESET: "no syslog daemon is there"
        case EPROTOTYPE: "it is no socket for datagrams"
        case EACCES, EPERM: "this process may not write to it"
        case ENETUNREACH, EHOSTUNREACH: "there is no route to its host"
        default: kernelError(counts.error)
        }
    }
}
