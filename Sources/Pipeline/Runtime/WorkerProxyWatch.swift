import Pipeline
import PipelineWire

/// Evidence from connections on whether backends accept the PROXY header (R18). Evidence against it must come within
/// two seconds. Bytes pass to the client unchanged in any case.
extension Worker {
    /// A watched backend has sent bytes.
    mutating func noteAnswer(_ index: Int, _ bytes: UnsafeRawBufferPointer) {
        let slot = slab.slots + index
        switch slot.pointee.header.read(bytes, behind: sentBehindHeader(index)) {
        case .taken: acceptHeader(index)
        case .rejected: if isInWindow(index) { doubtHeader(index) } else { _ = slot.pointee.header.end() }
        case .unclear: _ = slot.pointee.header.end()
        case .undecided, .greeted: break
        }
    }

    private func sentBehindHeader(_ index: Int) -> HeaderReply.Sent {
        let slot = slab.slots + index
        guard slot.pointee.up.total > 0 else { return .nothing }
        return slot.pointee.lasting.sniff == .ok || slot.pointee.lasting.sniff == .noSNI ? .hello : .bytes
    }

    /// The backend has sent FIN.
    mutating func noteHangUp(_ index: Int) {
        let slot = slab.slots + index
        guard slot.pointee.header.isOn, slot.pointee.phase.isRelaying, isInWindow(index),
            !slot.pointee.up.state.contains(.finSent)
        else { return }
        slot.pointee.header.hangUp(taken: taken(index))
    }

    /// The reason for a connection's end: the rejected header, if the backend is known to reject it and did so here.
    mutating func judgeEnd(_ index: Int, _ cause: ReasonCode) -> ReasonCode {
        let slot = slab.slots + index
        guard slot.pointee.header.judgesEnd, let reason = RuntimeReason(rawValue: cause.rawValue) else { return cause }
        let wasReset = reason == .resetByUpstream
        if wasReset { noteHangUp(index) }
        if slot.pointee.header.isDoubted(taken: taken(index), wasReset: wasReset) { doubtHeader(index) }
        guard slot.pointee.header.isRejected else { return cause }
        switch reason {
        case .closedByClient, .closedByUpstream, .resetByClient, .resetByUpstream, .clientTimedOut, .upstreamTimedOut,
            .halfCloseTimeoutClient, .halfCloseTimeoutUpstream, .upgradeClosed:
            let isText = slot.pointee.routeFlags.contains(.proxyText)
            return (isText ? RuntimeReason.proxyTextRejected : .proxyRejected).code
        default: return cause
        }
    }

    private func isInWindow(_ index: Int) -> Bool {
        let slot = slab.slots + index
        return now <= slot.pointee.accepted + slot.pointee.connected + BackendCell.HeaderVerdict.window
    }

    /// The client's bytes that the backend's kernel took: the first 4 GiB.
    private func taken(_ index: Int) -> UInt32 { UInt32(clamping: slab.slots[index].up.total) }

    /// The header was accepted: the backend has answered the bytes behind it.
    mutating func acceptHeader(_ index: Int) {
        let slot = slab.slots + index
        guard slot.pointee.header.end() else { return }
        slot.pointee.backend?.pointee.noteHeaderTaken()
    }

    mutating func doubtHeader(_ index: Int) {
        let slot = slab.slots + index
        guard slot.pointee.header.end(), let cell = slot.pointee.backend else { return }
        let isAsked = slot.pointee.phase.isRelaying || slot.pointee.phase == .upgrading
        assert(isAsked, "S22: a backend is doubted that nobody asked")
        guard cell.pointee.noteHeaderDoubt(of: slot.pointee.lasting.client.endpoint.address) else { return }
        slot.pointee.header.reject()
        cell.pointee.proxyRejections.wrappingAdd(1, ordering: .relaxed)
        slot.pointee.route?.pointee.proxyRejections.wrappingAdd(1, ordering: .relaxed)
    }
}
