import Pipeline

/// What a listener is to a canary.
package enum CanaryEntrance: Hashable, Sendable {
    /// Only the current program has it, or there is no canary.
    case none
    /// A share of its connections runs on the canary, by this chain of it.
    case share(chain: Int, hint: ProtocolHint)
    /// Only the canary has it: all of its connections run on it, and are compared with nothing.
    case alone
}

/// A new program beside the current one (R29): which connections it gets, and what becomes of these and the others.
extension Worker {
    /// A connection begins while a canary takes a share.
    mutating func chooseProgram(_ index: Int, _ listener: WorkerListener) {
        guard let share = snapshot.pointee.canary else { return }
        let slot = slab.slots + index
        switch listener.canary {
        case .none: return
        case .alone: slot.pointee.program = programs.moveToCanary()
        case .share(let chain, let hint):
            slot.pointee.marks.insert(.compared)
            // By itself, not by its iteration: a stage that is slow delays what it shares the iteration with.
            slot.pointee.accepted = kernel.now()
            let place = share.place(of: slot.pointee.lasting.peer.endpoint)
            share.evidence.pointee.add(.begun, worker: Int(self.index), place)
            guard place.side == .canary else { return }
            slot.pointee.lasting.hint = hint
            slot.pointee.chain = UInt16(truncatingIfNeeded: chain)
            slot.pointee.program = programs.moveToCanary()
        }
    }

    /// The side and the evidence of a connection that is compared; nil: the canary that it began under is over.
    private func comparison(_ index: Int) -> (CanaryPlace, UnsafePointer<CanaryEvidence>)? {
        let slot = slab.slots + index
        guard slot.pointee.marks.contains(.compared), let share = snapshot.pointee.canary else { return nil }
        let place = share.place(of: slot.pointee.lasting.peer.endpoint)
        let program = place.side == .canary ? programs.canary : programs.current
        guard slot.pointee.program == program else { return nil }
        return (place, share.evidence)
    }

    /// A backend was connected.
    mutating func noteRelayed(_ index: Int) {
        guard let (place, evidence) = comparison(index) else { return }
        let time = kernel.now().since(slab.slots[index].accepted)
        evidence.pointee.addRelayed(after: time, worker: Int(self.index), place)
    }

    /// A connection ends that may be compared.
    func noteEnded(_ index: Int, _ reason: ReasonCode) {
        guard let (place, evidence) = comparison(index) else { return }
        let slot = slab.slots + index
        let isRelayed = slot.pointee.phase.isRelaying
        let worker = Int(self.index)
        let outcome = CanaryOutcome(reason, isRelayed: isRelayed)
        guard outcome != .unrelated else { return }
        if isRelayed { evidence.pointee.add(.ended, worker: worker, place) }
        if case .failed(let kind) = outcome {
            evidence.pointee.add(kind, worker: worker, place)
            evidence.pointee.add(failed: reason, worker: worker, place.side)
        } else if slot.pointee.payload.toClient == 0, slot.pointee.payload.toUpstream > 0 {
            evidence.pointee.add(.unanswered, worker: worker, place)
        }
    }
}
