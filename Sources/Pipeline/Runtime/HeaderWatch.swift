import Pipeline
import PipelineWire

/// Whether one connection's backend accepts the PROXY header (R18), judged from the relayed bytes. Part of its slot.
struct HeaderWatch {
    private enum State: UInt8 {
        /// No header was sent, or the verdict is final.
        case off
        case watching
        /// The backend has sent FIN or a reset, and no byte before.
        case hungUp
        /// The answer is that of a server that rejects the header, and the backend is known to reject it.
        case rejected
    }

    /// The client's bytes that the backend's kernel had taken when it hung up: of the first 4 GiB.
    private var taken: UInt32 = 0
    private var reply = HeaderReply()
    private var state = State.off

    /// A header is sent.
    mutating func begin() { state = .watching }

    @inline(__always) var isOn: Bool { state == .watching || state == .hungUp }
    var isRejected: Bool { state == .rejected }
    /// The connection's end is evidence.
    @inline(__always) var judgesEnd: Bool { state != .off }

    mutating func read(_ bytes: UnsafeRawBufferPointer, behind sent: HeaderReply.Sent) -> HeaderReply.Finding {
        reply.read(bytes, behind: sent)
    }

    /// The backend has sent FIN. If it sent no byte before, the connection's end shows whether it read the client's
    /// bytes.
    mutating func hangUp(taken: UInt32) {
        guard state == .watching, reply.ended == .rejected else { return }
        (state, self.taken) = (.hungUp, taken)
    }

    /// Whether the connection's end is evidence against the header. A backend that closes first and still reads the
    /// client's bytes has understood it.
    func isDoubted(taken: UInt32, wasReset: Bool) -> Bool { state == .hungUp && (wasReset || taken == self.taken) }

    /// Ends the watch. False: there was none.
    mutating func end() -> Bool {
        guard isOn else { return false }
        state = .off
        return true
    }

    mutating func reject() { state = .rejected }
}
