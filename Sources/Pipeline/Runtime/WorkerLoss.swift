import Pipeline

/// A side that is gone: what it sent before goes to the other first (R15), and the end is told as what it was (R28).
extension Worker {
    /// How often it is looked whether the other side takes what a lost one has sent; once it has not, that is the end. Nobody
    /// waits for the rest of what a client sends that has reset: its slot, its limits and its backend's time are needed, and
    /// two looks take less than a second. A backend's last words have a reader.
    func patience(_ lost: Side?) -> TimeSpan { lost == .client ? .milliseconds(450) : halfCloseTimeout }

    /// Nothing that goes to `side` arrives any more; what has come from it is moved on, and what is for it goes nowhere.
    private mutating func lose(_ index: Int, _ side: Side, _ error: Int32) {
        let flow = slab.flow(index, side)
        flow.pointee.state.formUnion([.broken, .readable, .urgent])
        if Worker.isDeath(error) { flow.pointee.state.insert(.timedOut) }
        giveBack(index, side.other)
        slab.flow(index, side.other).pointee.state.insert(.dropped)
        let slot = slab.slots + index
        slot.pointee.enter(.losing(side))
        slot.pointee.halfClosedTotal = slot.pointee.up.total &+ slot.pointee.down.total
        wheel.arm(slab.slots, index, at: now + patience(side))
    }

    /// Writing to `sink` has failed. True if the connection goes on, until what `sink` has sent is moved.
    mutating func sinkBroke(_ index: Int, _ sink: Side, _ error: Int32) -> Bool {
        if let side = slab.slots[index].phase.lost {
            // Now both are gone: the first one is why.
            endLost(index, side)
            return false
        }
        guard ErrorNumber.isOfPeer(error), !slab.flow(index, sink).pointee.isOver else {
            endBroken(index, sink, error)
            return false
        }
        lose(index, sink, error)
        return true
    }

    /// An event has told that `side` is over, and nothing of it is read now that would tell how: its FIN has been read, or
    /// its bytes wait for the other side. Asks. False if the connection has ended.
    mutating func noticeLoss(_ index: Int, _ side: Side) -> Bool {
        let flow = slab.flow(index, side)
        guard flow.pointee.state.contains(.hungUp), flow.pointee.state.contains(.ended) || waits(flow) else {
            return true
        }
        flow.pointee.state.remove(.hungUp)
        let slot = slab.slots + index
        guard slab.slots[index].phase.lost == nil, !flow.pointee.state.contains(.dropped) else { return true }
        let error = kernel.pendingError(side == .client ? slot.pointee.client : slot.pointee.upstream)
        guard error != 0 else { return true }
        guard ErrorNumber.isOfPeer(error), waits(flow) else {
            endBroken(index, side, error)
            return false
        }
        lose(index, side, error)
        return true
    }

    /// Bytes of this side stand still: here, or in its own queue because no block may be had for them.
    private func waits(_ flow: UnsafeMutablePointer<Flow>) -> Bool {
        flow.pointee.holdsBytes || (!flow.pointee.state.contains(.writable) && !flow.pointee.state.contains(.ended))
    }

    /// The peer of a side has not answered for too long (R14). What it said before goes first here too.
    mutating func foundDead(_ index: Int, _ side: Side) {
        guard slab.slots[index].phase.lost == nil, !slab.flow(index, side).pointee.isOver else {
            endBroken(index, side, ErrorNumber.timedOut)
            return
        }
        lose(index, side, ErrorNumber.timedOut)
        pumpBoth(index)
    }

    mutating func endLost(_ index: Int, _ side: Side) {
        endBroken(index, side, slab.flow(index, side).pointee.brokenBy ?? ErrorNumber.connectionReset)
    }

    /// The end of a connection that an error of a side's socket is the cause of: the peer's doing, or this node's.
    mutating func endBroken(_ index: Int, _ side: Side, _ error: Int32) {
        guard ErrorNumber.isOfPeer(error) else {
            finish(index, Worker.ownFailure(error).code, .reset)
            return
        }
        // One that is silent is not gone for the kernel: it would go on sending to it.
        let ending: Ending = Worker.isDeath(error) ? .reset : .broken(side)
        finish(index, Worker.brokenReason(error, side).code, ending)
    }

    // MARK: Names

    private static func isDeath(_ error: Int32) -> Bool {
        switch error {
        case ErrorNumber.timedOut, ErrorNumber.hostUnreachable, ErrorNumber.networkUnreachable, ErrorNumber.hostDown:
            true
        default: false
        }
    }

    private static func brokenReason(_ error: Int32, _ side: Side) -> RuntimeReason {
        if side == .client { return isDeath(error) ? .clientTimedOut : .resetByClient }
        return isDeath(error) ? .upstreamTimedOut : .resetByUpstream
    }

    /// What this node lacks.
    static func ownFailure(_ error: Int32) -> RuntimeReason {
        switch error {
        case ErrorNumber.noMemory, ErrorNumber.noBufferSpace: .kernelMemory
        case ErrorNumber.tooManyFiles, ErrorNumber.tooManyFilesInSystem: .noDescriptor
        case ErrorNumber.addressNotAvailable, ErrorNumber.addressInUse: .noPort
        case ErrorNumber.notPermitted, ErrorNumber.accessDenied: .connectForbidden
        default: .internalError
        }
    }

    /// What a backend that can't be connected to ends a connection with.
    static func connectFailure(_ error: Int32) -> RuntimeReason {
        switch error {
        case ErrorNumber.connectionRefused, ErrorNumber.connectionReset: .connectRefused
        case ErrorNumber.timedOut: .connectTimeout
        case ErrorNumber.networkUnreachable, ErrorNumber.hostUnreachable, ErrorNumber.hostDown: .connectUnreachable
        default: ErrorNumber.isOfPeer(error) ? .connectFailed : ownFailure(error)
        }
    }
}
