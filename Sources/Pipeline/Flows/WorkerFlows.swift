/// One worker's flow counters and its queue. One per worker: all accounting stages of all its programs add to the same
/// keys.
///
/// Threading: the worker's own thread, once it was made (``FlowQueues/flows(of:)``). Ownership: the queues'.
public struct WorkerFlows: ~Copyable {
    public var table: FlowTable
    public let queue: UnsafeMutablePointer<FlowQueue>
    /// How many stages' worker memories use it.
    public var users = 0

    init(table: FlowTable, queue: UnsafeMutablePointer<FlowQueue>) {
        self.table = table
        self.queue = queue
    }
}

extension FlowQueues {
    /// The flows of a worker, made at the first call, which control makes before the worker runs. Nil: not enough
    /// memory.
    public func flows(of worker: Int) -> UnsafeMutablePointer<WorkerFlows>? {
        if let made = madeFlows(of: worker) { return made }
        guard let queue = claim() else { return nil }
        guard let table = FlowTable() else {
            release(queue, rest: [])
            return nil
        }
        let flows = UnsafeMutablePointer<WorkerFlows>.allocate(capacity: 1)
        flows.initialize(to: WorkerFlows(table: table, queue: queue))
        keep(flows, of: worker)
        return flows
    }
}
