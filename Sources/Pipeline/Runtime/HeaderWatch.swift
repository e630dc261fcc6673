import Pipeline
import PipelineWire

/// How one connection's backend takes the PROXY header in front (R18): looked for in bytes that are here anyway. Part of its slot.
struct HeaderWatch {
    private enum State: UInt8 {
        /// No header of ours went in front, or all that there is to learn was learned.
        case off
        case watching
        /// Its backend has sent FIN, or a reset, and nothing before.
        case hungUp
        /// It was answered as by one that takes no headers, and is known for it.
        case rejected
    }

    /// The client's bytes that the backend's kernel had taken when it hung up: of the first 4 GiB.
    private var taken: UInt32 = 0
    private var reply = HeaderReply()
    private var state = State.off

    /// A header goes in front.
    mutating func begin() { state = .watching }

    @inline(__always) var isOn: Bool { state == .watching || state == .hungUp }
    var isRejected: Bool { state == .rejected }
    /// The connection's end shows something.
    @inline(__always) var judgesEnd: Bool { state != .off }

    mutating func read(_ bytes: UnsafeRawBufferPointer, behind sent: HeaderReply.Sent) -> HeaderReply.Finding {
        reply.read(bytes, behind: sent)
    }

    /// The backend has sent FIN. If that was without a word, the connection's end shows whether it took bytes all the same.
    mutating func hangUp(taken: UInt32) {
        guard state == .watching, reply.ended == .rejected else { return }
        (state, self.taken) = (.hungUp, taken)
    }

    /// Whether the connection's end speaks against the header: who closes first, and then takes what the client says, has
    /// understood it.
    func isDoubted(taken: UInt32, wasReset: Bool) -> Bool { state == .hungUp && (wasReset || taken == self.taken) }

    /// Nothing more is to be learned. False: nothing was.
    mutating func end() -> Bool {
        guard isOn else { return false }
        state = .off
        return true
    }

    mutating func reject() { state = .rejected }
}
