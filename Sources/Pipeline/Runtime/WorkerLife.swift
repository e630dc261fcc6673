import Pipeline

/// Where a worker is in looking after peers that may be dead (R14).
struct LifeWatch {
    /// For how long a peer's TCP may be silent while something is owed to it.
    let timeout: TimeSpan
    /// When the next tick begins; nil: nothing is relayed.
    private(set) var next: Instant?
    /// The slot to go on with; nil: no tick is under way.
    private(set) var cursor: Int?

    init(timeout: TimeSpan) { self.timeout = timeout }

    var isWalking: Bool { cursor != nil }

    /// Each peer is looked after so often at most.
    private var interval: TimeSpan { TimeSpan(nanoseconds: max(1_000_000, timeout.nanoseconds / 2)) }

    /// A connection relays: ticks go on, should they have stopped for want of any.
    mutating func resume(_ now: Instant) {
        if next == nil, cursor == nil { next = now + interval }
    }

    /// The slots to look at in this iteration; nil: none.
    mutating func batch(of extent: Int, _ size: Int, _ now: Instant) -> Range<Int>? {
        if cursor == nil {
            guard let due = next, due <= now else { return nil }
            cursor = 0
            // From one look to the next it is never less: a peer's silence is measured by it.
            next = now + interval
        }
        guard let start = cursor else { return nil }
        let end = min(start + size, extent)
        cursor = end < extent ? end : nil
        return min(start, end)..<end
    }

    /// Nothing is left to look after.
    mutating func rest() {
        if cursor == nil { next = nil }
    }
}

/// Dead is a peer whose TCP is silent (R14). Linux's user timeout also ends one that acknowledges every probe of a window
/// that it keeps shut, so the worker looks for itself, and asks only where something may be owed (docs/adr/0005).
extension Worker {
    /// One batch, if a tick is due or under way.
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

    /// Whether asking may bring something. A backend may owe an answer to a header alone, which no total counts.
    private func mayBeOwed(_ flow: UnsafeMutablePointer<Flow>, _ side: Side) -> Bool {
        if flow.pointee.holdsBytes { return true }
        guard !flow.pointee.state.contains(.acknowledged) else { return false }
        return flow.pointee.total != 0 || flow.pointee.state.contains(.shut) || side == .upstream
    }

    /// A peer keeps its window shut: asked four times in the time that it may be silent, so that one lost probe is no death. Else
    /// the system asks it every two minutes in the end.
    private mutating func probeOften(_ index: Int) {
        let slot = slab.slots + index
        guard !slot.pointee.isProbedOften else { return }
        slot.pointee.isProbedOften = true
        let longest = TimeSpan(nanoseconds: lifeWatch.timeout.nanoseconds / 4)
        kernel.probe(slot.pointee.client, every: longest)
        kernel.probe(slot.pointee.upstream, every: longest)
    }

    /// A socket that is closed with bytes on their way is the kernel's alone, and by its own patience: that ends a shut
    /// window once probes wait for the longest.
    mutating func probeSeldom(_ index: Int) {
        let slot = slab.slots + index
        guard slot.pointee.isProbedOften else { return }
        kernel.probe(slot.pointee.client, every: nil)
        kernel.probe(slot.pointee.upstream, every: nil)
    }

    /// Whether the side's peer has left unanswered what was sent to it, for the whole timeout.
    private mutating func isSilent(_ index: Int, _ side: Side) -> Bool {
        let flow = slab.flow(index, side.other)
        let total = UInt32(truncatingIfNeeded: flow.pointee.total)
        guard flow.pointee.watched == total else {
            // Bytes have moved meanwhile.
            flow.pointee.watched = total
            flow.pointee.state.remove([.acknowledged, .silent])
            return false
        }
        guard flow.pointee.state.isDisjoint(with: [.dropped, .broken]), mayBeOwed(flow, side) else { return false }
        let slot = slab.slots + index
        guard let silence = kernel.silence(of: side == .client ? slot.pointee.client : slot.pointee.upstream) else {
            return false
        }
        guard silence.isOwed, silence.isUnanswered else {
            if silence.isOwed { probeOften(index) } else { flow.pointee.state.insert(.acknowledged) }
            flow.pointee.state.remove(.silent)
            return false
        }
        // The first time tells that it was asked, and the second that it has had half the timeout since, and more.
        guard flow.pointee.state.contains(.silent) else {
            flow.pointee.state.insert(.silent)
            return false
        }
        return silence.lasts >= lifeWatch.timeout
    }
}
