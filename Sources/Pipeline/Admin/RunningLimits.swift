import Pipeline
import PipelineInspect
import PipelineNode
import PipelineRuntime

/// Refusals of a running node outside its stages, without which `explain` would report `relayed` where clients are
/// reset.
struct RunningLimits {
    private let reasons: ReasonTable
    private let listeners: [Endpoint]
    /// Why no connection is admitted now; nil: they are.
    let turnsAway: String?
    /// Problems of interception.
    private let interception: [String]

    /// The current limits. On the control thread.
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

    /// Unrouted connections make room (R27).
    private static func isFull(_ worker: WorkerThread, _ budget: DescriptorBudget) -> Bool {
        worker.counters.pointee.read(.active) >= UInt64(budget.connectionsPerWorker)
            && worker.counters.pointee.read(.sniffing) == 0
    }

    /// Whether a connect there reaches a listener of this node, by the workers' rule.
    func isOwn(_ place: Endpoint) -> Bool {
        if listeners.contains(place) { return true }
        return listeners.contains(Endpoint(place.address.unspecifiedOfFamily, place.port))
            && LinuxKernel.hostHas(place.address)
    }

    /// For intercepted connections. Refusals before accept are known only to the kernel's sets.
    func remarks(_ mode: ListenerMode?) -> [String] {
        guard let mode, mode.intercepts else { return [] }
        return interception
    }

    var loop: String { reasons.text(RuntimeReason.backendLoop.code) }
}

extension Explanation {
    /// Adjusts the answer to the node's current limits. The stages' verdicts stay.
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
