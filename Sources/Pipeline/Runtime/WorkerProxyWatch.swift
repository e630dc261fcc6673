import Pipeline

/// How a backend takes the PROXY header in front (R18): looked for in bytes that are here anyway, for the first two
/// seconds. Bytes pass to the client unchanged, whatever they say.
extension Worker {
    /// Bytes have come from a backend that is watched.
    mutating func noteAnswer(_ index: Int, _ bytes: UnsafeRawBufferPointer) {
        let slot = slab.slots + index
        guard isInWindow(index) else {
            acceptHeader(index)
            return
        }
        switch slot.pointee.answer.read(bytes) {
        case .rejection: rejectHeader(index)
        // One that speaks first may still take the header for its client's first words.
        case .plausible: if slot.pointee.up.total > 0 { acceptHeader(index) }
        case .undecided: break
        }
    }

    /// The backend has sent FIN or RST.
    mutating func noteHangUp(_ index: Int) {
        let slot = slab.slots + index
        guard slot.pointee.marks.contains(.watchesAnswer), slot.pointee.marks.contains(.connected), isInWindow(index),
            !slot.pointee.up.state.contains(.shut)
        else { return }
        let isSilent = slot.pointee.down.total == 0 && !slot.pointee.down.holdsBytes
        if isSilent || slot.pointee.up.total <= 0 { rejectHeader(index) }
    }

    /// What a connection ends with: where the backend did not take the header, that is why.
    mutating func judgeEnd(_ index: Int, _ cause: ReasonCode) -> ReasonCode {
        let slot = slab.slots + index
        guard !slot.pointee.marks.isDisjoint(with: [.watchesAnswer, .proxyRejected]),
            let reason = RuntimeReason(rawValue: cause.rawValue)
        else { return cause }
        if reason == .resetByUpstream { noteHangUp(index) }
        if slot.pointee.marks.contains(.connected), !isInWindow(index) { acceptHeader(index) }
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

    /// The header was taken, as far as anyone can tell.
    mutating func acceptHeader(_ index: Int) {
        guard stopWatching(index) else { return }
        note(.accepted, index)
    }

    private mutating func rejectHeader(_ index: Int) {
        let slot = slab.slots + index
        guard stopWatching(index) else { return }
        slot.pointee.marks.insert(.proxyRejected)
        note(.rejected, index)
        slot.pointee.backend?.pointee.cell.pointee.proxyRejections.wrappingAdd(1, ordering: .relaxed)
        slot.pointee.route?.pointee.cell.pointee.proxyRejections.wrappingAdd(1, ordering: .relaxed)
    }

    private func stopWatching(_ index: Int) -> Bool {
        slab.slots[index].marks.remove(.watchesAnswer) != nil
    }

    private func note(_ verdict: BackendCell.HeaderVerdict, _ index: Int) {
        guard let cell = slab.slots[index].backend?.pointee.cell else { return }
        // Written only if it changes: every connection comes by here.
        if cell.pointee.proxy.load(ordering: .relaxed) != verdict.rawValue {
            cell.pointee.proxy.store(verdict.rawValue, ordering: .relaxed)
        }
    }
}

/// Whether a backend's first bytes are those of a server that took a PROXY header for its client's: a TLS alert record,
/// or HTTP 400. However they are cut into reads.
struct AnswerMatcher {
    enum Outcome { case undecided, plausible, rejection }

    /// How many bytes of `HTTP/1.x 400` have come; ``alert`` after the first byte of an alert.
    private var state: UInt8 = 0
    private static let alert: UInt8 = 100
    private static let plausible: UInt8 = 255
    private static let badRequest: StaticString = "HTTP/1.1 400"

    mutating func read(_ bytes: UnsafeRawBufferPointer) -> Outcome {
        for byte in bytes {
            guard state != AnswerMatcher.plausible else { break }
            let outcome = read(byte)
            if outcome == .rejection { return outcome }
        }
        return state == AnswerMatcher.plausible ? .plausible : .undecided
    }

    private mutating func read(_ byte: UInt8) -> Outcome {
        switch state {
        // RFC 8446 5.1: content type alert(21), then the legacy version, whose first byte is 3.
        case AnswerMatcher.alert where byte == 0x03: return .rejection
        case AnswerMatcher.alert: state = AnswerMatcher.plausible
        case 0 where byte == 0x15: state = AnswerMatcher.alert
        case 0..<UInt8(AnswerMatcher.badRequest.utf8CodeUnitCount):
            let expected = AnswerMatcher.badRequest.utf8Start[Int(state)]
            guard byte == expected || (state == 7 && byte == UInt8(ascii: "0")) else {
                state = AnswerMatcher.plausible
                return .plausible
            }
            state += 1
            if Int(state) == AnswerMatcher.badRequest.utf8CodeUnitCount { return .rejection }
        default: break
        }
        return .undecided
    }
}
