import Pipeline

/// Byte rates (R20): a flow with token buckets reads a bounded piece at a time, only while each bucket is refilled.
/// Otherwise it waits on a timer.
///
/// Rates are exact in the long run despite late timers: a late read is charged from the time at which it was allowed
/// (docs/adr/0007). Flows that share a rate get equal shares, on any worker: after each piece a flow pauses for as long
/// as the others need to read one each.
extension Worker {
    /// The timer resolution for waiting flows: the finest sleep of `epoll_wait`.
    static var shortestPause: TimeSpan { .milliseconds(1) }
    /// Lateness beyond this is not made up: a machine that was suspended does not resume with a flood.
    static var longestCredit: UInt64 { 100_000_000 }

    /// The most bytes of one read of a rate-limited flow.
    func quantum(_ index: Int, _ source: Side) -> Int {
        guard !slab.slots[index].lasting.buckets.isEmpty else { return Self.bufferSize }
        let buckets = slab.slots[index].lasting.buckets
        var least = Self.bufferSize
        for i in 0..<buckets.count {
            guard let bucket = buckets[i] else { continue }
            least = min(least, source == .client ? bucket.pointee.up.piece(now) : bucket.pointee.down.piece(now))
        }
        return least
    }

    /// True if the flow must wait for its rate or its share of it: then its timer is set.
    mutating func park(_ index: Int, _ source: Side) -> Bool {
        let slot = slab.slots + index
        let flow = slab.flow(index, source)
        let buckets = slot.pointee.lasting.buckets
        var until: Instant?
        var isCrowded = false
        for i in 0..<buckets.count {
            guard let bucket = buckets[i] else { continue }
            let ready = source == .client ? bucket.pointee.up.readyAt(now) : bucket.pointee.down.readyAt(now)
            if let ready { until = max(until ?? ready, ready) }
            if source == .client ? bucket.pointee.up.isCrowded(now) : bucket.pointee.down.isCrowded(now) {
                isCrowded = true
            }
        }
        if isCrowded, flow.pointee.entitled > now { until = max(until ?? now, flow.pointee.entitled) }
        guard let until else { return false }
        if flow.pointee.entitled.nanoseconds == 0 { joinLine(index, source, behind: 0) }
        flow.pointee.entitled = until
        paces.wake(slab.slots, index, at: max(until, now + Self.shortestPause))
        return true
    }

    /// The flow is one of those that wait for the rate: as long as it is ``Flow/entitled`` to something.
    private func joinLine(_ index: Int, _ source: Side, behind first: Int) {
        let buckets = slab.slots[index].lasting.buckets
        for i in first..<buckets.count {
            if source == .client { buckets[i]?.pointee.up.join() } else { buckets[i]?.pointee.down.join() }
        }
    }

    /// A stage was asked while bytes flow. If it has set more rates than the `first` that there were, who waits does so for them
    /// too.
    func joinNewLines(_ index: Int, behind first: Int) {
        let slot = slab.slots + index
        guard slot.pointee.lasting.buckets.count > first else { return }
        if slot.pointee.up.entitled.nanoseconds != 0 { joinLine(index, .client, behind: first) }
        if slot.pointee.down.entitled.nanoseconds != 0 { joinLine(index, .upstream, behind: first) }
    }

    /// The flow has nothing to read, or nobody to write to: others needn't wait for it.
    func leaveLine(_ index: Int, _ source: Side) {
        let flow = slab.flow(index, source)
        guard flow.pointee.entitled.nanoseconds != 0 else { return }
        flow.pointee.entitled = Instant(nanoseconds: 0)
        let buckets = slab.slots[index].lasting.buckets
        for i in 0..<buckets.count {
            if source == .client { buckets[i]?.pointee.up.leave() } else { buckets[i]?.pointee.down.leave() }
        }
    }

    /// Charges what was read, once, to each bucket.
    func charge(_ index: Int, _ source: Side, _ bytes: Int) {
        let slot = slab.slots + index
        guard bytes > 0, !slot.pointee.lasting.buckets.isEmpty else { return }
        let flow = slab.flow(index, source)
        let entitled = flow.pointee.entitled.nanoseconds
        let earliest = now.nanoseconds > Self.longestCredit ? now.nanoseconds - Self.longestCredit : 0
        let at = entitled == 0 ? now : Instant(nanoseconds: min(max(entitled, earliest), now.nanoseconds))
        let buckets = slot.pointee.lasting.buckets
        var delay = TimeSpan.zero
        for i in 0..<buckets.count {
            guard let bucket = buckets[i] else { continue }
            // By the rate's level at the time of the read: unused capacity is not shared.
            if source == .client {
                delay = max(delay, bucket.pointee.up.delay(bytes, now))
                bucket.pointee.up.charge(bytes, at: at)
            } else {
                delay = max(delay, bucket.pointee.down.delay(bytes, now))
                bucket.pointee.down.charge(bytes, at: at)
            }
        }
        if entitled != 0 { flow.pointee.entitled = at + delay }
        // After its share, the flow goes to the end of the queue.
        slot.pointee.paceOrder = 0
    }
}
