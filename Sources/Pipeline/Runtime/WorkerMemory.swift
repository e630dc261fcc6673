import Pipeline

/// While the node uses more memory than it may (R27): nobody new is let in, and the sockets that there are grow no further.
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
    /// Control has said so, or that it is over.
    mutating func noteMemory() {
        memory.note(mailbox._withUnsafeGuaranteedRef { $0.isShortOfMemory })
    }

    /// One batch, once the shortage has begun: what the kernel lets a socket's buffers grow to is what fills memory.
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
