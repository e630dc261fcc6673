import Pipeline

/// Accepting: from a listener's queue to a slot, and through the stages to a backend.
extension Worker {
    /// - Returns: false if the system can't accept now, and an immediate retry is pointless.
    @discardableResult
    mutating func acceptAll(_ listener: WorkerListener, limit: Int = Worker.acceptBatch) -> Bool {
        var accepted = Accepted(descriptor: .none, peer: Endpoint(.unspecified, 0))
        noteMemory()
        for _ in 0..<limit {
            let outcome = kernel.accept(listener.descriptor, &accepted)
            guard outcome.isError else {
                listeners.endPause()
                begin(accepted, listener)
                continue
            }
            switch outcome.error {
            case ErrorNumber.connectionAborted, ErrorNumber.protocolError, ErrorNumber.notPermitted:
                // An error of the next connection, which is gone.
                continue
            case ErrorNumber.again:
                return true
            case ErrorNumber.tooManyFiles, ErrorNumber.tooManyFilesInSystem:
                // Idle upstream sockets are closed before anyone is refused.
                if upstreams.closeIdle(&kernel) { continue }
                var peer = Endpoint(.unspecified, 0)
                let refused = kernel.refuse(listener.descriptor, &peer)
                guard !refused.isError else { return refused.error == ErrorNumber.again }
                counters.pointee.add(.accepted)
                recordRefusal(peer, listener, .noDescriptor)
            default:
                return false
            }
        }
        return true
    }

    private mutating func begin(_ accepted: Accepted, _ listener: WorkerListener) {
        counters.pointee.add(.accepted)
        guard !memory.isShort else { return turnAway(accepted, listener, .memoryShort) }
        guard let index = takeSlot() else { return turnAway(accepted, listener, .tooManyConnections) }
        resumeProgress()
        let slot = slab.slots + index
        slot.pointee.client = accepted.descriptor
        slot.pointee.lasting.serial = nextSerial()
        slot.pointee.accepted = now
        slot.pointee.lasting.peer = PeerAddress(accepted.peer)
        slot.pointee.lasting.client = ClientAddress(accepted.peer)
        slot.pointee.lasting.listener = listener.index
        slot.pointee.lasting.hint = listener.hint
        slot.pointee.chain = UInt16(truncatingIfNeeded: listener.chain)
        slot.pointee.program = programs.began()
        if programs.canary != Flow.none { chooseProgram(index, listener) }
        slot.pointee.enter(.peeking)
        slot.pointee.up.state = .writable
        slot.pointee.down.state = .writable
        if let reason = findDestination(index, listener) {
            finish(index, reason.code, .reset)
            return
        }
        guard openPending(index) else { return }
        advance(index)
        check(index)
    }

    /// Unique in the node: every accepted connection has one, refused ones too.
    private mutating func nextSerial() -> UInt64 {
        serial &+= 1
        return UInt64(index) << 48 | serial
    }

    /// R27: silent connections make room for new ones.
    private mutating func takeSlot() -> Int? {
        if let index = slab.take() { return index }
        return makeRoom() ? slab.take() : nil
    }

    /// R27: at the limit the newest is refused, and logged.
    private mutating func turnAway(_ accepted: Accepted, _ listener: WorkerListener, _ reason: RuntimeReason) {
        kernel.closeWithReset(accepted.descriptor)
        recordRefusal(accepted.peer, listener, reason)
    }

    /// Refuses a connection that has no slot.
    private mutating func recordRefusal(_ peer: Endpoint, _ listener: WorkerListener, _ reason: RuntimeReason) {
        counters.pointee.ended(reason.code)
        var record = ConnectionRecord()
        record.serial = nextSerial()
        record.reason = reason.code
        record.peer = peer
        record.client = peer
        record.destination = listener.bound
        record.listener = listener.index
        log(&record)
    }

    /// Borrows a block for a connection's facts and first bytes. False if the connection was refused for want of one.
    mutating func openPending(_ index: Int) -> Bool {
        let block = takeBlock()
        guard block != Flow.none else {
            finish(index, RuntimeReason.noSniffBuffer.code, .reset)
            return false
        }
        layOut(block, index)
        return true
    }

    /// Makes a block that of the connection's facts and first bytes.
    mutating func layOut(_ block: Int32, _ index: Int) {
        let slot = slab.slots + index
        slot.pointee.pending = block
        let pending = blocks.pending(block)
        pending.pointee.begin(facts: ConnectionFacts(slab.lasting(index)))
        if slot.pointee.marks.contains(.intercepted) {
            pending.pointee.facts.spelledDestination = spelledAddress(slot.pointee.lasting.destination.endpoint.address)
        }
    }

    func chain(of index: Int) -> UnsafePointer<Chain> {
        let slot = slab.slots + index
        return programs[slot.pointee.program].pointee.chains.pointer(Int(slot.pointee.chain))
    }

    // MARK: Stages

