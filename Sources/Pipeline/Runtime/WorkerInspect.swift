import Pipeline

/// Non-blocking inspection: stages look at the client's first bytes while the backend is already connected (R17).
extension Worker {
    /// Whether ``Verdict/inspect(_:)`` of that stage is non-blocking: no later stage has to wait, or the deadline has
    /// passed (R17: silence keeps the inspection open). More bytes must be possible.
    func staysNonBlocking(_ index: Int, _ number: Int) -> Bool {
        let chain = chain(of: index)
        let pending = blocks.pending(slab.slots[index].pending)
        guard pending.pointee.count < chain.pointee.peekBytes else { return false }
        switch pending.pointee.input {
        case .open: return chain.pointee.isNonBlocking(at: number)
        case .timedOut: return chain.pointee.stages.pointer(number).pointee.isNonBlocking
        case .ended, .full: return false
        }
    }

    /// The deadline is for stages that wait. An inspection has none: it continues as bytes come.
    func reopenForInspection(_ index: Int) {
        guard slab.slots[index].inspecting != 0 else { return }
        let pending = blocks.pending(slab.slots[index].pending)
        if pending.pointee.input == .timedOut { pending.pointee.input = .open }
    }

    /// Shows the client's first bytes to the stages that inspect them, while the other direction flows (R17). False if
    /// the connection ended.
    mutating func inspectFirstBytes(_ index: Int) -> Bool {
        let slot = slab.slots + index
        guard slot.pointee.up.state.contains(.readable) || slot.pointee.up.state.contains(.eof) else { return true }
        if slot.pointee.pending == Flow.none {
            let block = takeBlock()
            guard block != Flow.none else { return inspectUnbuffered(index) }
            layOut(block, index)
            let pending = blocks.pending(block)
            pending.pointee.count = stash.restore(index, into: blocks.body(block))
            if slot.pointee.up.state.contains(.eof) { pending.pointee.input = .ended }
        }
        while slot.pointee.inspecting != 0 {
            let readable = slot.pointee.up.state.contains(.readable)
            let pending = blocks.pending(slot.pointee.pending)
            if readable, pending.pointee.input == .open {
                guard fillPending(index) else { return false }
            }
            if pending.pointee.count == 0, pending.pointee.input == .open {
                releasePending(index)
                return true
            }
            guard askInspections(index) else { return false }
            if slot.pointee.inspecting != 0, !slot.pointee.up.state.contains(.readable) {
                if stashInspectedBytes(index) { releasePending(index) }
                return true
            }
        }
        passInspection(index)
        return true
    }

    /// Puts the first bytes of an inspection that waits for more where they cost no block. False if they have to stay in it.
    mutating func stashInspectedBytes(_ index: Int) -> Bool {
        let block = slab.slots[index].pending
        let pending = blocks.pending(block)
        guard pending.pointee.facts.consumed == 0, pending.pointee.input == .open,
            stash.keep(index, UnsafeRawBufferPointer(rebasing: blocks.body(block)[..<pending.pointee.count]))
        else { return false }
        pending.pointee.count = 0
        return true
    }

    /// Without a block to read into, stages inspect the first bytes in the socket (peek), and they stay there until
    /// they pass.
    private mutating func inspectUnbuffered(_ index: Int) -> Bool {
        let slot = slab.slots + index
        guard stash.count(index) == 0 else {
            finish(index, RuntimeReason.noSniffBuffer.code, .reset)
            return false
        }
        layOut(blocks.scratch, index)
        let pending = blocks.pending(blocks.scratch)
        let space = UnsafeMutableRawBufferPointer(
            rebasing: blocks.body(blocks.scratch)[..<chain(of: index).pointee.peekBytes])
        let outcome = kernel.peek(slot.pointee.client, space)
        var error = outcome.error
        // While bytes stay in the socket, no read reports a reset.
        if error == 0, slot.pointee.up.state.contains(.exceptional) { error = kernel.pendingError(slot.pointee.client) }
        guard error == 0 else {
            releasePending(index)
            slot.pointee.up.state.remove(.readable)
            guard error != ErrorNumber.again else { return true }
            endBroken(index, .client, error)
            return false
        }
        pending.pointee.count = outcome.value
        if outcome.value == 0 { slot.pointee.up.state.insert(.eof) }
        if outcome.value == 0 || (slot.pointee.up.state.contains(.finReceived) && outcome.value < space.count) {
            pending.pointee.input = .ended
        }
        guard askInspections(index) else { return false }
        releasePending(index)
        guard slot.pointee.inspecting == 0 else { return true }
        slot.pointee.up.state.remove(.heldForInspection)
        programs.decided(slot.pointee.program)
        return true
    }

    private mutating func askInspections(_ index: Int) -> Bool {
        let slot = slab.slots + index
        let chain = chain(of: index)
        var left = slot.pointee.inspecting
        while left != 0 {
            let number = left.trailingZeroBitCount
            left &= left - 1
            let stage = chain.pointee.stages.pointer(number)
            let (client, paced) = (slot.pointee.lasting.client, slot.pointee.lasting.buckets.count)
            let verdict = evaluate(index, stage, budget: chain.pointee.peekBytes)
            // Limits and shares have gone by it: now nobody says another (``ConnectionView/isInspecting``).
            slot.pointee.lasting.client = client
            joinNewLines(index, behind: paced)
            switch verdict {
            case .needBytes, .inspect:
                let pending = blocks.pending(slot.pointee.pending)
                guard pending.pointee.input == .open, pending.pointee.count < chain.pointee.peekBytes else {
                    finish(index, RuntimeReason.internalError.code, .reset)
                    return false
                }
                continue
            case .refuse(let reason):
                guard pass(index, stage, reason) else { return false }
            case .wait:
                finish(index, RuntimeReason.internalError.code, .reset)
                return false
            case .next: break
            }
            slot.pointee.inspecting &= ~(1 << UInt32(number))
            slot.pointee.passed |= 1 << UInt32(number)
        }
        return true
    }

    /// Every inspection has passed: the bytes become the first of the up flow.
    private mutating func passInspection(_ index: Int) {
        slab.slots[index].up.state.remove(.heldForInspection)
        programs.decided(slab.slots[index].program)
        passFirstBytes(index)
    }

    /// The pending block becomes the up flow's, without what stages have consumed.
    mutating func passFirstBytes(_ index: Int) {
        let slot = slab.slots + index
        let block = slot.pointee.pending
        let pending = blocks.pending(block)
        let consumed = min(pending.pointee.facts.consumed, pending.pointee.count)
        guard pending.pointee.count > consumed else {
            releasePending(index)
            return
        }
        charge(index, .client, pending.pointee.count - consumed)
        slot.pointee.pending = Flow.none
        store(block, consumed..<pending.pointee.count, index, .client)
    }
}
