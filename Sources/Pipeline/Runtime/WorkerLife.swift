import Pipeline

/// Progress of the worker's checks for dead peers (R14).
struct LifeWatch {
    /// How long a peer's TCP may be silent while data for it is pending.
    let timeout: TimeSpan
    /// When the next tick begins; nil: nothing is relayed.
    private(set) var next: Instant?
    /// The slot to continue with; nil: no tick is in progress.
    private(set) var cursor: Int?

    init(timeout: TimeSpan) { self.timeout = timeout }

    var isWalking: Bool { cursor != nil }

    /// The shortest interval between two checks of a peer.
    private var interval: TimeSpan { TimeSpan(nanoseconds: max(1_000_000, timeout.nanoseconds / 2)) }

    /// A connection relays: restarts the ticks, if they have stopped.
    mutating func resume(_ now: Instant) {
        if next == nil, cursor == nil { next = now + interval }
    }

    /// The slots to look at in this iteration; nil: none.
    mutating func batch(of extent: Int, _ size: Int, _ now: Instant) -> Range<Int>? {
        if cursor == nil {
            guard let due = next, due <= now else { return nil }
            cursor = 0
            // Never shorter between two checks: a peer's silence is measured by it.
            next = now + interval
        }
        guard let start = cursor else { return nil }
        let end = min(start + size, extent)
        cursor = end < extent ? end : nil
        return min(start, end)..<end
    }

    /// No connection is left to check.
    mutating func rest() {
        if cursor == nil { next = nil }
    }
}

/// A peer is dead when its TCP is silent (R14). Linux's user timeout also ends a peer that acknowledges every
/// zero-window probe, so the worker checks itself, and only where data may be pending (docs/adr/0005).
extension Worker {
    /// Runs one batch of the current tick, if one is due.
    mutating func runLifeWatch() {
        guard let batch = lifeWatch.batch(of: slab.extent, Self.progressBatch, now) else { return }
        for index in batch where slab.slots[index].phase.isRelaying {
            if isSilent(index, .upstream) {
                foundDead(index, .upstream)
            } else if isSilent(index, .client) {
                foundDead(index, .client)
            }
            check(index)
        }
        if slab.inUse == 0 { lifeWatch.rest() }
    }

    /// Whether a check is worthwhile. A PROXY header alone may be unacknowledged, which no total counts.
    private func mayBeOwed(_ flow: UnsafeMutablePointer<Flow>, _ side: Side) -> Bool {
        if flow.pointee.holdsBytes { return true }
        guard !flow.pointee.state.contains(.acknowledged) else { return false }
        return flow.pointee.total != 0 || flow.pointee.state.contains(.finSent) || side == .upstream
    }

    /// For a zero window: four probes within the timeout, so that one lost probe is not fatal. The system's own
    /// interval grows to two minutes.
    private mutating func probeOften(_ index: Int) {
        let slot = slab.slots + index
        guard !slot.pointee.marks.contains(.probedOften) else { return }
        slot.pointee.marks.insert(.probedOften)
        let longest = TimeSpan(nanoseconds: lifeWatch.timeout.nanoseconds / 4)
        kernel.probe(slot.pointee.client, every: longest)
        kernel.probe(slot.pointee.upstream, every: longest)
    }

    /// A socket that is closed with unsent bytes belongs to the kernel, which gives up a zero window once its probe
    /// interval is at the maximum.
    mutating func probeSeldom(_ index: Int) {
        let slot = slab.slots + index
        guard slot.pointee.marks.contains(.probedOften) else { return }
        kernel.probe(slot.pointee.client, every: nil)
        kernel.probe(slot.pointee.upstream, every: nil)
    }

    /// Whether the side's peer has acknowledged nothing for the whole timeout.
    private mutating func isSilent(_ index: Int, _ side: Side) -> Bool {
        let flow = slab.flow(index, side.other)
        let total = UInt32(truncatingIfNeeded: flow.pointee.total)
        guard flow.pointee.watched == total else {
            // Bytes have moved meanwhile.
            flow.pointee.watched = total
            flow.pointee.state.remove([.acknowledged, .unanswered])
            return false
        }
        guard flow.pointee.state.isDisjoint(with: [.sinkLost, .sourceLost]), mayBeOwed(flow, side) else { return false }
        let slot = slab.slots + index
        guard let silence = kernel.silence(of: side == .client ? slot.pointee.client : slot.pointee.upstream) else {
            return false
        }
        guard silence.isOwed, silence.isUnanswered else {
            if silence.isOwed { probeOften(index) } else { flow.pointee.state.insert(.acknowledged) }
            flow.pointee.state.remove(.unanswered)
            return false
        }
        // The first check sees that it was probed; the second, that more than half the timeout has passed since.
        guard flow.pointee.state.contains(.unanswered) else {
            flow.pointee.state.insert(.unanswered)
            return false
        }
        return silence.lasts >= lifeWatch.timeout
    }
}
