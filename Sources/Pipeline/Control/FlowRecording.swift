import Pipeline
import PipelineLedger
import Synchronization

/// Who is behind the instance numbers of flow records. Numbers are never given again, so names of before the last change
/// stay right for records that are on their way.
///
/// Threading: the control thread updates, the flows thread asks.
final class FlowDirectory: Sendable {
    private struct Names {
        var current: [UInt32: FlowNames] = [:]
        var before: [UInt32: FlowNames] = [:]
        var numbers: [IPAddress: UInt32] = [:]
    }
    private let names = Mutex(Names())

    func update(_ instances: InstanceDirectory) {
        var new: [UInt32: FlowNames] = [:]
        for identity in instances.identities {
            new[identity.number] = FlowNames(
                instance: identity.id.string, env: identity.env.string, app: identity.app.string,
                org: identity.org.string)
        }
        let current = new
        let numbers = Dictionary(instances.addresses.map { ($0.address, $0.number) }) { first, _ in first }
        names.withLock { $0 = Names(current: current, before: $0.current, numbers: numbers) }
    }

    /// Whose address it is; nil: no instance's of this node.
    func number(of address: IPAddress) -> UInt32? { names.withLock { $0.numbers[address] } }

    /// A source that is no instance's is named by its address.
    func find(_ number: UInt32, _ source: IPAddress) -> FlowNames {
        names.withLock { $0.current[number] ?? $0.before[number] } ?? FlowNames(instance: "\(source)")
    }
}

/// The way of flow records from the workers to the ledger and to collectors (R21): one thread that takes them, and one a
/// collector.
///
/// Threading: the control thread. No traffic waits for it: a ledger that can't be opened is tried again, and a collector
/// that is away loses records, counted.
final class FlowRecording {
    private let thread: FlowThread
    private let exporters: [FlowExporter]
    private let conntrack: ConntrackLane?
    /// Something that the config asks for is not there, for `status`; nil: all is.
    let problem: String?

    /// Nil if neither a stage records flows nor anything wants them, or if it can't be started, which is said.
    static func start(_ node: RunningNode, _ log: ControlLog) -> FlowRecording? {
        let settings = node.settings
        let records = node.program.chains.buffer.contains { $0.progressInterval != nil }
        guard
            records || settings.ledger != nil || !settings.exports.isEmpty || settings.hints != nil
                || settings.conntrack != nil
        else { return nil }
        let exporters = settings.exports.compactMap { settings -> FlowExporter? in
            let started = FlowExporter.start(settings)
            if started.exporter == nil {
                log.say("export_failed", "no thread for a collector: error \(started.error) from the kernel")
            }
            return started.exporter
        }
        let (directory, watch) = (node.flowDirectory, node.flowWatch)
        do throws(LedgerProblem) {
            let thread = try FlowThread.start(
                settings.ledger, identity: { directory.find($0, $1) },
                alsoTo: { records in
                    watch.take(records)
                    guard !exporters.isEmpty else { return }
                    let flows = records.map { ExportFlow($0, directory.find($0.key.instance, $0.key.source)) }
                    for exporter in exporters { exporter.offer(flows) }
                },
                eachTurn: { watch.tick() }, say: { log.say($0.event, $0.message) })
            let (conntrack, problem) = ConntrackLane.start(node.program, directory)
            if let problem { log.say("conntrack_failed", problem) }
            return FlowRecording(thread, exporters, conntrack, problem)
        } catch {
            log.say("ledger_failed", "\(error): flows are not recorded")
            for exporter in exporters { exporter.stop() }
            return nil
        }
    }

    private init(
        _ thread: FlowThread, _ exporters: [FlowExporter], _ conntrack: ConntrackLane?, _ problem: String?
    ) {
        self.conntrack = conntrack
        self.problem = problem
        self.thread = thread
        self.exporters = exporters
    }

    /// Takes what workers have left, writes and sends it. Call it after they have ended.
    /// - Returns: false if the ledger could not be written to the end.
    func stop() -> Bool {
        conntrack?.stop()
        let isRecorded = thread.stop()
        for exporter in exporters { exporter.stop() }
        return isRecorded
    }

    /// What has become of the records, for `status`.
    var counts: FlowCounts {
        FlowCounts(
            recordsWritten: thread.recordsWritten, keysFolded: FlowSink.node.foldedKeys,
            exports: exporters.map(\.statistics), conntrack: conntrack?.statistics)
    }
}
