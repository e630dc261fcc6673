import Pipeline

// The invariants of docs/INVARIANTS.md for one connection, between two steps of its worker. The simulation checks them
// from outside; a debug build asserts them here, where they break first. Each text starts with the invariant's number
// and says what is wrong.

extension Flow {
    /// What is wrong with one direction; nil: nothing.
    /// - Parameter source: the side that its bytes come from.
    func flaw(from source: Side) -> String? {
        if block != Flow.none, pipeBytes > 0 { return "S1: a flow has bytes in a block and in a pipe" }
        if block != Flow.none, blockStart >= blockEnd { return "S1: a block without bytes is kept" }
        if pipeBytes > 0, pipe == Flow.none { return "S1: bytes are in a pipe that is not there" }
        // Bytes for a side that is gone are dropped.
        let isOwed = total < 0 && !state.contains(.sinkLost)
        if isOwed, source == .upstream || block == Flow.none { return "S2: a prelude is owed, but no block holds it" }
        if state.contains(.finSent) {
            if !state.contains(.eof) { return "S3: a FIN was passed on that was never received" }
            if holdsBytes || state.contains(.heldForInspection) { return "S3: FIN was passed on before the last byte" }
        }
        if state.contains(.sinkLost), holdsBytes { return "S29: bytes are held for a side that is gone" }
        if state.contains(.sourceTimedOut), !state.contains(.sourceLost) {
            return "S4: a side has timed out, but is not marked "
                + "broken"
        }
        if state.contains(.coalescing), !state.contains(.splicing) {
            return "S27: a stream coalesces without being "
                + "spliced"
        }
        return nil
    }
}

extension Slot {
    /// What is wrong with a connection; nil: nothing.
    var flaw: String? {
        if let flaw = up.flaw(from: .client) ?? down.flaw(from: .upstream) { return flaw }
        if passed & inspecting != 0 { return "S13: a stage that still inspects has passed" }
        if (route == nil) != (owner == nil) {
            return "S28: a route is pinned without its owner, or an owner without "
                + "its route"
        }
        if upstream.isOpen != (socket != Flow.none) {
            return "S24: a socket without its entry, or an entry without "
                + "its socket"
        }
        if tried > UInt8(BackendCandidates.capacity) { return "S8: more backends were tried than the limit allows" }
        switch phase {
        case .free: return nil
        case .peeking: return peekingFlaw
        case .queued: return queuedFlaw
        case .connecting: return connectingFlaw
        case .upgrading: return upgradingFlaw
        case .relaying, .closingByClient, .closingByUpstream, .losingClient, .losingUpstream:
            return relayingFlaw
        }
    }

    private var peekingFlaw: String? {
        if pending == Flow.none { return "S5: a connection waits for first bytes, but has no buffer for them" }
        if upstream.isOpen || tried > 0 { return "S8: a backend is tried before all stages have passed" }
        if up.total != 0 || down.total != 0 || up.holdsBytes || down.holdsBytes {
            return "S9: bytes have passed before all stages have"
        }
        return nil
    }

    private var queuedFlaw: String? {
        if pending == Flow.none { return "S37: a connection waits for a place, but its first bytes are gone" }
        if upstream.isOpen || tried > 0 || backend != nil {
            return "S37: a connection that waits for a place has a backend"
        }
        if timerBucket == Flow.none { return "S37: a connection waits for a place without a deadline" }
        if !marks.contains(.clientWatched) { return "S37: a client that waits for a place is not watched" }
        return nil
    }

    private var connectingFlaw: String? {
        if pending == Flow.none { return "S5: a connect is in progress, but the first bytes are gone" }
        if !upstream.isOpen || tried == 0 { return "S8: no backend is tried" }
        if up.total != 0 || down.total != 0 || up.holdsBytes {
            return "S8: a backend is tried after bytes were "
                + "written"
        }
        if marks.contains(.direct) == (backend != nil) {
            return "S19: a backend does not count a connection in "
                + "progress"
        }
        if timerBucket == Flow.none { return "S10: a connect is in progress without a deadline" }
        return nil
    }

    private var upgradingFlaw: String? {
        if pending == Flow.none { return "S38: a backend is asked to begin TLS, but the client's hello is gone" }
        if !upstream.isOpen || tried == 0 { return "S38: no backend is asked to begin TLS" }
        if up.total != 0 || down.total != 0 || up.holdsBytes || down.holdsBytes {
            return "S38: bytes have passed before the backend has begun TLS"
        }
        if timerBucket == Flow.none { return "S10: a backend is asked to begin TLS without a deadline" }
        if !marks.isSuperset(of: [.clientWatched, .upstreamWatched, .upgraded]) {
            return "S6: a backend is asked to begin TLS, but a side is not watched"
        }
        return nil
    }

    private var relayingFlaw: String? {
        if !upstream.isOpen { return "S6: a connection relays without a backend" }
        if !marks.isSuperset(of: [.clientWatched, .upstreamWatched]) {
            return "S6: a connection relays, but its bytes are not reported to the stages"
        }
        if (inspecting != 0) != up.state.contains(.heldForInspection) {
            return "S9: an inspection is open, but bytes may pass"
        }
        if inspecting != 0, up.total > 0 { return "S9: bytes have passed an open inspection" }
        if inspecting == 0, pending != Flow.none {
            return "S9: the inspections are over, but first bytes are still "
                + "held"
        }
        if up.isOver, down.isOver { return "S5: both directions are over, but the connection is not" }
        if up.isOver || down.isOver {
            if !phase.isClosing { return "S11: a connection is half-closed, but its phase is not" }
            if timerBucket == Flow.none { return "S11: a half-closed connection has no deadline" }
        }
        if up.state.contains(.sourceLost) != (phase == .losingClient) {
            return "S29: a client is gone, but the phase does "
                + "not say so"
        }
        if down.state.contains(.sourceLost) != (phase == .losingUpstream) {
            return "S29: a backend is gone, but the phase does not say so"
        }
        if phase.lost != nil, timerBucket == Flow.none { return "S30: a lost side's last bytes have no deadline" }
        if reported.bytesToUpstream > UInt64(max(0, up.total)) || reported.bytesToClient > UInt64(max(0, down.total)) {
            return "S26: more bytes were reported to the stages than have passed"
        }
        return nil
    }

    /// What is wrong with a connection right after its bytes were moved; nil: nothing. Before that, an event may still
    /// be pending.
    var standstill: String? {
        guard phase.isRelaying else { return nil }
        return standstill(up) ?? standstill(down)
    }

    private func standstill(_ flow: Flow) -> String? {
        guard !flow.isOver, !marks.contains(.inRunQueue), pacePlace == Flow.none else { return nil }
        if flow.holdsBytes {
            return flow.state.contains(.writable) ? "S6: bytes are held, but their target is writable" : nil
        }
        if flow.state.contains(.heldForInspection) { return nil }
        if flow.state.contains(.eof) { return "S6: a FIN is not passed on" }
        // Where no block may be had, bytes stay where they are until the sink has room.
        if flow.state.isSuperset(of: [.readable, .writable]) { return "S6: bytes are readable, but not read" }
        if flow.state.isSuperset(of: [.coalescing, .splicedLately]), !flow.state.contains(.readable) {
            return "S25: a stream coalesces without a timer"
        }
        return nil
    }
}
