import Pipeline
import PipelineLedger

/// What conntrack counts, on its way to the other flow records (R21): a collector with a lane of its own.
///
/// Threading: started and stopped by the owner; the lane is written by the collector's thread alone.
final class ConntrackLane {
    private struct Lane: @unchecked Sendable { let lane: UnsafeMutablePointer<FlowLane> }

    private let collector: ConntrackCollector
    private let lane: Lane
    let settings: ConntrackSettings

    private init(_ collector: ConntrackCollector, _ lane: Lane, _ settings: ConntrackSettings) {
        self.collector = collector
        self.lane = lane
        self.settings = settings
    }

    var statistics: ConntrackCollector.Statistics { collector.statistics }

    /// Nil without a problem: the config does not ask for it.
    static func start(
        _ settings: ConntrackSettings?, _ directory: FlowDirectory
    ) -> (lane: ConntrackLane?, problem: String?) {
        guard let settings else { return (nil, nil) }
        guard let lane = FlowSink.node.claim(FlowSink.conntrack) else {
            return (nil, "conntrack is counted already in this process: nothing of it is counted twice")
        }
        let mine = Lane(lane: lane)
        let (collector, error) = ConntrackCollector.start(
            settings, instance: { directory.number(of: $0) }, emit: { ConntrackLane.push($0, mine) })
        guard let collector else {
            FlowSink.node.release(lane, rest: [])
            return (nil, ConntrackLane.explain(error))
        }
        return (ConntrackLane(collector, mine, settings), nil)
    }

    /// What is counted from conntrack, and what is the relay's.
    static func settings(_ program: Program) -> ConntrackSettings? {
        guard let wanted = program.node.conntrack else { return nil }
        var settings = ConntrackSettings()
        settings.interval = wanted.interval
        settings.tableLimit = wanted.tableLimit
        settings.relayedMark = ConnectionMark(value: program.node.mark)
        settings.relayedPorts = Set(program.listeners.filter { $0.mode == .redirect }.map(\.endpoint.port))
        return settings
    }

    private static func explain(_ error: Int32) -> String {
        let why =
            switch error {
            case 1: "it needs CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)"
            case 93: "the kernel has no nf_conntrack_netlink: modprobe nf_conntrack_netlink"
            default: "error \(error) from the kernel"
            }
        return "UDP, ICMP and what else passes no worker is not counted: \(why)"
    }

    /// A ring that is full loses nothing: the rest waits behind it.
    private static func push(_ records: [FlowRecord], _ mine: Lane) {
        for (index, record) in records.enumerated() where !mine.lane.pointee.push(record) {
            FlowSink.node.hand(over: Array(records[index...]), from: mine.lane)
            return
        }
    }

    /// Reads the table a last time.
    func stop() {
        collector.stop()
        FlowSink.node.release(lane.lane, rest: [])
    }
}
