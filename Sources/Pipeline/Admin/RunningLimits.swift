import Pipeline
import PipelineInspect
import PipelineNode
import PipelineRuntime

/// What a running node refuses connections for besides its stages: `explain` without it says `relayed` where clients are
/// reset.
struct RunningLimits {
    private let reasons: ReasonTable
    private let listeners: [Endpoint]
    /// Nobody is let in now; nil: connections are.
    let turnsAway: String?
    /// What brings workloads' connections here, or keeps them away, is not as it should be.
    private let interception: [String]

    /// As they are now. On the control thread.
    init(_ node: RunningNode) {
        reasons = node.program.reasons
        listeners = node.listeners.openEndpoints
        interception = node.interceptionProblems + (node.interception?.report.warnings ?? [])
        if node.shortages.memory.isShort {
            turnsAway = reasons.text(RuntimeReason.memoryShort.code)
        } else if node.fleet.workers.allSatisfy({ RunningLimits.isFull($0, node.fleet.budget) }) {
            turnsAway = reasons.text(RuntimeReason.tooManyConnections.code)
        } else {
            turnsAway = nil
        }
    }

    /// Who has not been routed makes room (R27).
    private static func isFull(_ worker: WorkerThread, _ budget: DescriptorBudget) -> Bool {
        worker.counters.pointee.read(.active) >= UInt64(budget.connectionsPerWorker)
            && worker.counters.pointee.read(.sniffing) == 0
    }

    /// Whether who connects there comes to a listener of this node, as the workers look at it.
    func isOwn(_ place: Endpoint) -> Bool {
        if listeners.contains(place) { return true }
        return listeners.contains(Endpoint(place.address.unspecifiedOfFamily, place.port))
            && LinuxKernel.hostHas(place.address)
    }

    /// Of a connection to a listener that intercepts. What is refused before it is accepted, the kernel's sets know alone.
    func remarks(_ mode: ListenerMode?) -> [String] {
        guard let mode, mode.intercepts else { return [] }
        return interception
    }

    var loop: String { reasons.text(RuntimeReason.backendLoop.code) }
}

extension Explanation {
    /// Has the answer be that of the node as it is now. What stages say stays as it is.
    mutating func note(_ limits: RunningLimits) {
        guard outcome != .noListener else { return }
        remarks = limits.remarks(listener?.mode)
        if let reason = limits.turnsAway {
            outcome = .refused(reason: reason)
            candidates = []
            return
        }
        let tried = candidates
        candidates.removeAll { limits.isOwn($0.address) }
        if candidates.isEmpty, !tried.isEmpty { outcome = .refused(reason: limits.loop) }
    }
}
