import FilterEgressAccounting
import Pipeline
import PipelineFlows
import PipelineLedger
import PipelineText
import PipelineThreads
import Synchronization

/// Moves flow records from the workers to the ledger and collectors (R21): one thread that reads the queues, and one
/// per collector. A reload changes only what differs (R26).
///
/// Threading: the control thread. Traffic never waits for it: opening the ledger is retried, and records for an absent
/// collector are dropped and counted.
package final class FlowRecording {
    /// A program's settings for recording.
    fileprivate struct Wish {
        let ledger: LedgerSettings?
        let exports: [ExportSettings]
        let conntrack: ConntrackSettings?
        /// Records must be read: a stage or conntrack makes them, or alerts need them.
        let records: Bool

        init(_ program: Program) {
            ledger = program.ledger
            exports = program.exports
            conntrack = ConntrackQueue.settings(program)
            records =
                conntrack != nil || program.alerts != nil || program.capabilities.contains(.recordsFlows)
        }
        var isAnything: Bool { records || ledger != nil || !exports.isEmpty }
    }

    /// What a reload has opened, but not put to use yet.
    package struct Staged {
        fileprivate let wish: Wish
        /// Of another path than the one before.
        fileprivate let opened: OpenedLedger?
        /// By what they were made with; those of before are not among them.
        fileprivate let exporters: [FlowExporter]
    }

    /// The flows thread's too.
    private final class Collectors: Sendable {
        private let exporters = Mutex<[FlowExporter]>([])
        var all: [FlowExporter] { exporters.withLock { $0 } }
        func set(_ new: [FlowExporter]) { exporters.withLock { $0 = new } }

        /// Under the lock, so that a removed collector gets no more records.
        func enqueue(_ records: [FlowRecord], _ directory: FlowDirectory) {
            exporters.withLock { exporters in
                guard !exporters.isEmpty else { return }
                let flows = records.map { ExportFlow($0, directory.find($0.key.instance, $0.key.source)) }
                for exporter in exporters { exporter.enqueue(flows) }
            }
        }
    }

    private let queues: FlowQueues
    private let directory: FlowDirectory
    private let log: ControlLog
    private let alsoTo: @Sendable ([FlowRecord]) -> Void
    private let eachTick: @Sendable () -> Void
    private let collectors = Collectors()
    private var thread: FlowThread?
    private var ledger: LedgerSettings?
    /// Exporters of removed lines, which still send their queues.
    private var leaving: [FlowExporter] = []
    private var conntrack: ConntrackQueue?
    /// Why conntrack counting could not start; nil: it runs, or is off.
    private var startProblem: String?
    /// Why recording is incomplete, for `status`; nil: it is complete.
    package var problem: String? { startProblem ?? conntrack?.problem }

    /// Nothing is recorded before ``begin(_:)``.
    /// - Parameters:
    ///   - queues: where records come from.
    ///   - directory: who they are about.
    ///   - alsoTo: gets every record once, on another thread; must not block.
    ///   - eachTick: called there once a second, after that second's records; must not wait.
    package init(
        _ queues: FlowQueues, _ directory: FlowDirectory, _ log: ControlLog,
        alsoTo: @escaping @Sendable ([FlowRecord]) -> Void, eachTick: @escaping @Sendable () -> Void
    ) {
        (self.queues, self.directory, self.log) = (queues, directory, log)
        (self.alsoTo, self.eachTick) = (alsoTo, eachTick)
    }

    /// Starts recording for the node's first program, once. Failures are logged.
    package func begin(_ program: Program) {
        let wish = Wish(program)
        ledger = wish.ledger
        collectors.set(
            wish.exports.compactMap { settings in
                do throws(LedgerProblem) { return try FlowRecording.exporter(settings, log) } catch {
                    log.say("export_failed", "\(error)")
                    return nil
                }
            })
        startThread(wish, nil)
        follow(wish.conntrack)
    }

    /// Counts from conntrack as the config has it by now.
    private func follow(_ wanted: ConntrackSettings?) {
        guard conntrack?.settings != wanted || startProblem != nil else { return }
        conntrack?.stop()
        (conntrack, startProblem) = ConntrackQueue.start(wanted, queues, directory, log)
        if let startProblem { log.say("conntrack_failed", startProblem) }
    }

    private static func exporter(_ settings: ExportSettings, _ log: ControlLog) throws(LedgerProblem) -> FlowExporter {
        let started = FlowExporter.start(settings, write: log.write)
        if let exporter = started.exporter { return exporter }
        throw LedgerProblem(
            "can't start the exporter to \(settings.collector): pthread_create: "
                + "\(kernelError(started.error))")
    }

    private func startThread(_ wish: Wish, _ opened: OpenedLedger?) {
        guard wish.isAnything else { return }
        let (directory, collectors, log, alsoTo) = (directory, collectors, log, alsoTo)
        do throws(LedgerProblem) {
            thread = try FlowThread.start(
                wish.ledger, opened, queues: queues, identity: { directory.find($0, $1) },
                alsoTo: { records in
                    alsoTo(records)
                    collectors.enqueue(records, directory)
                },
                eachTick: eachTick, say: { log.say($0.event, $0.message) })
        } catch {
            log.say("ledger_failed", "\(error): flows are not recorded")
        }
    }

    // MARK: Reload

    /// Opens what a program needs and is not open yet: all or none.
    package func stage(_ program: Program) throws(LedgerProblem) -> Staged {
        let wish = Wish(program)
        let known = collectors.all.map(\.settings)
        var new: [FlowExporter] = []
        do throws(LedgerProblem) {
            for settings in wish.exports where !known.contains(settings) {
                new.append(try FlowRecording.exporter(settings, log))
            }
            var opened: OpenedLedger?
            if let wanted = wish.ledger, wanted.path != ledger?.path {
                let log = log
                opened = try OpenedLedger(wanted) { log.say($0.event, $0.message) }
            }
            return Staged(wish: wish, opened: opened, exporters: new)
        } catch {
            for exporter in new { exporter.stop(patience: .milliseconds(0)) }
            throw error
        }
    }

    /// Switches to what was staged. The old ledger gets earlier records and is closed; removed collectors get their
    /// queued records.
    package func apply(_ staged: consuming Staged) {
        let wish = staged.wish
        defer { follow(wish.conntrack) }
        let before = collectors.all
        let kept = before.filter { wish.exports.contains($0.settings) }
        collectors.set(kept + staged.exporters)
        for exporter in leaving { exporter.stop(patience: .milliseconds(0)) }
        leaving = before.filter { !wish.exports.contains($0.settings) }
        for exporter in leaving { exporter.end() }
        let old = ledger
        ledger = wish.ledger
        guard let thread else { return startThread(wish, staged.opened) }
        guard old != wish.ledger, !thread.change(to: wish.ledger, staged.opened) else { return }
        log.say("warning", "the ledger changes once the old one is written; flows wait in memory until then")
    }

    /// Ends conntrack counting: another node counts the same packets from here on.
    package func endConntrack() {
        conntrack?.stop()
        conntrack = nil
    }

    /// Writes and sends the workers' remaining records. Call it after they have ended.
    /// - Returns: false if the ledger could not be written to the end.
    package func stop() -> Bool {
        conntrack?.stop()
        let isRecorded = thread?.stop() ?? true
        for exporter in leaving + collectors.all { exporter.stop() }
        return isRecorded
    }

    /// What has become of the records, for `status`.
    package var counts: FlowCounts {
        FlowCounts(
            ledger: ledger?.path, recordsWritten: thread?.recordsWritten ?? 0,
            recordsWaiting: thread?.recordsWaiting ?? 0, lastWrite: thread?.lastWrite ?? 0,
            keysAggregated: queues.aggregatedKeys, exports: collectors.all.map { ($0.settings, $0.statistics) },
            conntrack: conntrack?.statistics)
    }
}
