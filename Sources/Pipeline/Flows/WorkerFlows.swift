/// What one worker has to tell of flows: growth since the last records, and the way to the sink. One a worker, whatever the number
/// of programs that it holds and of stages that account: they add to the same keys.
///
/// Threading: the worker's own thread, once it was made (``FlowSink/flows(of:)``). Ownership: the sink's.
public struct WorkerFlows: ~Copyable {
    public var table: FlowTable
    public let lane: UnsafeMutablePointer<FlowLane>
    /// States of stages that use it.
    public var users = 0

    init(table: FlowTable, lane: UnsafeMutablePointer<FlowLane>) {
        self.table = table
        self.lane = lane
    }
}

extension FlowSink {
    /// The flows of a worker: made when they are first asked for, and the same ever after. Control asks before a worker needs
    /// them. Nil: there is no memory for them.
    public func flows(of worker: Int) -> UnsafeMutablePointer<WorkerFlows>? {
        if let made = madeFlows(of: worker) { return made }
        guard let lane = claim() else { return nil }
        guard let table = FlowTable() else {
            release(lane, rest: [])
            return nil
        }
        let flows = UnsafeMutablePointer<WorkerFlows>.allocate(capacity: 1)
        flows.initialize(to: WorkerFlows(table: table, lane: lane))
        keep(flows, of: worker)
        return flows
    }
}
