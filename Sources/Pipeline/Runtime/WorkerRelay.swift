import Pipeline

/// Bytes both ways, unchanged (R15): copies through the worker's buffer, and splices for streams that keep filling it.
extension Worker {
    mutating func clientEvent(_ index: Int, _ readiness: Readiness) {
        let slot = slab.slots + index
        noteReadable(&slot.pointee.up, readiness)
        if readiness.contains(.writable) || readiness.contains(.hangup) { slot.pointee.down.state.insert(.writable) }
        switch slot.pointee.phase {
        case .peeking: peekEvent(index)
        case .queued: checkQueued(index)
        case .connecting, .upgrading:
            if readiness.contains(.hangup) { clientLeft(index) }
        case .free: break
        case .relaying, .closingByClient, .closingByUpstream, .losingClient, .losingUpstream: takeTurn(index)
        }
    }

    mutating func upstreamEvent(_ index: Int, _ readiness: Readiness) {
        let slot = slab.slots + index
        switch slot.pointee.phase {
        case .connecting: connectEvent(index, readiness)
        case .upgrading: upgradeEvent(index, readiness)
        case .relaying, .closingByClient, .closingByUpstream, .losingClient, .losingUpstream:
            noteReadable(&slot.pointee.down, readiness)
            if readiness.contains(.writable) || readiness.contains(.hangup) {
                slot.pointee.up.state.insert(.writable)
            }
            takeTurn(index)
        case .peeking, .queued, .free: break
        }
    }

    /// Bulk streams wait until new and small ones have been served.
    private mutating func takeTurn(_ index: Int) {
        guard iterationEvents > 1 || !queue.isEmpty, slab.slots[index].isBulk else { return pumpBoth(index) }
        enqueue(index)
    }

    func noteReadable(_ flow: inout Flow, _ readiness: Readiness) {
        if readiness.contains(.readable) { flow.state.insert(.readable) }
        if readiness.contains(.hangup) {
            // A reset comes with `EPOLLRDHUP` too, and with its error behind the bytes: read until that is told.
            flow.state.formUnion([.readable, .exceptional, .hangupUnasked])
        } else if readiness.contains(.readEnd) {
            flow.state.formUnion([.finReceived, .readable])
        }
        if readiness.contains(.urgent) { flow.state.insert(.exceptional) }
    }

    /// The client left during the connect: ends the connection, without blame for the backend.
    mutating func clientLeft(_ index: Int) {
        let error = kernel.pendingError(slab.slots[index].client)
        if error != 0 { finish(index, RuntimeReason.abandoned.code, .reset) }
    }

    /// Moves bytes in both directions, and ends the connection when both are over.
    mutating func pumpBoth(_ index: Int) {
        let slot = slab.slots + index
        defer { checkStandstill(index) }
        guard pumpUp(index), pump(index, .upstream) else { return }
        // A write found the client gone: its earlier bytes are passed on first.
        if slot.pointee.up.state.contains(.sourceLost) {
            guard pumpUp(index) else { return }
        }
        guard noticeLoss(index, .client), noticeLoss(index, .upstream) else { return }
        let upOver = slot.pointee.up.isOver
        let downOver = slot.pointee.down.isOver
        if upOver, downOver {
            let reason: RuntimeReason = slot.pointee.phase == .closingByClient ? .closedByClient : .closedByUpstream
            finish(index, reason.code, .orderly)
        } else if upOver || downOver, slot.pointee.phase == .relaying {
            armHalfClose(index, first: upOver ? .client : .upstream)
        }
    }

    private mutating func pumpUp(_ index: Int) -> Bool {
        let up = slab.flow(index, .client)
        guard pump(index, .client) else { return false }
        guard up.pointee.state.contains(.heldForInspection), !up.pointee.holdsBytes, !up.pointee.isOver else {
            return true
        }
        return inspectFirstBytes(index) && pump(index, .client)
    }

