import Pipeline

/// The deadlines of a connection while bytes may flow both ways: keepalive once it has lived for a while, and its idle
/// timeout (R14). Nothing is noted as bytes move: a deadline that has come asks the kernel when the last ones did.
extension Worker {
    mutating func armRelaying(_ index: Int) {
        let idle = idleTimeout(index)
        wheel.arm(slab.slots, index, at: now + (idle > .zero ? min(idle, Self.guardAfter) : Self.guardAfter))
    }

    private func idleTimeout(_ index: Int) -> TimeSpan { .milliseconds(slab.slots[index].lasting.idleTimeout) }

    mutating func relayDeadline(_ index: Int) {
        let slot = slab.slots + index
        let guardDue = slot.pointee.accepted + slot.pointee.connected + Self.guardAfter
        if guardDue <= now { guardUpstream(index) }
        let timeout = idleTimeout(index)
        guard timeout > .zero else { return }
        let quiet = quiet(index)
        guard quiet < timeout else { return finish(index, RuntimeReason.idleTimeout.code, .reset) }
        let due = now + TimeSpan(nanoseconds: timeout.nanoseconds - quiet.nanoseconds)
        wheel.arm(slab.slots, index, at: guardDue <= now ? due : min(due, guardDue))
    }

    /// How long both peers have been quiet. A stream that waits for its rate moves, however slowly.
    private mutating func quiet(_ index: Int) -> TimeSpan {
        let slot = slab.slots + index
        guard slot.pointee.pacePlace == Flow.none, let client = kernel.silence(of: slot.pointee.client)?.quiet else {
            return .zero
        }
        // A Unix socket has no clock: what it sends goes to the client, and what it gets comes from there.
        if slot.pointee.backend?.pointee.endpoint.isUnixSocket == true {
            return min(client, kernel.lastSent(slot.pointee.client) ?? .zero)
        }
        guard let upstream = kernel.silence(of: slot.pointee.upstream)?.quiet else { return .zero }
        return min(client, upstream)
    }
}
