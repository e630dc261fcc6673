import Pipeline

/// A worker's assertions in debug builds (docs/INVARIANTS.md). Release builds contain none of them.
extension Worker {
    /// Called after each change of a connection.
    @inline(__always) func check(_ index: Int) { assert(flaw(index) == nil, flaw(index) ?? "") }

    /// Called after bytes were moved.
    @inline(__always) func checkStandstill(_ index: Int) {
        assert(slab.slots[index].standstill == nil, slab.slots[index].standstill ?? "")
    }

    private func flaw(_ index: Int) -> String? {
        let slot = slab.slots + index
        guard slot.pointee.phase != .free else { return nil }
        if let flaw = slot.pointee.flaw { return flaw }
        let entry = programs[slot.pointee.program]
        guard entry.pointee.isUsed, entry.pointee.connections > 0 else { return "S16: its program is gone" }
        if entry.pointee.undecided < 0 || programs.undecidedOnOlder < 0 { return "S16: a decision is counted twice" }
        if let backend = slot.pointee.backend, backend.pointee.active.current == 0 {
            return "S19: a backend does not count a connection that it has"
        }
        if slot.pointee.socket != Flow.none {
            guard upstreams.has(slot.pointee.socket, slot.pointee.upstream, for: index) else {
                return "S24: an upstream socket is another's"
            }
        }
        if (slot.pointee.phase == .queued) != lines.contains(index) {
            return "S37: a connection's phase and its queue disagree"
        }
        return slot.pointee.phase == .peeking ? waitFlaw(index) : nil
    }

    /// Of a connection that waits for first bytes.
    private func waitFlaw(_ index: Int) -> String? {
        let slot = slab.slots + index
        let chain = chain(of: index)
        if chain.pointee.peekTimeout != nil, slot.pointee.timerBucket == Flow.none {
            return "S10: a connection waits for first bytes without a deadline"
        }
        let waiting = blocks.pending(slot.pointee.pending).pointee.stage
        guard waiting < chain.pointee.stages.count else {
            return "S13: all stages have passed, but the connection "
                + "does not proceed"
        }
        let ahead = chain.pointee.ahead.pointer(waiting).pointee.always
        return ahead & ~slot.pointee.passed == 0 ? nil : "S32: a stage that waits for nothing was not run"
    }

    /// A connection has ended, and its slot goes to the next one.
    @inline(__always) func checkEnded(_ index: Int) {
        let slot = slab.slots + index
        assert(
            slot.pointee.pending == Flow.none && !slot.pointee.marks.contains(.blockCounted)
                && isEmpty(slot.pointee.up) && isEmpty(slot.pointee.down), "S15: a block or a pipe is left")
        assert(slot.pointee.socket == Flow.none && !slot.pointee.upstream.isOpen, "S15: a socket is left")
        assert(slot.pointee.timerBucket == Flow.none && slot.pointee.pacePlace == Flow.none, "S15: a timer is left")
        assert(!lines.contains(index), "S37: a connection that is over still waits")
        assert(slot.pointee.backend == nil, "S19: a backend still counts a connection that is over")
    }

    private func isEmpty(_ flow: Flow) -> Bool {
        flow.block == Flow.none && flow.pipe == Flow.none && !flow.state.contains(.coalescing)
            && flow.entitled.nanoseconds == 0
    }

    /// A connection ends in good order.
    @inline(__always) func checkOrder(_ index: Int, _ ending: Ending) {
        guard case .orderly = ending else { return }
        let slot = slab.slots + index
        assert(
            slot.pointee.up.isOver && slot.pointee.down.isOver && !slot.pointee.up.holdsBytes
                && !slot.pointee.down.holdsBytes, "S4: a connection ends in good order before all bytes were passed on")
    }

    /// The worker was told to end, and has nothing left to do.
    @inline(__always) func checkOver() {
        assert(order != .run && slab.inUse == 0, "S12: the worker ends without an order, or with connections")
        assert(listeners.count == 0, "S12: the worker ends while it listens")
        assert(blocks.inUse == 0, "S15: blocks are still lent")
        assert(
            unrouted.count == 0 && mute.count == 0 && waiting.count == 0,
            "S33: a closed connection is still in a waiting list")
        assert(lines.count == 0 && lines.lineCount == 0, "S37: a closed connection is still in a queue")
        assert(paces.coalescing == 0, "S27: closed streams still coalesce")
    }
}