    /// Runs stages until one waits or refuses, or all have passed. Table lookups from before a wait are repeated.
    mutating func advance(_ index: Int) {
        guard !isStale(index) || chooseAgain(index, after: nil) else { return }
        let slot = slab.slots + index
        let chain = chain(of: index)
        let pending = blocks.pending(slot.pointee.pending)
        while pending.pointee.stage < chain.pointee.stages.count {
            let number = pending.pointee.stage
            let bit: UInt32 = 1 << UInt32(number & 31)
            if slot.pointee.passed & bit == 0 {
                let ahead = chain.pointee.ahead.pointer(number)
                guard runAhead(index, ahead.pointee.always, of: chain) else { return }
                let stage = chain.pointee.stages.pointer(number)
                let verdict = evaluate(index, stage, budget: chain.pointee.peekBytes)
                keepRoute(index, by: number, of: chain)
                switch verdict {
                case .next:
                    slot.pointee.passed |= bit
                case .inspect where staysNonBlocking(index, number):
                    slot.pointee.inspecting |= bit
                case .inspect(let wanted):
                    guard runAhead(index, ahead.pointee.besideInspection, of: chain), obtain(wanted, index, chain)
                    else {
                        return
                    }
                    continue
                case .needBytes(let wanted):
                    guard pending.pointee.message.isEmpty || sayToClient(index), obtain(wanted, index, chain) else {
                        return
                    }
                    continue
                case .wait:
                    guard runAhead(index, chain.pointee.besideQueue, of: chain) else { return }
                    return awaitPlace(index)
                case .refuse(let reason):
                    guard pending.pointee.message.isEmpty || sayToClient(index), pass(index, stage, reason) else {
                        return
                    }
                    slot.pointee.passed |= bit
                }
            }
            pending.pointee.stage = number + 1
        }
        reopenForInspection(index)
        stopPeeking(index)
        noteMute(index)
        if slot.pointee.inspecting == 0 { programs.decided(slot.pointee.program) }
        connectNext(index)
    }

    /// Runs stages ahead of the waiting stage above them, if they don't depend on it. False if one of them has ended
    /// the connection.
    private mutating func runAhead(_ index: Int, _ ahead: UInt32, of chain: UnsafePointer<Chain>) -> Bool {
        let slot = slab.slots + index
        var left = ahead & ~slot.pointee.passed
        while left != 0 {
            let number = left.trailingZeroBitCount
            left &= left - 1
            let stage = chain.pointee.stages.pointer(number)
            let verdict = evaluate(index, stage, budget: chain.pointee.peekBytes)
            keepRoute(index, by: number, of: chain)
            switch verdict {
            case .next: break
            case .refuse(let reason):
                guard pass(index, stage, reason) else { return false }
            case .needBytes, .inspect, .wait:
                // The stage declared no need for bytes.
                finish(index, RuntimeReason.internalError.code, .reset)
                return false
            }
            slot.pointee.passed |= 1 << UInt32(number)
        }
        return true
    }

    /// Provides the bytes that a stage waits for. False if they are not there yet, or the connection has ended.
    private mutating func obtain(_ wanted: Int, _ index: Int, _ chain: UnsafePointer<Chain>) -> Bool {
        let pending = blocks.pending(slab.slots[index].pending)
        guard pending.pointee.input == .open, pending.pointee.count < chain.pointee.peekBytes else {
            // The stage asked for bytes that can't come: a bug of the stage, which must not hang the client.
            finish(index, RuntimeReason.internalError.code, .reset)
            return false
        }
        // At least one more byte than there is, even if the stage asks for less: otherwise it would loop.
        pending.pointee.wanted = min(max(wanted, pending.pointee.count + 1), chain.pointee.peekBytes)
        return readFirstBytes(index)
    }

    /// Runs one stage. `budget` bounds the bytes that it sees.
    func evaluate(_ index: Int, _ stage: UnsafePointer<Stage>, budget: Int) -> Verdict {
        let states = programs[slab.slots[index].program].pointee.states
        return withView(index, budget: budget) { view, effects in
            stage.pointee.filter.evaluateErased(
                stage.pointee.settings, states[stage.pointee.stateIndex], view, effects)
        }
    }

    /// The view and the effects for a stage, by the newest table.
    @inline(__always)
    func withView<Result>(_ index: Int, budget: Int, _ ask: (ConnectionView, Effects) -> Result) -> Result {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        let seen = min(pending.pointee.count, budget)
        var input = pending.pointee.input
        if input == .open, budget > 0, seen >= budget { input = .full }
        let body = blocks.body(slot.pointee.pending)
        let bytes = UnsafeBufferPointer(
            start: body.baseAddress?.assumingMemoryBound(to: UInt8.self), count: seen)
        return withUnsafeMutablePointer(to: &pending.pointee.facts) { facts in
            withUnsafeMutablePointer(to: &pending.pointee.prelude) { prelude in
                withUnsafeMutablePointer(to: &pending.pointee.memory) { memory in
                    let view = ConnectionView(
                        facts: facts, bytes: bytes, input: input, now: now,
                        wallClock: snapshot.pointee.readsWallClock ? kernel.wallClock() : 0,
                        routes: snapshot.pointee.routes,
                        instances: snapshot.pointee.instances, isInspecting: slot.pointee.phase.isRelaying)
                    return withUnsafeMutablePointer(to: &pending.pointee.message) { message in
                        ask(view, Effects(facts: facts, prelude: prelude, memory: memory, message: message))
                    }
                }
            }
        }
    }

