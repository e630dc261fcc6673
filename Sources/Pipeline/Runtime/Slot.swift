import Pipeline

/// One direction of a relay: from a source socket to a sink socket, through at most one block or one pipe.
struct Flow {
    /// A block with bytes that the sink did not take, or ``none``.
    var block: Int32 = Flow.none
    var blockStart: UInt32 = 0
    var blockEnd: UInt32 = 0
    /// A pipe from the pool, or ``none``.
    var pipe: Int32 = Flow.none
    var pipeBytes: UInt32 = 0
    /// How many bytes a coalescing flow's sink is handed at once while others coalesce too.
    var burst = UInt32.max
    /// How many reads in a row filled the buffer: what decides when to splice.
    var fullReads: UInt8 = 0
    var smallSplices: UInt8 = 0
    var state: State = []
    /// The low bits of ``total`` when it was last looked after: see ``Worker/runLifeWatch()``.
    var watched: UInt32 = 0
    /// Payload bytes that the sink's kernel took. Below zero while part of a prelude, which is no payload, is owed.
    var total: Int64 = 0
    /// While a paced flow has more to read: when it was its turn, and what it has read since counts from; 0: now.
    var entitled = Instant(nanoseconds: 0)

    static let none: Int32 = -1

    struct State: OptionSet {
        let rawValue: UInt16
        /// No EAGAIN since the last readable event.
        static let readable = State(rawValue: 1)
        static let writable = State(rawValue: 2)
        /// The source's FIN is known to be in its queue, behind the data.
        static let ending = State(rawValue: 4)
        /// The source was read to its end.
        static let ended = State(rawValue: 8)
        /// FIN was sent to the sink.
        static let shut = State(rawValue: 16)
        static let splicing = State(rawValue: 32)
        /// The source has urgent data somewhere, or was reset: a short read proves nothing.
        static let urgent = State(rawValue: 64)
        /// Held back until inspecting stages have seen the bytes.
        static let inspected = State(rawValue: 128)
        /// Its source tells of bytes only once there are many.
        static let coalescing = State(rawValue: 256)
        /// Was spliced since it was last looked after.
        static let moved = State(rawValue: 512)
        /// The source is gone. What it sent before is moved on, as far as the sink takes it; then the connection ends.
        static let broken = State(rawValue: 1024)
        /// Goes with ``broken``: it was found dead, and has not reset.
        static let timedOut = State(rawValue: 2048)
        /// The sink is gone, and what was for it.
        static let dropped = State(rawValue: 4096)
        /// An event has told of the source's end, and nobody has asked yet which.
        static let hungUp = State(rawValue: 8192)
        /// The sink's peer has acknowledged all of ``watched``.
        static let acknowledged = State(rawValue: 16384)
        /// The sink's peer had not answered when it was last looked after.
        static let silent = State(rawValue: 32768)
    }

    var holdsBytes: Bool { block != Flow.none || pipeBytes > 0 }
    /// Nothing more is to be moved.
    var isOver: Bool { !state.isDisjoint(with: [.shut, .dropped]) }
    /// What a source that is ``State/broken`` has ended with.
    var brokenBy: Int32? {
        guard state.contains(.broken) else { return nil }
        return state.contains(.timedOut) ? ErrorNumber.timedOut : ErrorNumber.connectionReset
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
    var listener: UInt16 = 0
    var client = Descriptor.none
    var upstream = Descriptor.none
    /// Its entry in ``UpstreamSockets``, as long as `upstream` is open.
    var socket: Int32 = Flow.none
    /// The block with facts and first bytes, until they are sent.
    var pending: Int32 = Flow.none
    /// Timer wheel links: slot indices, or ``Flow/none``.
    var timerNext: Int32 = Flow.none
    var timerPrevious: Int32 = Flow.none
    var timerBucket: Int32 = Flow.none
    /// Where it stands in the ``PaceQueue``, or ``Flow/none``; and since when, in turns taken; 0: not yet.
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
    /// What both flows had moved when the half-close deadline was armed.
    var halfClosedTotal: Int64 = 0
    var serial: UInt64 = 0
    var accepted = Instant(nanoseconds: 0)
    var connected = TimeSpan.zero
    var peer = Endpoint(.unspecified, 0)
    // Each endpoint leaves room for something small behind it.
    /// Its place in the ``ProgramTable``.
    var program: Int32 = 0
    var believed = Endpoint(.unspecified, 0)
    var chain: UInt16 = 0
    var sniff = SniffOutcome.notAsked
    /// A peer of it has kept its window shut: see ``Worker/runLifeWatch()``.
    var isProbedOften = false
    var destination = Endpoint(.unspecified, 0)
    /// The one that is tried, or connected, and counts the connection among its own: so it is pinned.
    var backend: UnsafePointer<BackendCell>?
    /// Which route it has, and whose, since it was looked up. Both pinned.
    var route: UnsafePointer<RouteCell>?
    var owner: UnsafePointer<RouteOwner>?
    /// R19: whose connection it is. Pinned.
    var identity: UnsafePointer<InstanceIdentity>?
    /// See ``Filter/progress(_:_:_:)``.
    var reported = ReportedTotals()
    /// Given back at the end. While stages run before the connect, the facts own what is held.
    var reservations = Reservations()
    var buckets = ConnectionBuckets()
    var shadowed = ReasonCode(rawValue: .max)
    var serverName = ShortText<62>()

    /// Goes on to another phase.
    @inline(__always) mutating func enter(_ next: Phase) {
        assert(phase.leads(to: next), "S5: a connection goes from \(phase) to \(next)")
        phase = next
    }

    /// A stage has not said yet what becomes of it.
    @inline(__always) var isUndecided: Bool { phase == .peeking || inspecting != 0 }
    /// Has filled the buffer so often that it is spliced.
    var isBulk: Bool { up.state.union(down.state).contains(.splicing) }
    var instanceNumber: UInt32 { identity?.pointee.number ?? InstanceIdentity.unknown }

    struct Marks: OptionSet {
        let rawValue: UInt16
        static let clientWatched = Marks(rawValue: 1)
        static let upstreamWatched = Marks(rawValue: 2)
        /// In the run queue: has more to do without a new event.
        static let queued = Marks(rawValue: 4)
        /// Has lived long enough for its upstream socket to be guarded against a dead peer.
        static let guarded = Marks(rawValue: 8)
        /// Came by a listener that intercepts.
        static let intercepted = Marks(rawValue: 16)
        /// Its destination was tried, or is connected, and no backend.
        static let direct = Marks(rawValue: 32)
        /// Came by a TLS listener: what stages that look later are told.
        static let tls = Marks(rawValue: 64)
        /// Its block counts among those of its env and network while its backend is connected to.
        static let counted = Marks(rawValue: 128)
        /// Stages were told of it while it lived.
        static let reported = Marks(rawValue: 256)
    }
}

/// What a connection needs only until its first bytes are with the backend. Lives at the head of a pooled block.
struct Pending {
    var facts: ConnectionFacts
    var prelude: Prelude
    var memory: StageMemory
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

    /// Begins anew for another connection, in what an earlier one, or the kernel's zeros, left: trivial values all of them,
    /// the largest of which are hardly ever used and so not written.
    @inline(__always) mutating func begin(facts: ConnectionFacts) {
        self.facts = facts
        prelude.reset()
        memory.reset()
        stage = 0
        count = 0
        wanted = 1
        input = .open
        generation = 0
        group = 0
    }
}