    private mutating func armHalfClose(_ index: Int, first: Side) {
        let slot = slab.slots + index
        slot.pointee.enter(.closing(first: first))
        slot.pointee.halfClosedTotal = slot.pointee.movedTotal
        // Most are over soon, and need no keepalive.
        let isGuarded = slot.pointee.marks.contains(.upstreamGuarded)
        wheel.arm(slab.slots, index, at: now + (isGuarded ? halfCloseTimeout : min(Self.guardAfter, halfCloseTimeout)))
    }

    /// True for a connection that stays half-closed, and gets keepalive from now on.
    mutating func guardHalfClosed(_ index: Int) -> Bool {
        guard !slab.slots[index].marks.contains(.upstreamGuarded), halfCloseTimeout > Self.guardAfter,
            slab.slots[index].phase.lost == nil
        else { return false }
        guardUpstream(index)
        let rest = TimeSpan(nanoseconds: halfCloseTimeout.nanoseconds - Self.guardAfter.nanoseconds)
        wheel.arm(slab.slots, index, at: now + rest)
        return true
    }

    /// R14: half-open for a whole timeout without a byte. While the other direction still moves, it lives.
    mutating func halfCloseDeadline(_ index: Int) {
        let slot = slab.slots + index
        let total = slot.pointee.movedTotal
        // A flow that waits for its rate counts as moving.
        if total != slot.pointee.halfClosedTotal || slot.pointee.pacePlace != Flow.none {
            slot.pointee.halfClosedTotal = total
            wheel.arm(slab.slots, index, at: now + patience(slot.pointee.phase.lost))
            return
        }
        if let side = slot.pointee.phase.lost {
            endLost(index, side)
            return
        }
        let waitingFor: RuntimeReason =
            slot.pointee.up.isOver ? .halfCloseTimeoutUpstream : .halfCloseTimeoutClient
        finish(index, waitingFor.code, .reset)
    }

    // MARK: One direction

    /// What a direction may move in an iteration in which nobody else has anything to do.
    private static var loneShare: Int { 1 << 20 }
    /// What all directions may move together before new events are handled: newcomers wait for no more than that.
    static var iterationShare: Int { 1 << 18 }
    /// What a direction may still move once the iteration has moved its share: one buffer.
    private static var leastShare: Int { bufferSize }

    /// - Parameter moved: what the direction has moved in this iteration; alone it is if nothing else has.
    private func share(_ moved: Int) -> Int {
        let isAlone = iterationEvents <= 1 && queue.isEmpty && iterationBytes == moved
        guard !isAlone else { return Self.loneShare }
        return iterationBytes < Self.iterationShare ? Self.iterationShare : Self.leastShare
    }

    /// Moves bytes from `source` until one side would block. False if the connection ended.
    mutating func pump(_ index: Int, _ source: Side) -> Bool {
        let slot = slab.slots + index
        let flow = slab.flow(index, source)
        let from = source == .client ? slot.pointee.client : slot.pointee.upstream
        let to = source == .client ? slot.pointee.upstream : slot.pointee.client
        guard !flow.pointee.isOver else { return true }
        var moved = 0
        while true {
            let step: Step
            if flow.pointee.holdsBytes {
                step = flow.pointee.state.contains(.writable) ? drain(index, flow, to) : .wait
            } else if flow.pointee.state.contains(.heldForInspection) {
                return true
            } else if flow.pointee.state.contains(.eof) {
                if source == .upstream { noteHangUp(index) }
                step = end(flow, from, to)
                if case .wait = step { return true }
            } else if flow.pointee.state.contains(.readable) {
                guard moved < share(moved) else {
                    enqueue(index)
                    return true
                }
                if !slot.pointee.lasting.buckets.isEmpty, park(index, source) { return true }
                if flow.pointee.state.contains(.splicing) {
                    step = fillPipe(index, flow, from, to)
                } else {
                    step = mayBuffer(index) ? copy(index, source, from, to) : copyUnbuffered(index, source, from, to)
                }
            } else {
                step = .wait
            }
            switch step {
            case .moved(let count):
                moved += count
                iterationBytes += count
                assert(moved < Self.loneShare + PipePool.pipeSize, "S36: a direction exceeds its share of an iteration")
            case .yield:
                enqueue(index)
                return true
            case .wait:
                leaveLine(index, source)
                if flow.pointee.pipe != Flow.none, flow.pointee.pipeBytes == 0 { releasePipe(flow) }
                return true
            case .sourceBroken(let error):
                assert(!flow.pointee.holdsBytes, "S29: a side is marked gone before its bytes were passed on")
                endBroken(index, source, error)
                return false
            case .sinkBroken(let error):
                return sinkBroke(index, source.other, error)
            }
        }
    }