    /// A stage has refused. True if it is in shadow mode and the connection continues (R28).
    mutating func pass(_ index: Int, _ stage: UnsafePointer<Stage>, _ reason: UInt8) -> Bool {
        let code = stage.pointee.code(reason)
        if stage.pointee.shadow {
            counters.pointee.shadowed(code)
            slab.slots[index].lasting.shadowed = code
            return true
        }
        finish(index, code, .reset)
        return false
    }

    /// No stage waits for first bytes any more: all have passed, or the connection ends.
    mutating func stopPeeking(_ index: Int) {
        let slot = slab.slots + index
        unrouted.leave(index)
        let pending = blocks.pending(slot.pointee.pending)
        // The one fact that is copied. Routes go by the whole name, which ends with its block; the slot has it as logs do, cut.
        pending.pointee.facts.serverName.withBytes { slot.pointee.serverName.set($0) }
        if pending.pointee.facts.hasProxyHeader { slot.pointee.header.begin() }
        if pending.pointee.facts.isUpgraded { slot.pointee.marks.insert(.upgraded) }
    }

    // MARK: The client's first bytes

    /// Reads until the waiting stage can run again. False if the socket is not readable, or has ended.
    private mutating func readFirstBytes(_ index: Int) -> Bool {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        // The first wait reads at once, since the bytes are usually there.
        if pending.pointee.count == 0, !slot.pointee.marks.contains(.clientWatched) {
            slot.pointee.up.state.insert(.readable)
        }
        while pending.pointee.count < pending.pointee.wanted, pending.pointee.input == .open {
            guard slot.pointee.up.state.contains(.readable), !slot.pointee.marks.contains(.owesMessage) else {
                awaitPeek(index)
                return false
            }
            guard fillPending(index) else { return false }
        }
        return true
    }

    private mutating func awaitPeek(_ index: Int) {
        let slot = slab.slots + index
        noteUnrouted(index)
        if slot.pointee.timerBucket == Flow.none, let timeout = chain(of: index).pointee.peekTimeout {
            wheel.arm(slab.slots, index, at: slot.pointee.accepted + timeout)
        }
        watchClient(index)
    }

    /// One read of the client's first bytes into the pending block. False if the connection ended.
    mutating func fillPending(_ index: Int) -> Bool {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        let body = blocks.body(slot.pointee.pending)
        let room = PeekNeed.limit - pending.pointee.count
        let space = UnsafeMutableRawBufferPointer(
            rebasing: body[pending.pointee.count..<pending.pointee.count + min(room, 16384)])
        let outcome = kernel.receive(slot.pointee.client, space)
        if outcome.isError {
            guard outcome.error != ErrorNumber.again || slot.pointee.up.sourceError != nil else {
                slot.pointee.up.state.remove(.readable)
                return true
            }
            endBroken(index, .client, slot.pointee.up.sourceError ?? outcome.error)
            return false
        }
        if outcome.value == 0 {
            if let error = slot.pointee.up.sourceError {
                // No FIN, and nothing more to inspect.
                endBroken(index, .client, error)
                return false
            }
            pending.pointee.input = .ended
            slot.pointee.up.state.insert(.eof)
            slot.pointee.up.state.remove(.readable)
            return true
        }
        pending.pointee.count += outcome.value
        let state = slot.pointee.up.state
        if outcome.value < space.count, !state.contains(.finReceived), !state.contains(.exceptional) {
            slot.pointee.up.state.remove(.readable)
        }
        return true
    }

    mutating func watchClient(_ index: Int) {
        let slot = slab.slots + index
        guard !slot.pointee.marks.contains(.clientWatched) else { return }
        slot.pointee.marks.insert(.clientWatched)
        let key = EventKey(.client, index: index, generation: slot.pointee.generation)
        if kernel.watch(slot.pointee.client, key).isError {
            finish(index, RuntimeReason.internalError.code, .reset)
        }
    }

    /// The client's socket is readable while a stage waits for bytes.
    mutating func peekEvent(_ index: Int) {
        guard !slab.slots[index].marks.contains(.owesMessage) || sayToClient(index) else { return }
        if readFirstBytes(index) { advance(index) }
    }

    mutating func peekDeadline(_ index: Int) {
        guard !slab.slots[index].marks.contains(.owesMessage) else {
            finish(index, RuntimeReason.answerUntaken.code, .reset)
            return
        }
        blocks.pending(slab.slots[index].pending).pointee.input = .timedOut
        advance(index)
    }
}
