import Pipeline

/// While memory is short (R27): no connection is admitted, and existing sockets' buffers grow no further.
struct MemoryShortage {
    private(set) var isShort = false
    /// The slot to go on with; nil: every socket has been capped.
    var cursor: Int?

    var isWalking: Bool { cursor != nil }

    mutating func note(_ isShort: Bool) {
        guard isShort != self.isShort else { return }
        self.isShort = isShort
        cursor = isShort ? 0 : nil
    }
}

extension Worker {
    /// Control reports the shortage, or its end.
    mutating func noteMemory() {
        memory.note(mailbox._withUnsafeGuaranteedRef { $0.isShortOfMemory })
    }

    /// Caps one batch of sockets, once a shortage has begun: growing socket buffers are what fills memory.
    mutating func capBuffers() {
        guard let start = memory.cursor else { return }
        let end = min(start + Self.progressBatch, slab.extent)
        for index in start..<max(start, end) where slab.slots[index].phase != .free {
            kernel.capBuffers(slab.slots[index].client)
            if slab.slots[index].upstream.isOpen { kernel.capBuffers(slab.slots[index].upstream) }
        }
        memory.cursor = end >= slab.extent ? nil : end
    }
}
