import Pipeline

/// One direction of a relay: from the source socket to the sink socket, through at most one block or one pipe.
struct Flow {
    /// A block with bytes that the sink did not take, or ``none``.
    var block: Int32 = Flow.none
    var blockStart: UInt32 = 0
    var blockEnd: UInt32 = 0
    /// A pipe from the pool, or ``none``.
    var pipe: Int32 = Flow.none
    var pipeBytes: UInt32 = 0
    /// The most bytes that a coalescing flow hands to its sink at once while others coalesce too.
    var burst = UInt32.max
    /// How many reads in a row filled the buffer: what decides when to splice.
    var fullReads: UInt8 = 0
    var smallSplices: UInt8 = 0
    var state: State = []
    /// The low bits of ``total`` at the last check: see ``Worker/runLifeWatch()``.
    var watched: UInt32 = 0
    /// Payload bytes that the sink's kernel took. Below zero while part of a prelude, which is no payload, is owed.
    var total: Int64 = 0
    /// While a rate-limited flow has more to read: the time from which its reads are charged; 0: now.
    var entitled = Instant(nanoseconds: 0)

    static let none: Int32 = -1

    /// What is known of its source and sink, and what was done to them.
    struct State: OptionSet {
        let rawValue: UInt16
        /// The source may have bytes: since its last event no read was short or ended with EAGAIN.
        static let readable = State(rawValue: 1)
        /// The sink may take bytes: since its last event no write was short or ended with EAGAIN.
        static let writable = State(rawValue: 2)
        /// The source's FIN is in its receive queue, behind bytes that may be unread (EPOLLRDHUP).
        static let finReceived = State(rawValue: 4)
        /// The source was read to its end.
        static let eof = State(rawValue: 8)
        /// FIN was sent to the sink: this direction is over, in good order.
        static let finSent = State(rawValue: 16)
        /// Bytes go by splice(2), through a pipe.
        static let splicing = State(rawValue: 32)
        /// The source had EPOLLPRI, EPOLLHUP or EPOLLERR. Reads go on until EAGAIN or an error, since a short one does not mean an
        /// empty queue, and SO_ERROR is asked before FIN is passed on.
        static let exceptional = State(rawValue: 64)
        /// Nothing is passed on before a non-blocking inspection has seen it.
        static let heldForInspection = State(rawValue: 128)
        /// SO_RCVLOWAT is raised: the source reports bytes only once there are many (ADR 0031).
        static let coalescing = State(rawValue: 256)
        /// Bytes were spliced since coalescing was last checked.
        static let splicedLately = State(rawValue: 512)
        /// The source was reset or found dead. What it sent before is passed on, as far as the sink takes it; then the connection
        /// ends.
        static let sourceLost = State(rawValue: 1024)
        /// With ``sourceLost``: it stopped answering, and has not reset.
        static let sourceTimedOut = State(rawValue: 2048)
        /// The sink was reset or found dead: this direction is over, and its bytes are gone.
        static let sinkLost = State(rawValue: 4096)
        /// The source had EPOLLHUP or EPOLLERR, and SO_ERROR was not asked for the cause yet.
        static let hangupUnasked = State(rawValue: 8192)
        /// At the last life check the sink's peer had acknowledged all that ``watched`` counts.
        static let acknowledged = State(rawValue: 16384)
        /// At the last life check the sink's peer owed an answer.
        static let unanswered = State(rawValue: 32768)
    }

    var holdsBytes: Bool { block != Flow.none || pipeBytes > 0 }
    /// Nothing more is to be moved.
    var isOver: Bool { !state.isDisjoint(with: [.finSent, .sinkLost]) }
    /// What a source that is ``State/sourceLost`` has ended with.
    var sourceError: Int32? {
        guard state.contains(.sourceLost) else { return nil }
        return state.contains(.sourceTimedOut) ? ErrorNumber.timedOut : ErrorNumber.connectionReset
    }
}

/// One connection. Slots are allocated once, live in raw memory, and are reused; `generation` tells uses apart.
struct Slot {
    var generation: UInt32 = 0
    /// Changed by ``enter(_:)`` alone.
    private(set) var phase = Phase.free
    /// Index into the candidates of the last choice: the backend to try next.
    var attempt: UInt8 = 0
    /// How many backends were tried; one that has no room was not.
    var tried: UInt8 = 0
    /// Of the route when it was looked up.
    var routeFlags: Route.Flags = []
    var marks: Marks = []
    var chain: UInt16 = 0
    var client = Descriptor.none
    var upstream = Descriptor.none
    /// Its entry in ``UpstreamSockets``, as long as `upstream` is open.
    var socket: Int32 = Flow.none
    /// The source of `upstream`, as its ``UpstreamKey`` has it.
    var source: UInt32 = 0
    /// The block with facts and first bytes, until they are sent.
    var pending: Int32 = Flow.none
    /// Its place in the ``ProgramTable``.
    var program: Int32 = 0
    /// Timer wheel links: slot indices, or ``Flow/none``.
    var timerNext: Int32 = Flow.none
    var timerPrevious: Int32 = Flow.none
    var timerBucket: Int32 = Flow.none
    /// Its place in the ``PaceQueue``, or ``Flow/none``, and its arrival order there; 0: none.
    var pacePlace: Int32 = Flow.none
    var paceOrder: UInt32 = 0
    /// How the backend takes our PROXY header, if one went in front.
    var header = HeaderWatch()
    /// Free list link.
    var link: Int32 = Flow.none
    /// Bit i: stage i has passed the connection, and is settled at its end.
    var passed: UInt32 = 0
    /// Bit i: stage i inspects the client's bytes, and has not decided.
    var inspecting: UInt32 = 0
    var deadline = Instant(nanoseconds: 0)
    /// Client to upstream.
    var up = Flow()
    /// Upstream to client.
    var down = Flow()
    /// The low bits of what both flows had moved when the half-close deadline was armed.
    var halfClosedTotal: UInt32 = 0
    /// In microseconds, at most 71 minutes.
    private var connectedAfter: UInt32 = 0
    var accepted = Instant(nanoseconds: 0)
    /// The one that is tried, or connected, and counts the connection among its own: so it is pinned.
    var backend: UnsafePointer<BackendCell>?
    /// The route and its owner, once looked up. Both pinned.
    var route: UnsafePointer<RouteCell>?
    var owner: UnsafePointer<RouteOwner>?
    /// Of its route, for whoever waits for its place. Nil: nobody can.
    var policy: UnsafePointer<RoutePolicy>?
    /// See ``Filter/progress(_:_:_:)``.
    var reported = ReportedTotals()
    /// What stages see and set, and all else that they and logs go by: ``ConnectionFacts`` refer to it.
    var lasting = LastingFacts()
    /// As logs have it: see ``Worker/stopPeeking(_:)``.
    var serverName = ShortText<62>()

