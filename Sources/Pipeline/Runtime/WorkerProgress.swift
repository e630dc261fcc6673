import Pipeline

/// State of a worker's progress reports to stages (``Filter/progress(_:_:_:)``).
struct ProgressWalk {
    /// The shortest interval of any stage; nil: none, and this costs nothing.
    var interval: TimeSpan?
    /// When the next tick begins; nil: never.
    var next: Instant?
    /// The slot to continue with; nil: no tick is in progress. The slab's extent, or more: what is left is to flush.
    var cursor: Int?
    /// The snapshot of ``interval``.
    var generation: UInt64?

    var isWalking: Bool { cursor != nil }
}

/// A tick: all connections are visited once an interval, in batches, so that an iteration stays short.
extension Worker {
    /// Slots that an iteration looks at.
    static var progressBatch: Int { 1000 }

    /// Updates the interval for a new snapshot. Before the worker sleeps.
    mutating func armProgress() {
        guard progress.generation != appliedGeneration else { return }
        progress.generation = appliedGeneration
        progress.interval = programs.progressInterval
        guard let interval = progress.interval else {
            progress.next = nil
            return
        }
        progress.next = min(progress.next ?? now + interval, now + interval)
    }

    /// A connection has begun: restarts the ticks, if they have stopped.
    mutating func resumeProgress() {
        guard progress.next == nil, let interval = progress.interval else { return }
        progress.next = now + interval
    }

    /// Runs one batch of the current tick, if one is due.
    mutating func runProgress() {
        if progress.cursor == nil {
            guard let due = progress.next, due <= now else { return }
            progress.cursor = 0
        }
        guard let start = progress.cursor else { return }
        let end = min(start + Self.progressBatch, slab.extent)
        if start < end {
            let wallClock = kernel.wallClock()
            for index in start..<end { reportProgress(index, wallClock) }
        }
        progress.cursor = max(start, end)
        guard end >= slab.extent else { return }
        let left = programs.flush(isLast: false)
        guard left != .more else { return }
        progress.cursor = nil
        // Older programs may have gone since.
        progress.interval = programs.progressInterval
        // A worker without connections has nothing to tell, and sleeps.
        let isOver = slab.inUse == 0 && left == .done
        progress.next = isOver ? nil : progress.interval.map { now + $0 }
    }

    /// The worker's end: flushes its stages.
    func endProgress() {
        guard progress.interval != nil else { return }
        _ = programs.flush(isLast: true)
    }

    private func reportProgress(_ index: Int, _ wallClock: UInt64) {
        let slot = slab.slots + index
        guard slot.pointee.phase.isRelaying else { return }
        let chain = chain(of: index)
        guard chain.pointee.progressInterval != nil else { return }
        let (up, down) = slot.pointee.payload
        guard
            !slot.pointee.marks.contains(.progressReported) || up != slot.pointee.reported.bytesToUpstream
                || down != slot.pointee.reported.bytesToClient
        else { return }
        let totals = totals(index, RuntimeReason.closedByClient.code, at: wallClock)
        let entry = programs[slot.pointee.program]
        var left = slot.pointee.passed
        while left != 0 {
            let stage = chain.pointee.stages.pointer(left.trailingZeroBitCount)
            left &= left - 1
            guard stage.pointee.progressInterval != nil else { continue }
            stage.pointee.filter.progressErased(
                stage.pointee.settings, entry.pointee.states[stage.pointee.stateIndex], totals)
        }
        slot.pointee.reported.bytesToUpstream = up
        slot.pointee.reported.bytesToClient = down
        slot.pointee.marks.insert(.progressReported)
    }
}
