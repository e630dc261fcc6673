import Pipeline

/// Every end of a connection comes through here, once, with one reason (R28).
extension Worker {
    enum Ending {
        /// Both sides have sent FIN, and both FINs were passed on.
        case orderly
        /// RST to whoever is still there.
        case reset
        /// This side is gone already: RST to the other.
        case broken(Side)
    }

    mutating func finish(_ index: Int, _ cause: ReasonCode, _ ending: Ending) {
        let slot = slab.slots + index
        guard slot.pointee.phase != .free else { return }
        checkOrder(index, ending)
        let reason = judgeEnd(index, cause)
        if slot.pointee.pending != Flow.none, slot.pointee.phase == .peeking { absorb(index) }
        let interface = interfaceOfUnknown(index)
        let unreachableFor = timeUnreachable(index, reason)
        if case .orderly = ending { probeSeldom(index) }
        close(slot.pointee.client, .client, ending)
        endUpstream(index, ending)
        wheel.disarm(slab.slots, index)
        paces.remove(slab.slots, index)
        giveBack(index)
        settle(index, reason, interface, unreachableFor)
        // After the stages have settled: from here on what the connection held may go, each with its last user.
        leaveBackend(index)
        unpin(index)
        slot.pointee.reservations.release()
        counters.pointee.ended(reason)
        if slot.pointee.isUndecided { programs.decided(slot.pointee.program) }
        programs.ended(slot.pointee.program)
        mute.leave(index)
        checkEnded(index)
        slab.give(index)
    }

    /// By which interface an intercepted connection came that no instance is known for (R19); 0: not asked, or not known.
    /// Asked before its socket goes.
    private mutating func interfaceOfUnknown(_ index: Int) -> UInt32 {
        let slot = slab.slots + index
        guard logs, slot.pointee.marks.contains(.intercepted), slot.pointee.identity == nil else { return 0 }
        return kernel.interface(of: slot.pointee.client)
    }

    /// How long others need not ask where an intercepted connection was going, since nothing there answers this host
    /// (ADR 0049); zero: it does, or that is not known. A refusal is an answer; and a client that gives up proves nothing.
    private func timeUnreachable(_ index: Int, _ reason: ReasonCode) -> TimeSpan {
        let slot = slab.slots + index
        guard logs, slot.pointee.phase == .connecting, slot.pointee.marks.contains(.direct),
            slot.pointee.pending != Flow.none
        else { return .zero }
        let pending = blocks.pending(slot.pointee.pending)
        // What happens to packets in an instance's name is its own affair, and nobody else's.
        guard pending.pointee.facts.direct == .fromHost else { return .zero }
        switch RuntimeReason(rawValue: reason.rawValue) {
        case .connectTimeout: return pending.pointee.facts.unreachableFor
        case .connectUnreachable: return min(pending.pointee.facts.unreachableFor, Self.longestUnreachable)
        default: return .zero
        }
    }

    /// A route that is gone may be back in a moment. What has let a whole connect time out was longer away than that.
    private static var longestUnreachable: TimeSpan { .seconds(10) }

    mutating func close(_ descriptor: Descriptor, _ side: Side, _ ending: Ending) {
        guard descriptor.isOpen else { return }
        switch ending {
        case .orderly: kernel.close(descriptor)
        case .broken(let gone) where gone == side: kernel.close(descriptor)
        case .reset, .broken: kernel.closeWithReset(descriptor)
        }
    }

    private mutating func endUpstream(_ index: Int, _ ending: Ending) {
        let slot = slab.slots + index
        guard slot.pointee.upstream.isOpen else { return }
        let place = slot.pointee.socket
        if upstreams.mayKeep(place, at: now), isAsGoodAsNew(index, ending), kernel.disconnect(slot.pointee.upstream) {
            upstreams.keep(place, upstreamKey(index), at: now, &kernel)
        } else {
            close(slot.pointee.upstream, .upstream, ending)
            upstreams.give(place)
        }
        slot.pointee.upstream = .none
        slot.pointee.socket = Flow.none
    }

    /// Whose a socket that may be kept is, and where it went: all of it pinned, and as it was at the connect.
    private func upstreamKey(_ index: Int) -> UpstreamKey {
        let slot = slab.slots + index
        let destination = slot.pointee.backend?.pointee.endpoint
        guard !slot.pointee.marks.contains(.direct), let destination else {
            return .direct(slot.pointee.destination, from: nil, of: slot.pointee.instanceNumber)
        }
        return .backend(BackendAddress(destination), of: slot.pointee.owner?.pointee.number)
    }

    /// Whether a connection leaves nothing on its upstream socket that the next one would feel: one that lived for long
    /// has other options, one that moved much has buffers that have grown. And whether nothing is lost with it: an
    /// orderly end may still have bytes and a FIN on their way, which a disconnect would take back.
    private mutating func isAsGoodAsNew(_ index: Int, _ ending: Ending) -> Bool {
        let slot = slab.slots + index
        guard slot.pointee.phase.isRelaying, slot.pointee.marks.contains(.upstreamWatched),
            !slot.pointee.marks.contains(.guarded), slot.pointee.up.total &+ slot.pointee.down.total < Self.lightTraffic
        else { return false }
        if case .orderly = ending { return kernel.isDelivered(slot.pointee.upstream) }
        return true
    }

    /// Bytes: less than a socket's buffers hold from the start.
    private static var lightTraffic: Int64 { 65536 }

    private mutating func giveBack(_ index: Int) {
        releasePending(index)
        stopKeeping(index)
        if slab.slots[index].inspecting != 0 { stash.clear(index) }
        giveBack(index, .client)
        giveBack(index, .upstream)
    }

    /// What the flow that comes from `source` holds.
    mutating func giveBack(_ index: Int, _ source: Side) {
        leaveLine(index, source)
        let flow = slab.flow(index, source)
        if flow.pointee.block != Flow.none { giveBlock(index, flow) }
        releasePipe(flow)
        paces.leave(flow)
    }

    mutating func log(_ record: inout ConnectionRecord) {
        guard logs else { return }
        record.worker = index
        record.endedAt = kernel.wallClock()
        if !(ring._withUnsafeGuaranteedRef { $0.push(record) }) { counters.pointee.add(.logDropped) }
    }

    mutating func deadlinePassed(_ index: Int) {
        assert(slab.slots[index].deadline <= now, "S10: a deadline is met before it has passed")
        defer { check(index) }
        switch slab.slots[index].phase {
        case .peeking: peekDeadline(index)
        case .connecting: connectDeadline(index)
        case .relaying: guardUpstream(index)
        case .closingByClient, .closingByUpstream, .losingClient, .losingUpstream:
            if !guardHalfClosed(index) { halfCloseDeadline(index) }
        case .free: break
        }
    }
}
