import Pipeline
import PipelineWire

/// How a backend takes the PROXY header in front (R18): looked for in bytes that are here anyway. What speaks against it must
/// come within two seconds. Bytes pass to the client unchanged, whatever they say.
extension Worker {
    /// Bytes have come from a backend that is watched.
    mutating func noteAnswer(_ index: Int, _ bytes: UnsafeRawBufferPointer) {
        let slot = slab.slots + index
        switch slot.pointee.reply.read(bytes, behind: sentBehindHeader(index)) {
        case .taken: acceptHeader(index)
        case .rejected: if isInWindow(index) { doubtHeader(index) } else { _ = stopWatching(index) }
        case .unclear: _ = stopWatching(index)
        case .undecided, .greeted: break
        }
    }

    private func sentBehindHeader(_ index: Int) -> HeaderReply.Sent {
        let slot = slab.slots + index
        guard slot.pointee.up.total > 0 else { return .nothing }
        return slot.pointee.sniff == .ok || slot.pointee.sniff == .noSNI ? .hello : .bytes
    }

    /// The backend has sent FIN. If that was without a word, the connection's end shows whether it took bytes all the same.
    mutating func noteHangUp(_ index: Int) {
        let slot = slab.slots + index
        guard slot.pointee.marks.contains(.watchesAnswer), !slot.pointee.hasHungUp,
            slot.pointee.marks.contains(.connected), isInWindow(index), !slot.pointee.up.state.contains(.shut),
            slot.pointee.reply.ended == .rejected
        else { return }
        slot.pointee.hasHungUp = true
        // A flow that has ended without a byte has no block, nor ever will: its end is free for this.
        slot.pointee.down.blockEnd = taken(index)
    }

    /// What a connection ends with: where the backend is known not to take the header, and did not here, that is why.
    mutating func judgeEnd(_ index: Int, _ cause: ReasonCode) -> ReasonCode {
        let slot = slab.slots + index
        guard !slot.pointee.marks.isDisjoint(with: [.watchesAnswer, .proxyRejected]),
            let reason = RuntimeReason(rawValue: cause.rawValue)
        else { return cause }
        if reason == .resetByUpstream { noteHangUp(index) }
        if slot.pointee.hasHungUp {
            // Who closes first, and then takes what the client says, has understood it.
            let tookMore = taken(index) != slot.pointee.down.blockEnd
            if !tookMore || reason == .resetByUpstream { doubtHeader(index) }
        }
        guard slot.pointee.marks.contains(.proxyRejected) else { return cause }
        switch reason {
        case .closedByClient, .closedByUpstream, .resetByClient, .resetByUpstream, .clientTimedOut, .upstreamTimedOut,
            .halfCloseTimeoutClient, .halfCloseTimeoutUpstream:
            return RuntimeReason.proxyRejected.code
        default: return cause
        }
    }

    private func isInWindow(_ index: Int) -> Bool {
        let slot = slab.slots + index
        return now <= slot.pointee.accepted + slot.pointee.connected + BackendCell.HeaderVerdict.window
    }

    /// The client's bytes that the backend's kernel took: the first 4 GiB.
    private func taken(_ index: Int) -> UInt32 { UInt32(clamping: slab.slots[index].up.total) }

    /// The header was taken: the backend has answered what its client said behind it.
    private mutating func acceptHeader(_ index: Int) {
        guard stopWatching(index) else { return }
        slab.slots[index].backend?.pointee.noteHeaderTaken()
    }

    private mutating func doubtHeader(_ index: Int) {
        let slot = slab.slots + index
        guard stopWatching(index), let cell = slot.pointee.backend else { return }
        guard cell.pointee.noteHeaderDoubt(of: slot.pointee.believed.address) else { return }
        assert(slot.pointee.marks.contains(.connected), "S22: a backend is doubted that nobody asked")
        slot.pointee.marks.insert(.proxyRejected)
        cell.pointee.proxyRejections.wrappingAdd(1, ordering: .relaxed)
        slot.pointee.route?.pointee.proxyRejections.wrappingAdd(1, ordering: .relaxed)
    }

    private func stopWatching(_ index: Int) -> Bool {
        slab.slots[index].marks.remove(.watchesAnswer) != nil
    }
}
