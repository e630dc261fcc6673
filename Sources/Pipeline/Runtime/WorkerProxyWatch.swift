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
        // While the client has said nothing, there is nothing else to complain of. Once it has, nobody can tell, and
        // a client must not be able to blame a backend.
        case .complaint: if slot.pointee.up.total <= 0 { rejectHeader(index) } else { _ = stopWatching(index) }
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
        slot.pointee.backend?.pointee.proxyRejections.wrappingAdd(1, ordering: .relaxed)
        slot.pointee.route?.pointee.proxyRejections.wrappingAdd(1, ordering: .relaxed)
    }

    private func stopWatching(_ index: Int) -> Bool {
        slab.slots[index].marks.remove(.watchesAnswer) != nil
    }

    private func note(_ verdict: BackendCell.HeaderVerdict, _ index: Int) {
        guard let cell = slab.slots[index].backend else { return }
        // Written only if it changes: every connection comes by here.
        if cell.pointee.proxy.load(ordering: .relaxed) != verdict.rawValue {
            cell.pointee.proxy.store(verdict.rawValue, ordering: .relaxed)
        }
    }
}

/// Whether a backend's first bytes are those of a server that took a PROXY header for its client's: a TLS alert record,
/// or HTTP 400; or a line of greeting and then an error, as SMTP, FTP and POP3 servers say it. However they are cut into
/// reads.
struct AnswerMatcher {
    enum Outcome { case undecided, plausible, rejection, complaint }

    private enum State: UInt8 {
        case start, alert, http, greeting, newLine, plausible
    }

    private var state = State.start
    /// How many bytes of `HTTP/1.x 400`, or of a line behind the greeting, have come.
    private var count: UInt8 = 0
    /// The first of that line.
    private var first: UInt8 = 0
    private static let badRequest: StaticString = "HTTP/1.1 400"

    mutating func read(_ bytes: UnsafeRawBufferPointer) -> Outcome {
        for byte in bytes {
            guard state != .plausible else { break }
            let outcome = read(byte)
            if outcome == .rejection || outcome == .complaint { return outcome }
        }
        return state == .plausible ? .plausible : .undecided
    }

    private mutating func read(_ byte: UInt8) -> Outcome {
        switch state {
        case .start: start(byte)
        // RFC 8446 5.1: content type alert(21), then the legacy version, whose first byte is 3.
        case .alert where byte == 0x03: return .rejection
        case .alert: state = .plausible
        case .http: return readStatus(byte)
        case .greeting:
            if byte == UInt8(ascii: "\n") { (state, count) = (.newLine, 0) }
        case .newLine: return readLine(byte)
        case .plausible: break
        }
        return .undecided
    }

    private mutating func start(_ byte: UInt8) {
        switch byte {
        case 0x15: state = .alert
        case UInt8(ascii: "H"): (state, count) = (.http, 1)
        // `220 ` (RFC 5321 4.2, RFC 959 4.2), `+OK` (RFC 1939 3): what follows shows.
        case UInt8(ascii: "2"), UInt8(ascii: "+"): state = .greeting
        default: state = .plausible
        }
    }

    private mutating func readStatus(_ byte: UInt8) -> Outcome {
        let expected = AnswerMatcher.badRequest.utf8Start[Int(count)]
        guard byte == expected || (count == 7 && byte == UInt8(ascii: "0")) else {
            state = .plausible
            return .undecided
        }
        count += 1
        return Int(count) == AnswerMatcher.badRequest.utf8CodeUnitCount ? .rejection : .undecided
    }

    /// A line behind the greeting: the greeting goes on, or it is an error, or it answers what a client said.
    private mutating func readLine(_ byte: UInt8) -> Outcome {
        if count == 0 { first = byte }
        guard continues(byte) else {
            state = .plausible
            return .undecided
        }
        count += 1
        switch first {
        case UInt8(ascii: "2") where count == 3: state = .greeting
        case UInt8(ascii: "5") where count == 3: return .complaint
        case UInt8(ascii: "-") where count == 4: return .complaint
        default: break
        }
        return .undecided
    }

    /// True if `byte` is the next of `220`, of `500` to `503`, or of `-ERR`.
    private func continues(_ byte: UInt8) -> Bool {
        switch (first, count) {
        case (UInt8(ascii: "2"), 0), (UInt8(ascii: "5"), 0), (UInt8(ascii: "-"), 0): true
        case (UInt8(ascii: "2"), 1): byte == UInt8(ascii: "2")
        case (UInt8(ascii: "2"), _): byte == UInt8(ascii: "0")
        case (UInt8(ascii: "5"), 1): byte == UInt8(ascii: "0")
        case (UInt8(ascii: "5"), _): byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "3")
        case (UInt8(ascii: "-"), 1): byte == UInt8(ascii: "E")
        case (UInt8(ascii: "-"), _): byte == UInt8(ascii: "R")
        default: false
        }
    }
}