    enum Step {
        case moved(Int)
        /// There is more to do, but others are first.
        case yield
        case wait
        case sourceBroken(Int32)
        case sinkBroken(Int32)
    }

    /// The source was read to its end and all of it was written: passes FIN on. After a FIN no read reports a reset, so
    /// the source is asked if an event reported one.
    private mutating func end(_ flow: UnsafeMutablePointer<Flow>, _ from: Descriptor, _ to: Descriptor) -> Step {
        if let error = flow.pointee.sourceError { return .sourceBroken(error) }
        if flow.pointee.state.contains(.exceptional) {
            let error = kernel.pendingError(from)
            guard error == 0 else { return .sourceBroken(error) }
        }
        flow.pointee.state.insert(.finSent)
        flow.pointee.state.remove(.acknowledged)
        releasePipe(flow)
        kernel.shutdownWrite(to)
        return .wait
    }

    /// One read through the buffer, and one write of it.
    private mutating func copy(_ index: Int, _ source: Side, _ from: Descriptor, _ to: Descriptor) -> Step {
        let flow = slab.flow(index, source)
        let room = quantum(index, source)
        let outcome = kernel.receive(from, UnsafeMutableRawBufferPointer(rebasing: buffer[..<room]))
        guard !outcome.isError else { return notRead(flow, outcome.error) }
        let count = outcome.value
        if count == 0 {
            flow.pointee.state.insert(.eof)
            return .moved(0)
        }
        noteRead(index, source, count)
        noteRead(flow, isShort: count < room, isPaced: !slab.slots[index].lasting.buckets.isEmpty)
        let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        var sent = 0
        if flow.pointee.state.contains(.writable) {
            let written = kernel.send(to, bytes, UnsafeRawBufferPointer(start: nil, count: 0))
            if written.isError {
                guard written.error == ErrorNumber.again else { return .sinkBroken(written.error) }
            } else {
                sent = written.value
                flow.pointee.total += Int64(sent)
            }
        }
        if sent < count { keep(index, source, UnsafeRawBufferPointer(rebasing: bytes[sent...])) }
        return .moved(count)
    }

    /// The same without a block for bytes that the sink does not take: they stay in the source's queue (peek, then
    /// discard), and nothing is read until the sink takes more.
    private mutating func copyUnbuffered(
        _ index: Int, _ source: Side, _ from: Descriptor, _ to: Descriptor
    ) -> Step {
        let flow = slab.flow(index, source)
        guard flow.pointee.state.contains(.writable) else { return .wait }
        let room = quantum(index, source)
        let outcome = kernel.peek(from, UnsafeMutableRawBufferPointer(rebasing: buffer[..<room]))
        guard !outcome.isError else { return notRead(flow, outcome.error) }
        let count = outcome.value
        if count == 0 {
            flow.pointee.state.insert(.eof)
            return .moved(0)
        }
        let written = kernel.send(
            to, UnsafeRawBufferPointer(rebasing: buffer[..<count]), UnsafeRawBufferPointer(start: nil, count: 0))
        if written.isError {
            guard written.error == ErrorNumber.again else { return .sinkBroken(written.error) }
            flow.pointee.state.remove(.writable)
            return .wait
        }
        let sent = written.value
        flow.pointee.total += Int64(sent)
        let taken = kernel.discard(from, sent)
        guard taken.value == sent else {
            // The bytes are gone from the queue: the source was reset between the two calls.
            return .sourceBroken(taken.isError ? taken.error : ErrorNumber.connectionReset)
        }
        noteRead(index, source, sent)
        if sent == count {
            noteRead(flow, isShort: count < room, isPaced: !slab.slots[index].lasting.buckets.isEmpty)
        } else {
            flow.pointee.state.remove(.writable)
        }
        return .moved(sent)
    }

