import Pipeline
import PipelineRuntime

/// One TCP socket as the worker's kernel holds it, with the rules of Linux that a relay can trip over: what `epoll`
/// says of it, what a call on it returns, and in which order queued bytes, FIN and a pending error are told.
final class Socket {
    enum Side { case client, upstream }

    let side: Side
    /// Index of the connection that it belongs to.
    let connection: Int
    var descriptor = -1
    var isConnecting = false

    // From the peer to the worker.
    var arrived = 0
    var taken = 0
    /// What the worker has seen of those that it has not taken.
    var peeked = 0
    let receiveCapacity: Int
    var finArrived = false
    /// `SO_RCVLOWAT`.
    var lowWater = 1
    /// A byte that no single read goes across (urgent data).
    var urgentMark = -1
    /// `sk_err`.
    var error: Int32 = 0
    /// Reset, refused or timed out: nothing goes any more.
    var isDead = false
    /// Why it died, for as long as the simulation lives.
    var causeOfDeath: Int32 = 0
    /// When that was seen at the latest.
    var diedAt: UInt64?
    /// The worker has been told why.
    var isToldDead = false
    /// The peer is gone without a word, and the kernel doesn't find out: since when.
    var isSilent = false
    var silentSince: UInt64?
    /// When the worker last asked how silent it is, and when it last wrote to it.
    var askedAt: UInt64?
    /// When its peer last sent or acknowledged something, or the handshake was.
    var heardAt: UInt64 = 0
    /// How long it was quiet when the worker last asked: bytes may come right after.
    var toldQuiet = TimeSpan.zero
    var wroteAt: UInt64 = 0

    // From the worker to the peer.
    var sent = 0
    var delivered = 0
    let sendCapacity: Int
    /// The last bytes of a write that said that more would come: they wait for it.
    var corked = 0
    var finSent = false
    /// The kernel is short of memory for a while: nothing is taken until this is over.
    var underPressure = false
    /// `SOCK_NOSPACE`: somebody waits for room, so an edge is due when there is enough of it.
    private var owesRoomEdge = false

    // The worker's epoll.
    var key: EventKey?
    var hasEdge = false
    var closedBy: Closing = .no
    /// The worker has asked whether its peer has everything, so that it may take the socket from an orderly end.
    var isToEndOrderly = false
    enum Closing { case no, orderly, reset }

    init(_ side: Side, connection: Int, receiveCapacity: Int, sendCapacity: Int) {
        self.side = side
        self.connection = connection
        self.receiveCapacity = receiveCapacity
        self.sendCapacity = sendCapacity
    }

    var isOpen: Bool { closedBy == .no }
    var unread: Int { arrived - taken }
    /// The peer has all that was sent.
    var isDelivered: Bool { inFlight == 0 && !isDead }
    /// Has bytes, and not so many that they are told of.
    var isGathering: Bool { unread < min(lowWater, receiveCapacity) }
    var inFlight: Int { sent - delivered }
    /// What the peer can read by now.
    var deliverable: Int { inFlight - (finSent || !isOpen ? 0 : corked) }
    var room: Int { underPressure ? 0 : max(0, sendCapacity - inFlight) }
    /// `sk_stream_is_writeable`: a third of the buffer is free.
    var isWritable: Bool { !underPressure && (sendCapacity - inFlight) * 3 >= sendCapacity }

    /// `tcp_poll`. Asking a full socket makes it owe an edge, as there.
    func poll() -> Readiness {
        var result: Readiness = []
        if isConnecting { return error != 0 ? .hangup : [] }
        let receiveIsOver = finArrived || isDead
        if isDead || (receiveIsOver && finSent) || error != 0 { result.insert(.hangup) }
        if receiveIsOver { result.formUnion([.readable, .readEnd]) }
        if unread > 0, !isGathering { result.insert(.readable) }
        if isDead || finSent || isWritable { result.insert(.writable) } else { owesRoomEdge = true }
        if urgentMark > taken { result.insert(.urgent) }
        return result
    }

    func wantsRoom() { owesRoomEdge = true }

    /// After the peer has read, or memory is there again.
    func roomMayHaveCome() {
        if owesRoomEdge, isWritable {
            owesRoomEdge = false
            hasEdge = true
        }
    }

    // MARK: What the network does

    func die(_ cause: Int32) {
        guard !isDead else { return }
        isDead = true
        isConnecting = false
        causeOfDeath = cause
        // In CLOSE_WAIT a reset is EPIPE.
        error = finArrived && cause == ErrorNumber.connectionReset ? ErrorNumber.brokenPipe : cause
        hasEdge = true
    }

    // MARK: What a call finds when there is no byte to take

    /// `tcp_recvmsg` with an empty queue: FIN goes before a pending error, which is told once.
    func emptyReceive() -> Int {
        if finArrived { return 0 }
        if error != 0 { return -Int(takeError()) }
        if isDead { return 0 }
        return -Int(ErrorNumber.again)
    }

    /// How many bytes one read may take.
    var readable: Int {
        urgentMark > taken && urgentMark < arrived ? urgentMark - taken : unread
    }

    /// What `send` answers before it looks at the buffer; 0: it may take bytes.
    func sendRefusal() -> Int {
        if isConnecting { return -Int(error != 0 ? takeError() : ErrorNumber.again) }
        if error != 0 { return -Int(takeError()) }
        if isDead || finSent { return -Int(ErrorNumber.brokenPipe) }
        return 0
    }

    func takeError() -> Int32 {
        let result = error
        if result != 0 { isToldDead = true }
        error = 0
        return result
    }
}
