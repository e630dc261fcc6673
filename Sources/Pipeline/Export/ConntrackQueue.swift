import FilterEgressAccounting
import Glibc
import Pipeline
import PipelineFlows
import PipelineLedger
import PipelineRuntime
import PipelineText
import PipelineThreads

/// Connects conntrack counting to the flow records (R21): a collector with its own queue.
///
/// Threading: started and stopped by the owner; the queue is written by the collector's thread alone.
final class ConntrackQueue {
    /// A queue with an overflow table: records without room are aggregated by key, and beyond the table's size by
    /// instance (R27). Sequence numbers are assigned on entry to the queue, so that the order is kept.
    private final class Writer: @unchecked Sendable {
        private let queues: FlowQueues
        private let queue: UnsafeMutablePointer<FlowQueue>
        private var waiting: FlowTable

        init(_ queues: FlowQueues, _ queue: UnsafeMutablePointer<FlowQueue>, _ table: FlowTable) {
            self.queues = queues
            self.queue = queue
            waiting = table
        }

        func take(_ records: [FlowRecord]) {
            _ = waiting.drain(into: queue, limit: .max)
            for record in records {
                if waiting.count == 0, queue.pointee.push(record) { continue }
                let growth = FlowTable.Growth(
                    connections: record.connections, bytesOut: record.bytesOut, bytesIn: record.bytesIn,
                    firstSeen: record.firstSeen, lastSeen: record.lastSeen)
                if !waiting.add(record.key, growth) { queue.pointee.noteAggregated(1) }
            }
        }

        func end() {
            queues.release(queue, rest: waiting.takeAll())
            waiting.deallocate()
        }
    }

    private let collector: ConntrackCollector
    private let writer: Writer
    let settings: ConntrackSettings

    private init(_ collector: ConntrackCollector, _ writer: Writer, _ settings: ConntrackSettings) {
        self.collector = collector
        self.writer = writer
        self.settings = settings
    }

    var statistics: ConntrackCollector.Statistics { collector.statistics }
    /// Why nothing is counted now, or what will be lost; nil: no problem.
    var problem: String? {
        let statistics = statistics
        if statistics.refusal != 0 { return ConntrackQueue.explain(statistics.refusal) }
        return statistics.isTableFull ? statistics.table.map { ConntrackQueue.explain(full: $0) } : nil
    }

    /// Nil without a problem: the config does not ask for it.
    static func start(
        _ settings: ConntrackSettings?, _ queues: FlowQueues, _ directory: FlowDirectory, _ log: ControlLog
    ) -> (queue: ConntrackQueue?, problem: String?) {
        guard let settings else { return (nil, nil) }
        guard let queue = queues.claim(FlowQueues.conntrack) else {
            return (nil, "another node in this process already counts conntrack: this one does not")
        }
        guard let table = FlowTable() else {
            queues.release(queue, rest: [])
            return (nil, ConntrackQueue.explain(ENOMEM))
        }
        let writer = Writer(queues, queue, table)
        let (collector, error) = ConntrackCollector.start(
            settings, instance: { directory.number(of: $0) }, emit: { writer.take($0) }, write: log.write)
        guard let collector else {
            writer.end()
            return (nil, ConntrackQueue.explain(error))
        }
        return (ConntrackQueue(collector, writer, settings), nil)
    }

    /// The settings that separate conntrack's traffic from the relay's.
    static func settings(_ program: Program) -> ConntrackSettings? {
        guard let wanted = program.conntrack else { return nil }
        var settings = ConntrackSettings()
        settings.interval = wanted.interval
        settings.tableLimit = wanted.tableLimit
        settings.relayedMark = ConnectionMark(value: program.node.mark)
        settings.relayedPorts = Set(program.listeners.filter { $0.mode == .redirect }.map(\.endpoint.port))
        return settings
    }

    /// - Parameter error: an errno, of the start or of a dump that was refused.
    static func explain(_ error: Int32) -> String {
        let why =
            switch error {
            case EPERM: "it needs CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)"
            // The first by the socket, the second by a dump: nfnetlink is there without conntrack's part.
            case EPROTONOSUPPORT, EINVAL: "the kernel has no nf_conntrack_netlink: modprobe nf_conntrack_netlink"
            default: kernelError(error)
            }
        return "UDP, ICMP and other traffic that passes no worker is not counted: \(why)"
    }

    static func explain(full table: ConntrackRoom.Reading) -> String {
        "the kernel's conntrack table is nearly full, \(table.count) of \(table.most): a full table drops new "
            + "connections, the relay's too; find the source with `pipelined top`, or raise "
            + "`net.netfilter.nf_conntrack_max`"
    }

    /// Reads the table a last time.
    func stop() {
        collector.stop()
        writer.end()
    }
}
