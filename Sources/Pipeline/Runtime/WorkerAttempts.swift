import Pipeline

/// Which backends a connection may try, and how many (R13).
extension Worker {
    /// R13: another attempt is allowed.
    func mayTry(_ index: Int) -> Bool {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        guard let first = pending.pointee.facts.firstAttempt else {
            pending.pointee.facts.firstAttempt = now
            return true
        }
        let within = pending.pointee.facts.retryWithin
        return slot.pointee.tried < pending.pointee.facts.attempts && (within == .zero || now.since(first) < within)
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
