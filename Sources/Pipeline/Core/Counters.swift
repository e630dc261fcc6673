import Synchronization

/// One worker's counters. Threading: one writer, any number of readers; each value is atomic, but values are not
/// consistent with each other. Ownership: made by control before the worker starts, freed after it has ended.
public struct WorkerCounters: ~Copyable {
    public enum Metric: Int, CaseIterable, Sendable {
        case accepted, active, connectAttempts, connectRetries, bytesToUpstream, bytesToClient
        case spliceEntered, spliceLeft, logDropped, wakeups, sniffing, buffersInUse, pipesInUse
        case socketsReused, onOlderPrograms, acceptPauses, queued

        public var name: String {
            switch self {
            case .accepted: "connections_accepted"
            case .active: "connections_active"
            case .connectAttempts: "connect_attempts"
            case .connectRetries: "connect_retries"
            case .bytesToUpstream: "bytes_to_upstream"
            case .bytesToClient: "bytes_to_client"
            case .spliceEntered: "splice_entered"
            case .spliceLeft: "splice_left"
            case .logDropped: "log_records_dropped"
            case .wakeups: "wakeups"
            case .sniffing: "connections_sniffing"
            case .buffersInUse: "buffers_in_use"
            case .pipesInUse: "pipes_in_use"
            case .socketsReused: "upstream_sockets_reused"
            case .onOlderPrograms: "connections_in_older_stages"
            case .acceptPauses: "accept_pauses"
            case .queued: "connections_queued"
            }
        }
    }

    private let cells: UnsafeMutableBufferPointer<Atomic<UInt64>>
    private static let reasonStart = Metric.allCases.count
    private let shadowStart: Int

    /// - Parameter reasons: how many codes there are (``ReasonTable/count``).
    public init(reasons: Int) {
        shadowStart = WorkerCounters.reasonStart + reasons
        cells = .allocate(capacity: shadowStart + reasons)
        for i in cells.indices {
            (cells.baseAddress.unsafelyUnwrapped + i).initialize(to: Atomic(0))
        }
    }

    deinit {
        cells.deinitialize()
        cells.deallocate()
    }

    /// The single writer's add: a load and a store, no locked instruction.
    private func add(_ index: Int, _ amount: UInt64) {
        let value = cells[index].load(ordering: .relaxed)
        cells[index].store(value &+ amount, ordering: .relaxed)
    }

    public func add(_ metric: Metric, _ amount: UInt64 = 1) { add(metric.rawValue, amount) }
    public func set(_ metric: Metric, _ value: UInt64) {
        cells[metric.rawValue].store(value, ordering: .relaxed)
    }
    public func ended(_ reason: ReasonCode) { add(WorkerCounters.reasonStart + Int(reason.rawValue), 1) }
    /// A stage in shadow mode would have refused.
    public func shadowed(_ reason: ReasonCode) { add(shadowStart + Int(reason.rawValue), 1) }

    public func read(_ metric: Metric) -> UInt64 { cells[metric.rawValue].load(ordering: .relaxed) }
    public func read(ended reason: ReasonCode) -> UInt64 {
        cells[WorkerCounters.reasonStart + Int(reason.rawValue)].load(ordering: .relaxed)
    }
    public func read(shadowed reason: ReasonCode) -> UInt64 {
        cells[shadowStart + Int(reason.rawValue)].load(ordering: .relaxed)
    }
}
