import Pipeline

/// How a backend takes the PROXY header in front (R18): looked for in bytes that are here anyway. What speaks against it must
/// come within two seconds. Bytes pass to the client unchanged, whatever they say.
extension Worker {
    /// Bytes have come from a backend that is watched.
    mutating func noteAnswer(_ index: Int, _ bytes: UnsafeRawBufferPointer) {
        let slot = slab.slots + index
        switch slot.pointee.answer.read(bytes) {
        // One that speaks first may still take the header for its client's first words.
        case .plausible: if slot.pointee.up.total > 0 { acceptHeader(index) }
        case .rejection: if isInWindow(index) { doubtHeader(index) } else { _ = stopWatching(index) }
        case .unclear: _ = stopWatching(index)
        case .undecided: break
        }
    }

    /// The backend has sent FIN. If that was without a word, the connection's end shows whether it took bytes all the same.
    mutating func noteHangUp(_ index: Int) {
        let slot = slab.slots + index
        guard slot.pointee.marks.contains(.watchesAnswer), !slot.pointee.hasHungUp,
            slot.pointee.marks.contains(.connected), isInWindow(index), !slot.pointee.up.state.contains(.shut),
            isSilent(index)
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

    private func isSilent(_ index: Int) -> Bool {
        let flow = slab.flow(index, .upstream)
        return flow.pointee.total == 0 && !flow.pointee.holdsBytes
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
        slot.pointee.marks.insert(.proxyRejected)
        cell.pointee.proxyRejections.wrappingAdd(1, ordering: .relaxed)
        slot.pointee.route?.pointee.proxyRejections.wrappingAdd(1, ordering: .relaxed)
    }

    private func stopWatching(_ index: Int) -> Bool {
        slab.slots[index].marks.remove(.watchesAnswer) != nil
    }
}

/// Whether a backend's first bytes are those of a server that took a PROXY header for its client's: an alert record of TLS,
/// or HTTP 400; or a line of greeting and then an error, as SMTP, FTP, POP3 and SSH servers say it. However they are cut
/// into reads.
package struct AnswerMatcher {
    package enum Outcome {
        case undecided
        /// Such a server would not say this.
        case plausible
        case rejection
        /// Both would: nothing is to be learned of this connection.
        case unclear
    }

    private enum State: UInt8 {
        case start, alert, http, greeting, newLine, plausible
    }

    private var state = State.start
    /// How many bytes of an alert, of `HTTP/1.x 400`, or of a line behind the greeting, have come.
    private var count: UInt8 = 0
    /// The first of that line.
    private var first: UInt8 = 0
    private static let badRequest: StaticString = "HTTP/1.1 400"

    package init() {}

    package mutating func read(_ bytes: UnsafeRawBufferPointer) -> Outcome {
        for byte in bytes {
            guard state != .plausible else { break }
            let outcome = read(byte)
            guard outcome == .undecided || outcome == .plausible else { return outcome }
        }
        return state == .plausible ? .plausible : .undecided
    }

    private mutating func read(_ byte: UInt8) -> Outcome {
        switch state {
        case .start: start(byte)
        case .alert: return readAlert(byte)
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
        case 0x15: (state, count) = (.alert, 1)
        case UInt8(ascii: "H"): (state, count) = (.http, 1)
        // `220 ` (RFC 5321 4.2, RFC 959 4.2), `+OK` (RFC 1939 3), `SSH-` (RFC 4253 4.2): what follows shows.
        case UInt8(ascii: "2"), UInt8(ascii: "+"), UInt8(ascii: "S"): state = .greeting
        default: state = .plausible
        }
    }

    /// RFC 8446 5.1, 6: content type alert(21), the legacy version, whose first byte is 3, a length of 2, the level and the
    /// description. A warning, unless it is close_notify, comes from a server that has read the hello.
    private mutating func readAlert(_ byte: UInt8) -> Outcome {
        defer { count += 1 }
        switch count {
        case 1 where byte != 0x03: state = .plausible
        case 3 where byte != 0, 4 where byte != 2: return .unclear
        case 5: first = byte
        case 6 where first == 1 && byte != 0: state = .plausible
        case 6:
            switch BackendCell.HeaderVerdict(alert: byte) {
            case .accepted: state = .plausible
            case .rejected: return .rejection
            case .unknown: return .unclear
            }
        default: break
        }
        return .undecided
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
        case UInt8(ascii: "5") where count == 3: return .rejection
        case UInt8(ascii: "-") where count == 4: return .rejection
        case UInt8(ascii: "I") where count == 3: return .rejection
        default: break
        }
        return .undecided
    }

    /// True if `byte` is the next of `220`, of `500` to `503`, of `-ERR`, or of `Invalid SSH identification string`.
    private func continues(_ byte: UInt8) -> Bool {
        switch (first, count) {
        case (UInt8(ascii: "2"), 0), (UInt8(ascii: "5"), 0), (UInt8(ascii: "-"), 0), (UInt8(ascii: "I"), 0): true
        case (UInt8(ascii: "2"), 1): byte == UInt8(ascii: "2")
        case (UInt8(ascii: "2"), _): byte == UInt8(ascii: "0")
        case (UInt8(ascii: "5"), 1): byte == UInt8(ascii: "0")
        case (UInt8(ascii: "5"), _): byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "3")
        case (UInt8(ascii: "-"), 1): byte == UInt8(ascii: "E")
        case (UInt8(ascii: "-"), _): byte == UInt8(ascii: "R")
        case (UInt8(ascii: "I"), 1): byte == UInt8(ascii: "n")
        case (UInt8(ascii: "I"), _): byte == UInt8(ascii: "v")
        default: false
        }
    }
}
