import Pipeline

/// TLS that begins behind an opening in the clear (docs/adr/0097): a stage answers the client in its server's place, and the
/// same opening is said to the backend before the client's hello goes there. What either side has said until then never
/// reaches the other.
extension Worker {
    // MARK: The client

    /// Sends what a stage has said to the client. What its kernel does not take is sent later, before more is read. False
    /// if the connection has ended.
    mutating func sayToClient(_ index: Int) -> Bool {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        guard !pending.pointee.message.isEmpty else { return true }
        guard !pending.pointee.message.isOverfull else {
            finish(index, RuntimeReason.internalError.code, .reset)
            return false
        }
        guard slot.pointee.down.state.contains(.writable) else { return true }
        let outcome = pending.pointee.message.withUnsent {
            kernel.send(slot.pointee.client, $0, UnsafeRawBufferPointer(start: nil, count: 0))
        }
        if outcome.isError {
            guard outcome.error == ErrorNumber.again else {
                endBroken(index, .client, outcome.error)
                return false
            }
        } else {
            pending.pointee.message.noteSent(outcome.value)
        }
        if pending.pointee.message.isEmpty {
            slot.pointee.marks.remove(.owesMessage)
        } else {
            slot.pointee.down.state.remove(.writable)
            slot.pointee.marks.insert(.owesMessage)
        }
        return true
    }

    // MARK: The backend

    /// The backend has accepted. It gets its prelude, and the opening.
    mutating func beginUpgrade(_ index: Int) {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        slot.pointee.enter(.upgrading)
        slot.pointee.connected = now.since(slot.pointee.accepted)
        pending.pointee.message.reset()
        // A stage that gave up waiting may have left something there.
        pending.pointee.memory.reset()
        wheel.arm(slab.slots, index, at: now + pending.pointee.facts.upgradeWithin)
        watchUpstream(index)
        guard slot.pointee.phase == .upgrading else { return }
        watchClient(index)
        guard slot.pointee.phase == .upgrading else { return }
        slot.pointee.backend?.pointee.noteConnect()
        askUpgrade(index, UnsafeRawBufferPointer(start: nil, count: 0))
        continueUpgrade(index)
    }

    mutating func upgradeEvent(_ index: Int, _ readiness: Readiness) {
        let slot = slab.slots + index
        noteReadable(&slot.pointee.down, readiness)
        if readiness.contains(.writable) || readiness.contains(.hangup) { slot.pointee.up.state.insert(.writable) }
        if slot.pointee.up.state.contains(.writable), !sayToBackend(index) { return }
        continueUpgrade(index)
    }

    /// Reads what the backend says, once it has been told all.
    private mutating func continueUpgrade(_ index: Int) {
        let slot = slab.slots + index
        while slot.pointee.phase == .upgrading, slot.pointee.down.state.contains(.readable), !owesBackend(index) {
            let outcome = kernel.receive(
                slot.pointee.upstream, UnsafeMutableRawBufferPointer(rebasing: buffer[..<Self.mostOfAnswer]))
            if outcome.isError {
                guard outcome.error != ErrorNumber.again else {
                    slot.pointee.down.state.remove(.readable)
                    return
                }
                return backendBroke(index, outcome.error)
            }
            guard outcome.value > 0 else { return failUpgrade(index, .upgradeClosed) }
            if outcome.value < Self.mostOfAnswer, !slot.pointee.down.state.contains(.finReceived),
                !slot.pointee.down.state.contains(.exceptional)
            {
                slot.pointee.down.state.remove(.readable)
            }
            blocks.pending(slot.pointee.pending).pointee.hasAnswer = true
            askUpgrade(index, UnsafeRawBufferPointer(rebasing: buffer[..<outcome.value]))
        }
    }

    /// Of one read. Stages bound what they take of all reads together.
    private static var mostOfAnswer: Int { 4096 }

    private mutating func askUpgrade(_ index: Int, _ answer: UnsafeRawBufferPointer) {
        guard let stage = chain(of: index).pointee.upgrading else {
            finish(index, RuntimeReason.internalError.code, .reset)
            return
        }
        let step = withView(index, budget: chain(of: index).pointee.peekBytes) { view, effects in
            stage.pointee.filter.upgradeErased(
                stage.pointee.settings, answer.assumingMemoryBound(to: UInt8.self), view, effects)
        }
        switch step {
        case .more: _ = sayToBackend(index)
        case .done: endUpgrade(index)
        case .refuse(let reason): finish(index, stage.pointee.code(reason), .reset)
        }
    }

    private func owesBackend(_ index: Int) -> Bool {
        let pending = blocks.pending(slab.slots[index].pending)
        return !pending.pointee.message.isEmpty || pending.pointee.preludeSent < pending.pointee.prelude.count
    }

    /// Sends the prelude's rest, and what the stage has said. False if the connection has ended.
    private mutating func sayToBackend(_ index: Int) -> Bool {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        guard !pending.pointee.message.isOverfull else {
            finish(index, RuntimeReason.internalError.code, .reset)
            return false
        }
        guard owesBackend(index) else { return true }
        let sent = pending.pointee.preludeSent
        let outcome = pending.pointee.prelude.withBytes { prelude in
            pending.pointee.message.withUnsent { message in
                kernel.send(
                    slot.pointee.upstream, UnsafeRawBufferPointer(UnsafeBufferPointer(rebasing: prelude[sent...])),
                    message)
            }
        }
        if outcome.isError {
            guard outcome.error == ErrorNumber.again else {
                backendBroke(index, outcome.error)
                return false
            }
        } else {
            let ofPrelude = min(outcome.value, pending.pointee.prelude.count - sent)
            pending.pointee.preludeSent += ofPrelude
            pending.pointee.message.noteSent(outcome.value - ofPrelude)
        }
        if owesBackend(index) { slot.pointee.up.state.remove(.writable) }
        return true
    }

    /// A call failed: of the backend, or for want of something here.
    private mutating func backendBroke(_ index: Int, _ error: Int32) {
        guard ErrorNumber.isOfPeer(error) else { return endBroken(index, .upstream, error) }
        failUpgrade(index, .upgradeClosed)
    }

    /// R18: one that hangs up behind our header without a word has not understood it.
    mutating func failUpgrade(_ index: Int, _ reason: RuntimeReason) {
        let slot = slab.slots + index
        let hasAnswer = blocks.pending(slot.pointee.pending).pointee.hasAnswer
        if reason == .upgradeClosed, !hasAnswer, slot.pointee.header.isOn { doubtHeader(index) }
        finish(index, reason.code, .reset)
    }

    /// The backend waits for a hello: the client's bytes go there, and the relay starts.
    private mutating func endUpgrade(_ index: Int) {
        let slot = slab.slots + index
        guard isStillChosen(index) else {
            finish(index, RuntimeReason.routeChanged.code, .reset)
            return
        }
        acceptHeader(index)
        enterRelaying(index)
        if slot.pointee.inspecting != 0 {
            blocks.pending(slot.pointee.pending).pointee.facts.forgetTable()
        } else {
            passFirstBytes(index)
        }
        armRelaying(index)
        pumpBoth(index)
    }
}