    /// A read without bytes: would block, end, or error.
    private func notRead(_ flow: UnsafeMutablePointer<Flow>, _ error: Int32) -> Step {
        guard error == ErrorNumber.again else { return .sourceBroken(error) }
        if let error = flow.pointee.sourceError { return .sourceBroken(error) }
        flow.pointee.state.remove(.readable)
        return .wait
    }

    /// Charges bytes that came through the buffer, and shows them to the header watch (R18).
    private mutating func noteRead(_ index: Int, _ source: Side, _ count: Int) {
        charge(index, source, count)
        if source == .client { mute.leave(index) }
        guard source == .upstream, slab.slots[index].header.isOn else { return }
        noteAnswer(index, UnsafeRawBufferPointer(rebasing: buffer[..<count]))
    }

    /// A short read means that the queue is empty: no second call to hear EAGAIN (or, with FIN behind the data, 0).
    /// A paced flow is never spliced: its reads are small, and a pipe would only add calls and hold descriptors.
    private func noteRead(_ flow: UnsafeMutablePointer<Flow>, isShort: Bool, isPaced: Bool) {
        if isShort {
            flow.pointee.fullReads = 0
            if flow.pointee.state.contains(.exceptional) { return }
            if flow.pointee.state.contains(.finReceived) {
                flow.pointee.state.insert(.eof)
            } else {
                flow.pointee.state.remove(.readable)
            }
        } else if !isPaced {
            flow.pointee.fullReads &+= 1
            if flow.pointee.fullReads >= Self.fullReadsToSplice { flow.pointee.state.insert(.splicing) }
        }
    }

    private static var fullReadsToSplice: UInt8 { 4 }

    /// The rest waits in a block; the source is not read until it is sent.
    private mutating func keep(_ index: Int, _ source: Side, _ bytes: UnsafeRawBufferPointer) {
        slab.flow(index, source).pointee.state.remove(.writable)
        // There is one: ``mayBuffer(_:)`` was asked.
        let block = blocks.take()
        assert(block != Flow.none, "S35: bytes were read without a block to hold them")
        UnsafeMutableRawBufferPointer(rebasing: blocks.body(block)[..<bytes.count]).copyMemory(from: bytes)
        store(block, 0..<bytes.count, index, source)
    }

    private mutating func drain(_ index: Int, _ flow: UnsafeMutablePointer<Flow>, _ to: Descriptor) -> Step {
        flow.pointee.block != Flow.none ? drainBlock(index, flow, to) : drainPipe(flow, to)
    }

    private mutating func drainBlock(_ index: Int, _ flow: UnsafeMutablePointer<Flow>, _ to: Descriptor) -> Step {
        let block = flow.pointee.block
        let range = Int(flow.pointee.blockStart)..<Int(flow.pointee.blockEnd)
        let bytes = UnsafeRawBufferPointer(rebasing: blocks.body(block)[range])
        let outcome = kernel.send(to, bytes, UnsafeRawBufferPointer(start: nil, count: 0))
        if outcome.isError {
            guard outcome.error == ErrorNumber.again else { return .sinkBroken(outcome.error) }
            flow.pointee.state.remove(.writable)
            return .wait
        }
        flow.pointee.total += Int64(outcome.value)
        flow.pointee.blockStart += UInt32(outcome.value)
        if flow.pointee.blockStart == flow.pointee.blockEnd {
            giveBlock(index, flow)
        } else {
            flow.pointee.state.remove(.writable)
        }
        return .moved(0)
    }

}
