import FilterEgressAccounting
import Pipeline
import PipelineFlows
import PipelineLedger
import PipelineText
import PipelineThreads
import Synchronization

/// The way of flow records from the workers to the ledger and to collectors (R21): one thread that takes them, and one a
/// collector. A reload changes either (R26): what stays as it is goes on undisturbed.
///
/// Threading: the control thread. No traffic waits for it: a ledger that can't be opened at the start is tried again, and a
/// collector that is away loses records, counted.
package final class FlowRecording {
    /// What a program wants of it.
    fileprivate struct Wish {
        let ledger: LedgerSettings?
        let exports: [ExportSettings]
        let conntrack: ConntrackSettings?
        /// Somebody has to take records: a stage or conntrack makes them, or alerts are found in them.
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

    /// What a reload has opened, and nobody uses yet.
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

        /// Under the lock: who is taken out gets nothing any more.
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
    /// Of lines that are no more: they send what they have, and nobody waits for it.
    private var leaving: [FlowExporter] = []
    private var conntrack: ConntrackQueue?
    /// Why conntrack could not be started; nil: it could, or nobody asks for it.
    private var startProblem: String?
    /// Something that the config asks for is not there, for `status`; nil: all is.
    package var problem: String? { startProblem ?? conntrack?.problem }

    /// Nothing is recorded before ``begin(_:)``.
    /// - Parameters:
    ///   - queues: where records come from.
    ///   - directory: who they are about.
    ///   - alsoTo: gets every record once, on a thread of its own; must not wait.
    ///   - eachTick: called there once a second, after that second's records; must not wait.
    package init(
        _ queues: FlowQueues, _ directory: FlowDirectory, _ log: ControlLog,
        alsoTo: @escaping @Sendable ([FlowRecord]) -> Void, eachTick: @escaping @Sendable () -> Void
    ) {
        (self.queues, self.directory, self.log) = (queues, directory, log)
        (self.alsoTo, self.eachTick) = (alsoTo, eachTick)
    }

    /// Starts what the node's first program wants, once. What can't be started is said.
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
        throw LedgerProblem("no thread for the collector \(settings.collector): \(kernelError(started.error))")
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

    /// Opens what a program wants and is not open yet: all of it, or none.
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

    /// Goes over to what was staged. The old ledger gets what there is until then, and is closed; collectors that are named no
    /// more are sent what waits for them.
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
        log.say("warning", "the ledger is not changed yet, since the old one is still written to; it will be")
    }

    /// What is counted until now is the last of it: the same packets are another node's from here on.
    package func endConntrack() {
        conntrack?.stop()
        conntrack = nil
    }

    /// Takes what workers have left, writes and sends it. Call it after they have ended.
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
