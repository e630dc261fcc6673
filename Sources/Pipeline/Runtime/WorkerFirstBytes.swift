import Pipeline

/// The first write to a backend: the prelude, and what the client has sent already.
extension Worker {
    /// The client's first bytes for the first write: without bytes that stages consumed, and none during an inspection.
    private func firstPayload(_ index: Int) -> UnsafeRawBufferPointer {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        let count = pending.pointee.count
        let start = slot.pointee.inspecting == 0 ? min(pending.pointee.facts.consumed, count) : count
        return UnsafeRawBufferPointer(rebasing: blocks.body(slot.pointee.pending)[start..<count])
    }

    /// Whether there are bytes for the first write. A backend that is to begin TLS is asked for that first.
    func hasFirstBytes(_ index: Int) -> Bool {
        guard !slab.slots[index].marks.contains(.upgraded) else { return false }
        return blocks.pending(slab.slots[index].pending).pointee.prelude.count > 0 || !firstPayload(index).isEmpty
    }

    /// Writes the prelude and the client's first bytes in one call. True once the socket took something; the rest waits
    /// in a block. On an error the connection has moved to another backend or ended.
    mutating func sendFirst(_ index: Int) -> Bool {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        let payload = firstPayload(index)
        let preludeCount = pending.pointee.prelude.count
        guard preludeCount + payload.count > 0 else { return true }
        let outcome = pending.pointee.prelude.withBytes {
            kernel.send(slot.pointee.upstream, UnsafeRawBufferPointer($0), payload)
        }
        if outcome.isError {
            if outcome.error != ErrorNumber.again { connectFailed(index, outcome.error) }
            return false
        }
        slot.pointee.up.total = Int64(outcome.value) - Int64(preludeCount)
        charge(index, .client, payload.count)
        let unsent = preludeCount + payload.count - outcome.value
        guard unsent > 0 else { return true }
        slot.pointee.up.state.remove(.writable)
        if isInspecting(index), !stashInspectedBytes(index) { return keepPrelude(index, unsent) }
        keepUnsent(index, unsent: unsent, preludeUnsent: max(0, preludeCount - outcome.value))
        return true
    }

    /// The first bytes are still inspected: the block stays until they pass.
    func isInspecting(_ index: Int) -> Bool {
        let slot = slab.slots + index
        return slot.pointee.inspecting != 0 && blocks.pending(slot.pointee.pending).pointee.count > 0
    }

    /// The pending block is still inspected: the rest of the prelude waits in another one. False if there is none.
    private mutating func keepPrelude(_ index: Int, _ unsent: Int) -> Bool {
        let slot = slab.slots + index
        let block = takeBlock()
        guard block != Flow.none else {
            finish(index, RuntimeReason.noSniffBuffer.code, .reset)
            return false
        }
        blocks.pending(slot.pointee.pending).pointee.prelude.withBytes { prelude in
            UnsafeMutableRawBufferPointer(rebasing: blocks.body(block)[..<unsent])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(prelude).suffix(unsent)))
        }
        store(block, 0..<unsent, index, .client)
        return true
    }

    /// Turns the rest of the first write into the up flow's block: first the prelude's, then the payload's.
    private mutating func keepUnsent(_ index: Int, unsent: Int, preludeUnsent: Int) {
        let slot = slab.slots + index
        let block = slot.pointee.pending
        let pending = blocks.pending(block)
        let body = blocks.body(block)
        let payloadUnsent = unsent - preludeUnsent
        var start = pending.pointee.count - payloadUnsent
        if preludeUnsent > 0, let base = body.baseAddress {
            if start < preludeUnsent {
                (base + preludeUnsent).copyMemory(from: base + start, byteCount: payloadUnsent)
                start = preludeUnsent
            }
            start -= preludeUnsent
            pending.pointee.prelude.withBytes { prelude in
                guard let source = prelude.baseAddress else { return }
                (base + start).copyMemory(
                    from: source + (prelude.count - preludeUnsent), byteCount: preludeUnsent)
            }
        }
        slot.pointee.pending = Flow.none
        store(block, start..<start + unsent, index, .client)
    }
}
