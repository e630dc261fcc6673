import PipelineRuntime

/// How a peer ends its side.
enum Ending: Equatable {
    /// FIN after its last byte, then it reads on to the end.
    case finish
    /// FIN once it has seen the other's.
    case finishLast
    /// `close` after its last byte: what arrives later is answered by RST.
    case leave
    /// RST once it has sent so many bytes.
    case resetAfterSending(Int)
    /// RST once it has read so many.
    case resetAfterReading(Int)
    /// Gone without a word; the kernel finds out (`TCP_USER_TIMEOUT`).
    case vanish(Int)
    /// The same, and the kernel does not find out.
    case fallSilent(Int)
    case stay
}

/// What lets a peer begin to send.
enum Start: Equatable {
    case atOnce
    case afterReading(Int)
    case afterFin
}

/// What one end of a connection does, all of it from the seed.
struct PeerPlan {
    var stream: ByteStream
    var bytes: Int
    var start = Start.atOnce
    var ending = Ending.finish
    /// FIN in the same segment as the last byte.
    var finWithLastByte = false
    /// The most bytes of one segment.
    var chunk = 1460
    var readChunk = 65536
    /// Between one step and the next, nanoseconds at most.
    var pause = 1_000_000
    var reads = true
    /// Before the byte of this position it waits until it has read so many.
    var waits: (at: Int, reading: Int)?
    /// Position of an urgent byte; -1: none.
    var urgent = -1
}

/// One end of a connection, beyond the network.
final class Peer {
    let plan: PeerPlan
    let socket: Socket
    /// When it acts next; `UInt64.max`: when something happens to it.
    var wakeAt = UInt64.max
    private(set) var isGone = false
    private(set) var hasLeft = false

    init(_ plan: PeerPlan, _ socket: Socket) {
        self.plan = plan
        self.socket = socket
    }

    var sentAll: Bool { socket.arrived == plan.bytes }
    private var sawFin: Bool { socket.finSent && socket.inFlight == 0 }

    private struct Actions: OptionSet {
        let rawValue: UInt8
        static let send = Actions(rawValue: 1)
        static let read = Actions(rawValue: 2)
        static let finish = Actions(rawValue: 4)
        static let leave = Actions(rawValue: 8)
        static let reset = Actions(rawValue: 16)
        static let relief = Actions(rawValue: 32)
    }

    private var possible: Actions {
        guard !isGone, !socket.isConnecting, !socket.isDead else { return [] }
        var actions: Actions = []
        if socket.underPressure { actions.insert(.relief) }
        if hasLeft { return socket.inFlight > 0 ? .reset : actions }
        if socket.isOpen, !socket.finArrived {
            if hasStarted, socket.arrived < sendable, socket.unread < socket.receiveCapacity { actions.insert(.send) }
            if sentAll {
                if plan.ending == .finish || (plan.ending == .finishLast && sawFin) { actions.insert(.finish) }
                if plan.ending == .leave { actions.insert(.leave) }
            }
        }
        if plan.reads, socket.deliverable > 0 { actions.insert(.read) }
        if mustReset { actions.insert(.reset) }
        return actions
    }

    private var hasStarted: Bool {
        switch plan.start {
        case .atOnce: true
        case .afterReading(let count): socket.delivered >= count
        case .afterFin: sawFin
        }
    }

    /// How many bytes it may have sent by now.
    private var sendable: Int {
        guard let waits = plan.waits, socket.delivered < waits.reading else { return plan.bytes }
        return min(plan.bytes, waits.at)
    }

    private var mustReset: Bool {
        guard socket.isOpen else { return false }
        switch plan.ending {
        case .resetAfterSending(let count), .vanish(let count), .fallSilent(let count):
            return socket.arrived >= min(count, plan.bytes)
        case .resetAfterReading(let count): return socket.delivered >= count
        default: return false
        }
    }

    var canAct: Bool { !possible.isEmpty }

    /// Does one of the things that it can do. A word for the trace; nil if there was none to do.
    func step(_ random: inout SeededRandom) -> String? {
        let actions = possible
        guard !actions.isEmpty else { return nil }
        var choice = random.below(actions.rawValue.nonzeroBitCount)
        for bit in 0..<8 where actions.rawValue & (1 << UInt8(bit)) != 0 {
            if choice == 0 { return perform(Actions(rawValue: 1 << UInt8(bit)), &random) }
            choice -= 1
        }
        return nil
    }

    private func perform(_ action: Actions, _ random: inout SeededRandom) -> String {
        switch action {
        case .send:
            let space = socket.receiveCapacity - socket.unread
            let count = min(max(1, random.size(upTo: plan.chunk)), sendable - socket.arrived, space)
            if plan.urgent >= socket.arrived, plan.urgent < socket.arrived + count { socket.urgentMark = plan.urgent }
            socket.arrived += count
            socket.hasEdge = true
            if plan.finWithLastByte, sentAll, plan.ending == .finish {
                socket.finArrived = true
                return "sends \(count) and FIN"
            }
            return "sends \(count)"
        case .read:
            let count = min(max(1, random.size(upTo: plan.readChunk)), socket.deliverable)
            socket.delivered += count
            socket.roomMayHaveCome()
            return "reads \(count)"
        case .finish:
            socket.finArrived = true
            socket.hasEdge = true
            return "sends FIN"
        case .leave:
            // `close` with unread bytes is a reset.
            if socket.inFlight > 0 { return reset(ErrorNumber.connectionReset) }
            hasLeft = true
            socket.finArrived = true
            socket.hasEdge = true
            return "closes"
        case .relief:
            socket.underPressure = false
            socket.roomMayHaveCome()
            return "has memory again"
        default:
            if case .vanish = plan.ending { return reset(ErrorNumber.timedOut) }
            if case .fallSilent = plan.ending {
                isGone = true
                socket.isSilent = true
                return "falls silent"
            }
            return reset(ErrorNumber.connectionReset)
        }
    }

    private func reset(_ cause: Int32) -> String {
        isGone = true
        socket.die(cause)
        return cause == ErrorNumber.timedOut ? "is found dead" : "resets"
    }
}
