import Pipeline

/// The end of a connection: every one comes through here, once, with one reason (R28).
extension Worker {
    enum Ending {
        /// Both sides have sent FIN, and both FINs were passed on.
        case orderly
        /// RST to the sides that are still there.
        case reset
        /// This side is gone: RST to the other.
        case broken(Side)
    }

    mutating func finish(_ index: Int, _ cause: ReasonCode, _ ending: Ending) {
        let slot = slab.slots + index
        guard slot.pointee.phase != .free else { return }
        checkOrder(index, ending)
        let reason = judgeEnd(index, cause)
        if slot.pointee.pending != Flow.none, slot.pointee.phase == .peeking { stopPeeking(index) }
        leaveQueue(index, served: false)
        let interface = interfaceOfUnknown(index)
        let unreachableFor = timeUnreachable(index, reason)
        if case .orderly = ending { probeSeldom(index) }
        close(slot.pointee.client, .client, ending)
        endUpstream(index, ending)
        wheel.disarm(slab.slots, index)
        paces.remove(slab.slots, index)
        giveBack(index)
        settle(index, reason, interface, unreachableFor)
        // After the stages have settled: from here on the pinned objects may be freed.
        leaveBackend(index)
        slot.pointee.lasting.release()
        unpin(index)
        if let policy = slot.pointee.policy { placeFreed(policy) }
        counters.pointee.ended(reason)
        if slot.pointee.isUndecided { programs.decided(slot.pointee.program) }
        if slot.pointee.marks.contains(.compared) { noteEnded(index, reason) }
        programs.ended(slot.pointee.program)
        mute.leave(index)
        checkEnded(index)
        slab.give(index)
    }

    /// The interface of an intercepted connection without a known instance (R19); 0: not asked, or unknown. Asked
    /// before its socket is closed.
    private mutating func interfaceOfUnknown(_ index: Int) -> UInt32 {
        let slot = slab.slots + index
        guard logs, slot.pointee.marks.contains(.intercepted), slot.pointee.lasting.identity == nil else { return 0 }
        return kernel.interface(of: slot.pointee.client)
    }

    /// How long an original destination counts as unreachable (ADR 0049); zero: it answered, or that is unknown. A
    /// refusal is an answer; a client that gives up proves nothing.
    private func timeUnreachable(_ index: Int, _ reason: ReasonCode) -> TimeSpan {
        let slot = slab.slots + index
        guard logs, slot.pointee.phase == .connecting, slot.pointee.marks.contains(.direct),
            slot.pointee.pending != Flow.none
        else { return .zero }
        let pending = blocks.pending(slot.pointee.pending)
        // A connect from an instance's own address says nothing about other instances.
        guard pending.pointee.facts.direct == .fromHost else { return .zero }
        switch RuntimeReason(rawValue: reason.rawValue) {
        case .connectTimeout: return pending.pointee.facts.unreachableFor
        case .connectUnreachable: return min(pending.pointee.facts.unreachableFor, Self.longestUnreachable)
        default: return .zero
        }
    }

    /// A missing network route may return in a moment; only a full connect timeout proves more.
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

    /// The key of a socket that may be kept: owner, destination and source as at the connect, all pinned or numbers.
    private func upstreamKey(_ index: Int) -> UpstreamKey {
        let slot = slab.slots + index
        let destination = slot.pointee.backend?.pointee.endpoint
        guard !slot.pointee.marks.contains(.direct), let destination else {
            return .direct(slot.pointee.lasting.destination.endpoint, of: slot.pointee.instanceNumber)
        }
        return .backend(
            BackendAddress(destination), of: slot.pointee.owner?.pointee.number, from: slot.pointee.source)
    }

    /// Whether the upstream socket can be reused: a long-lived connection has changed options, and a large one grown
    /// buffers. Nothing may be lost either: after an orderly end, bytes and a FIN may be in flight, which a disconnect
    /// would discard.
    private mutating func isAsGoodAsNew(_ index: Int, _ ending: Ending) -> Bool {
        let slot = slab.slots + index
        guard slot.pointee.phase.isRelaying, slot.pointee.marks.contains(.upstreamWatched),
            !slot.pointee.marks.contains(.upstreamGuarded),
            slot.pointee.up.total &+ slot.pointee.down.total < Self.lightTraffic
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
        assert(slab.slots[index].deadline <= now, "S10: a deadline fires before it has passed")
        defer { check(index) }
        switch slab.slots[index].phase {
        case .peeking: peekDeadline(index)
        case .queued: queueDeadline(index)
        case .connecting: connectDeadline(index)
        case .upgrading: failUpgrade(index, .upgradeTimeout)
        case .relaying: relayDeadline(index)
        case .closingByClient, .closingByUpstream, .losingClient, .losingUpstream:
            if !guardHalfClosed(index) { halfCloseDeadline(index) }
        case .free: break
        }
    }
}
