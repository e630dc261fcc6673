/// What one worker has to tell of flows: growth since the last records, and the way to the queues. One a worker, whatever the number
/// of programs that it holds and of stages that account: they add to the same keys.
///
/// Threading: the worker's own thread, once it was made (``FlowQueues/flows(of:)``). Ownership: the queues's.
public struct WorkerFlows: ~Copyable {
    public var table: FlowTable
    public let queue: UnsafeMutablePointer<FlowQueue>
    /// States of stages that use it.
    public var users = 0

    init(table: FlowTable, queue: UnsafeMutablePointer<FlowQueue>) {
        self.table = table
        self.queue = queue
    }
}

extension FlowQueues {
    /// The flows of a worker: made when they are first asked for, and the same ever after. Control asks before a worker needs
    /// them. Nil: there is no memory for them.
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
