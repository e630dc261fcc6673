import Pipeline
import PipelineLanguage

extension Compilation {
    /// Who waits has a slot: a `queue` that is larger than all of them is never full, and the node is.
    mutating func remarkOnLongQueues() {
        guard let node = program?.node, !hasErrors else { return }
        let workers = Fleet.workers(node)
        let slots = UInt64(node.maxConnections) * UInt64(workers)
        let queues = groups.compactMap(\.queue) + routes.compactMap(\.queue)
        for queue in queues where UInt64(queue.value.limit) > slots {
            report(
                Diagnostic(
                    .warning, at: queue.span,
                    "\(queue.value.limit) connections may wait, and the node has no more than \(slots)",
                    help: [
                        "who waits counts as one of `connections \(node.maxConnections) per worker` "
                            + "(\(workers) \(workers == 1 ? "worker" : "workers")): write a smaller number here, or a larger one there"
                    ]))
        }
    }
}