    /// From its accept to its backend's; zero: none has accepted it.
    var connected: TimeSpan {
        get { TimeSpan(nanoseconds: UInt64(connectedAfter) * 1000) }
        set { connectedAfter = UInt32(clamping: newValue.nanoseconds / 1000 + 1) }
    }
    /// The low bits of what both flows have moved.
    var movedTotal: UInt32 { UInt32(truncatingIfNeeded: up.total &+ down.total) }

    /// Goes on to another phase.
    @inline(__always) mutating func enter(_ next: Phase) {
        assert(phase.leads(to: next), "S5: a connection goes from \(phase) to \(next)")
        phase = next
    }

    /// A stage is still undecided.
    @inline(__always) var isUndecided: Bool {
        phase == .peeking || inspecting != 0 || (phase == .queued && marks.contains(.stageWaits))
    }
    /// Has filled the buffer often enough to be spliced.
    var isBulk: Bool { up.state.union(down.state).contains(.splicing) }
    var instanceNumber: UInt32 { lasting.identity?.pointee.number ?? InstanceIdentity.unknown }

    /// What was done for a connection, and is not done again or has to be undone.
    struct Marks: OptionSet {
        let rawValue: UInt16
        /// The client's socket is in the epoll set.
        static let clientWatched = Marks(rawValue: 1)
        /// The upstream socket is in the epoll set.
        static let upstreamWatched = Marks(rawValue: 2)
        /// In the ``RunQueue``: has more to do without a new event.
        static let inRunQueue = Marks(rawValue: 4)
        /// TCP_USER_TIMEOUT and keepalive are set on the upstream socket; short connections save the calls.
        static let upstreamGuarded = Marks(rawValue: 8)
        /// Came by a listener that intercepts.
        static let intercepted = Marks(rawValue: 16)
        /// Goes on to its original destination: that was tried, or is connected, and no backend.
        static let direct = Marks(rawValue: 32)
        /// A peer has kept its window shut, and is probed often: see ``Worker/runLifeWatch()``.
        static let probedOften = Marks(rawValue: 64)
        /// Its pending block counts in ``BlockShares`` while the backend is connected to.
        static let blockCounted = Marks(rawValue: 128)
        /// Stages were told its totals while it lived (``Filter/progress(_:_:_:)``).
        static let progressReported = Marks(rawValue: 256)
        /// In a queue because a stage has said so, which is asked again; else all stages have passed it.
        static let stageWaits = Marks(rawValue: 512)
        /// Began during a canary at a listener that both programs have: what becomes of it counts.
        static let compared = Marks(rawValue: 1024)
        /// Its client began TLS behind an opening in the clear, and so must its backend.
        static let upgraded = Marks(rawValue: 2048)
        /// A part of what a stage said to the client was not taken yet.
        static let owesMessage = Marks(rawValue: 4096)
    }
}

/// Data that a connection needs only until its first bytes are with the backend, at the head of a pooled block.
struct Pending {
    var facts: ConnectionFacts
    var prelude: Prelude
    var memory: StageMemory
    /// What stages say themselves, to the client or in ``Phase/upgrading`` to the backend.
    var message: NodeMessage
    /// In that phase: the bytes of the prelude that were sent, and whether the backend has said anything.
    var preludeSent: Int
    var hasAnswer: Bool
    /// The stage to go on with.
    var stage: Int
    /// How many of the client's bytes are here.
    var count: Int
    /// How many the stage that waits asked for.
    var wanted: Int
    var input: InputState
    /// The generation of the table that the route was last looked up in.
    var generation: UInt64
    /// The set of backends that the first choice was made from: see ``BackendGroup/number``.
    var group: UInt64
    /// What it ends with once it has waited in a queue for as long as it may.
    var waitOver: ReasonCode

    /// Resets the slot for another connection. All values are trivial; the largest are rarely used, and not written
    /// here.
    @inline(__always) mutating func begin(facts: ConnectionFacts) {
        self.facts = facts
        prelude.reset()
        memory.reset()
        message.reset()
        preludeSent = 0
        hasAnswer = false
        stage = 0
        count = 0
        wanted = 1
        input = .open
        generation = 0
        group = 0
        waitOver = RuntimeReason.internalError.code
    }
}
