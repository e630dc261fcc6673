import Pipeline

/// Which backends a connection may try, and how many (R13).
extension Worker {
    /// R13: another attempt is allowed.
    func mayTry(_ index: Int) -> Bool {
        let tried = slab.slots[index].tried
        let pending = blocks.pending(slab.slots[index].pending)
        let within = pending.pointee.facts.retryWithin
        let isLate = tried > 0 && within > .zero && now.since(pending.pointee.facts.firstAttempt) >= within
        return tried < pending.pointee.facts.attempts && !isLate
    }

    /// The first candidate below its connection limit, which now counts this connection; nil: none.
    mutating func enterCandidate(_ index: Int, _ excuse: inout RuntimeReason) -> UnsafePointer<Backend>? {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        while let backend = pending.pointee.facts.candidates[Int(slot.pointee.attempt)] {
            if enterBackend(index, backend, &excuse) { return backend }
            slot.pointee.attempt += 1
        }
        return nil
    }
}
