import Pipeline

/// Stages that look at the client's first bytes while the backend is connected already (R17).
extension Worker {
    /// Whether ``Verdict/gate(_:)`` of that stage lets the rest go on: no later stage has to wait, or none waits any more
    /// since the deadline has passed (R17: silence keeps the gate). More bytes must be able to come.
    func staysGate(_ index: Int, _ number: Int) -> Bool {
        let chain = chain(of: index)
        let pending = blocks.pending(slab.slots[index].pending)
        guard pending.pointee.count < chain.pointee.peekBytes else { return false }
        switch pending.pointee.input {
        case .open: return chain.pointee.gates(at: number)
        case .timedOut: return chain.pointee.stages.pointer(number).pointee.canGate
        case .ended, .full: return false
        }
    }

    /// The deadline was for stages that wait. A gate has none: it looks on as bytes come.
    func reopenForGates(_ index: Int) {
        guard slab.slots[index].gating != 0 else { return }
        let pending = blocks.pending(slab.slots[index].pending)
        if pending.pointee.input == .timedOut { pending.pointee.input = .open }
    }

    /// Shows the client's first bytes to the stages that gate them, while the other direction flows (R17). False if
    /// the connection ended.
    mutating func openGate(_ index: Int) -> Bool {
        let slot = slab.slots + index
        guard slot.pointee.up.state.contains(.readable) || slot.pointee.up.state.contains(.ended) else { return true }
        if slot.pointee.pending == Flow.none {
            let hint = slot.pointee.marks.contains(.tls) ? ProtocolHint.tlsPassthrough : .tcpRaw
            guard openPending(index, hint: hint) else { return false }
        }
        while slot.pointee.gating != 0 {
            let readable = slot.pointee.up.state.contains(.readable)
            let pending = blocks.pending(slot.pointee.pending)
            if readable, pending.pointee.input == .open {
                guard fillPending(index) else { return false }
            }
            if pending.pointee.count == 0, pending.pointee.input == .open {
                releasePending(index)
                return true
            }
            guard askGates(index) else { return false }
            if slot.pointee.gating != 0, !slot.pointee.up.state.contains(.readable) { return true }
        }
        passGate(index)
        return true
    }

    private mutating func askGates(_ index: Int) -> Bool {
        let slot = slab.slots + index
        let chain = chain(of: index)
        var left = slot.pointee.gating
        while left != 0 {
            let number = left.trailingZeroBitCount
            left &= left - 1
            let stage = chain.pointee.stages.pointer(number)
            let verdict = evaluate(index, stage, budget: chain.pointee.peekBytes)
            keepFound(index, by: number, of: chain)
            takeOver(index)
            switch verdict {
            case .needBytes, .gate:
                let pending = blocks.pending(slot.pointee.pending)
                guard pending.pointee.input == .open, pending.pointee.count < chain.pointee.peekBytes else {
                    finish(index, RuntimeReason.internalError.code, .reset)
                    return false
                }
                continue
            case .refuse(let reason):
                guard pass(index, stage, reason) else { return false }
            case .next: break
            }
            slot.pointee.gating &= ~(1 << UInt32(number))
            slot.pointee.passed |= 1 << UInt32(number)
        }
        return true
    }

    /// Every gate has let the bytes pass: they become the first of the up flow.
    private mutating func passGate(_ index: Int) {
        let slot = slab.slots + index
        let block = slot.pointee.pending
        let pending = blocks.pending(block)
        let consumed = min(pending.pointee.facts.consumed, pending.pointee.count)
        slot.pointee.up.state.remove(.gated)
        noteDecided(index)
        guard pending.pointee.count > consumed else {
            releasePending(index)
            return
        }
        charge(index, .client, pending.pointee.count - consumed)
        slot.pointee.up.block = block
        slot.pointee.up.blockStart = UInt32(consumed)
        slot.pointee.up.blockEnd = UInt32(pending.pointee.count)
        slot.pointee.pending = Flow.none
    }
}
