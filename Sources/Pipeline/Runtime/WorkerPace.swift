import Pipeline

/// Byte rates (R20): a flow that has buckets reads only while each of them is refilled, a bounded piece at a time, and
/// otherwise waits without a turn of its own until its time has come.
///
/// Rates are exact in the long run although nobody wakes on time: what a flow reads late is charged from when it was
/// entitled to read, so that lateness is made up for (docs/adr/0007). Flows that share a rate have even shares of it, whichever
/// workers they are on: after each piece a flow leaves the rate alone for as long as it takes each of the others to read one.
extension Worker {
    /// Flows that wait are looked after at most so often: the finest that `epoll_wait` can sleep.
    static var shortestPause: TimeSpan { .milliseconds(1) }
    /// What is late by more than this is lost: a machine that was suspended doesn't come back with a flood.
    static var longestCredit: UInt64 { 100_000_000 }

    /// The bytes that a paced flow may read at once.
    func quantum(_ index: Int, _ source: Side) -> Int {
        guard !slab.slots[index].buckets.isEmpty else { return Self.bufferSize }
        let buckets = slab.slots[index].buckets
        var least = Self.bufferSize
        for i in 0..<Int(buckets.count) {
            guard let bucket = buckets[i] else { continue }
            least = min(least, source == .client ? bucket.pointee.up.piece(now) : bucket.pointee.down.piece(now))
        }
        return least
    }

    /// True if the flow must wait for its rate, or for its share of it: then it is woken when its time has come.
    mutating func park(_ index: Int, _ source: Side) -> Bool {
        let slot = slab.slots + index
        let flow = slab.flow(index, source)
        let buckets = slot.pointee.buckets
        var until: Instant?
        var isCrowded = false
        for i in 0..<Int(buckets.count) {
            guard let bucket = buckets[i] else { continue }
            let ready = source == .client ? bucket.pointee.up.readyAt(now) : bucket.pointee.down.readyAt(now)
            if let ready { until = max(until ?? ready, ready) }
            if source == .client ? bucket.pointee.up.isCrowded(now) : bucket.pointee.down.isCrowded(now) {
                isCrowded = true
            }
        }
        if isCrowded, flow.pointee.entitled > now { until = max(until ?? now, flow.pointee.entitled) }
        guard let until else { return false }
        if flow.pointee.entitled.nanoseconds == 0 { joinLine(index, source) }
        flow.pointee.entitled = until
        paces.wake(slab.slots, index, at: max(until, now + Self.shortestPause))
        return true
    }

    /// The flow is one of those that wait for the rate: as long as it is ``Flow/entitled`` to something.
    private func joinLine(_ index: Int, _ source: Side) {
        let buckets = slab.slots[index].buckets
        for i in 0..<Int(buckets.count) {
            if source == .client { buckets[i]?.pointee.up.join() } else { buckets[i]?.pointee.down.join() }
        }
    }

    /// The flow has nothing to read, or nobody to write to: others needn't wait for it.
    func leaveLine(_ index: Int, _ source: Side) {
        let flow = slab.flow(index, source)
        guard flow.pointee.entitled.nanoseconds != 0 else { return }
        flow.pointee.entitled = Instant(nanoseconds: 0)
        let buckets = slab.slots[index].buckets
        for i in 0..<Int(buckets.count) {
            if source == .client { buckets[i]?.pointee.up.leave() } else { buckets[i]?.pointee.down.leave() }
        }
    }

    /// Charges what was read, once, to each bucket.
    func charge(_ index: Int, _ source: Side, _ bytes: Int) {
        let slot = slab.slots + index
        guard bytes > 0, !slot.pointee.buckets.isEmpty else { return }
        let flow = slab.flow(index, source)
        let entitled = flow.pointee.entitled.nanoseconds
        let earliest = now.nanoseconds > Self.longestCredit ? now.nanoseconds - Self.longestCredit : 0
        let at = entitled == 0 ? now : Instant(nanoseconds: min(max(entitled, earliest), now.nanoseconds))
        let buckets = slot.pointee.buckets
        var delay = TimeSpan.zero
        for i in 0..<Int(buckets.count) {
            guard let bucket = buckets[i] else { continue }
            // As the rate stood when it was read: what was free then has no turn.
            if source == .client {
                delay = max(delay, bucket.pointee.up.delay(bytes, now))
                bucket.pointee.up.charge(bytes, at: at)
            } else {
                delay = max(delay, bucket.pointee.down.delay(bytes, now))
                bucket.pointee.down.charge(bytes, at: at)
            }
        }
        if entitled != 0 { flow.pointee.entitled = at + delay }
        // Whoever has had its turn goes to the end of the line.
        slot.pointee.paceOrder = 0
    }
}
