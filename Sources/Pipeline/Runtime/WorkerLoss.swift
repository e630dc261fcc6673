import Pipeline

/// Loss of a side: its remaining bytes go to the other side first (R15), and the log has the true reason (R28).
extension Worker {
    /// How often it is checked whether the other side still takes a lost side's bytes; the first check without progress
    /// ends the connection. After a client's reset the interval is short, because its slot and limits are needed: two
    /// checks take less than a second. A backend's last bytes have a reader.
    func patience(_ lost: Side?) -> TimeSpan { lost == .client ? .milliseconds(450) : halfCloseTimeout }

    /// `side` is gone: its received bytes are passed on, and bytes for it are dropped.
    private mutating func lose(_ index: Int, _ side: Side, _ error: Int32) {
        let flow = slab.flow(index, side)
        flow.pointee.state.formUnion([.sourceLost, .readable, .exceptional])
        if Worker.isDeath(error) { flow.pointee.state.insert(.sourceTimedOut) }
        giveBack(index, side.other)
        slab.flow(index, side.other).pointee.state.insert(.sinkLost)
        let slot = slab.slots + index
        slot.pointee.enter(.losing(side))
        slot.pointee.halfClosedTotal = slot.pointee.movedTotal
        wheel.arm(slab.slots, index, at: now + patience(side))
    }

    /// Writing to `sink` has failed. True if the connection continues until the bytes from `sink` are passed on.
    mutating func sinkBroke(_ index: Int, _ sink: Side, _ error: Int32) -> Bool {
        if let side = slab.slots[index].phase.lost {
            // Now both are gone: the first one is the reason.
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

    /// An event reported the end of `side`, but no read will tell how, since its FIN was read or its bytes wait for the
    /// other side: asks the socket. False if the connection has ended.
    mutating func noticeLoss(_ index: Int, _ side: Side) -> Bool {
        let flow = slab.flow(index, side)
        guard flow.pointee.state.contains(.hangupUnasked), flow.pointee.state.contains(.eof) || waits(flow) else {
            return true
        }
        flow.pointee.state.remove(.hangupUnasked)
        let slot = slab.slots + index
        guard slab.slots[index].phase.lost == nil, !flow.pointee.state.contains(.sinkLost) else { return true }
        let error = kernel.pendingError(side == .client ? slot.pointee.client : slot.pointee.upstream)
        guard error != 0 else { return true }
        guard ErrorNumber.isOfPeer(error), waits(flow) else {
            endBroken(index, side, error)
            return false
        }
        lose(index, side, error)
        return true
    }

    /// Bytes of this side are stuck: here, or in its socket because no block is available.
    private func waits(_ flow: UnsafeMutablePointer<Flow>) -> Bool {
        flow.pointee.holdsBytes || (!flow.pointee.state.contains(.writable) && !flow.pointee.state.contains(.eof))
    }

    /// The peer of a side timed out (R14). Its earlier bytes are passed on first here too.
    mutating func foundDead(_ index: Int, _ side: Side) {
        guard slab.slots[index].phase.lost == nil, !slab.flow(index, side).pointee.isOver else {
            endBroken(index, side, ErrorNumber.timedOut)
            return
        }
        lose(index, side, ErrorNumber.timedOut)
        pumpBoth(index)
    }

    mutating func endLost(_ index: Int, _ side: Side) {
        endBroken(index, side, slab.flow(index, side).pointee.sourceError ?? ErrorNumber.connectionReset)
    }

    /// Ends a connection because of a socket error: the peer's, or this node's.
    mutating func endBroken(_ index: Int, _ side: Side, _ error: Int32) {
        guard ErrorNumber.isOfPeer(error) else {
            finish(index, Worker.ownFailure(error).code, .reset)
            return
        }
        // For the kernel a silent peer is not gone: it would keep sending to it.
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
        case ErrorNumber.noSuchSource: .noSource
        case ErrorNumber.notPermitted, ErrorNumber.accessDenied: .connectForbidden
        default: .internalError
        }
    }

    /// The reason for a failed connect.
    static func connectFailure(_ error: Int32) -> RuntimeReason {
        switch error {
        case ErrorNumber.connectionRefused, ErrorNumber.connectionReset: .connectRefused
        case ErrorNumber.timedOut: .connectTimeout
        case ErrorNumber.ofItself: .backendLoop
        case ErrorNumber.networkUnreachable, ErrorNumber.hostUnreachable, ErrorNumber.hostDown: .connectUnreachable
        default: ErrorNumber.isOfPeer(error) ? .connectFailed : ownFailure(error)
        }
    }
}
