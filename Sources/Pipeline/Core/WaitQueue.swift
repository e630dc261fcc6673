import Synchronization

/// Who waits for one limit, on all workers: how many, and which worker's turn it is.
///
/// Each worker has its own waiting connections in order (``Verdict/wait``). Here stands since when each worker that has some
/// was not served: the one that was not for longest is next. It decides no place: that is the limit's own count.
///
/// Threading: every field atomic; a worker writes its own turn, anyone reads all. Ownership: the routing side, which keeps
/// it for as long as the node lives, so that a connection needs no count to hold it.
public struct WaitQueue: ~Copyable {
    /// Unique in the process.
    public let number: UInt32
    /// Connections that wait now. Never more than the queue's bound.
    public let waiting = ReservationCount()
    /// By worker, bit and place: it has waiting connections, and since when none of them was served.
    private let workers = Atomic<UInt64>(0)
    private let turns: UnsafeMutablePointer<Atomic<UInt64>>

    /// Workers that are as many apart share a turn.
    public static let places = 64
    private static let numbers = Atomic<UInt32>(0)

    public init() {
        number = WaitQueue.numbers.wrappingAdd(1, ordering: .relaxed).newValue
        turns = .allocate(capacity: WaitQueue.places)
        for place in 0..<WaitQueue.places { (turns + place).initialize(to: Atomic(0)) }
    }

    deinit {
        turns.deinitialize(count: WaitQueue.places)
        turns.deallocate()
    }

    /// This worker has waiting connections, and none of them was served since `time`.
    public func setTurn(of worker: Int, since time: Instant) {
        let place = worker & (WaitQueue.places - 1)
        turns[place].store(time.nanoseconds, ordering: .relaxed)
        workers.bitwiseOr(1 << UInt64(place), ordering: .sequentiallyConsistent)
    }

    /// None of its connections waits any more.
    public func endTurn(of worker: Int) {
        workers.bitwiseAnd(~(1 << UInt64(worker & (WaitQueue.places - 1))), ordering: .relaxed)
    }

    /// Whose turn it is; nil: nobody waits.
    public var next: Turn? {
        var left = workers.load(ordering: .sequentiallyConsistent)
        var first: Turn?
        while left != 0 {
            let place = left.trailingZeroBitCount
            left &= left - 1
            let turn = Turn(place: place, since: turns[place].load(ordering: .relaxed))
            if first.map({ turn.since < $0.since }) ?? true { first = turn }
        }
        return first
    }

    /// A worker's claim to the next place.
    @frozen public struct Turn: Equatable, Sendable {
        /// Of the workers with this remainder.
        public let place: Int
        public let since: UInt64

        public func isOf(worker: Int) -> Bool { worker & (WaitQueue.places - 1) == place }
    }
}

/// Several queues may wait for one backend: routes with the same address. None of them takes every place.
extension BackendCell {
    /// How long a claim holds that is not renewed.
    public static let claimTime = TimeSpan.milliseconds(120)

    /// A queue that found the backend full when it looked claims its next place, unless another one has.
    public func claim(for queue: UnsafePointer<WaitQueue>, at now: Instant) {
        if let other = claimant(at: now), other != queue { return }
        claimed.store(UInt(bitPattern: queue), ordering: .relaxed)
        claimedAt.store(now.nanoseconds, ordering: .relaxed)
    }

    /// Whose the next place is; nil: anybody's.
    public func claimant(at now: Instant) -> UnsafePointer<WaitQueue>? {
        let queue = UnsafePointer<WaitQueue>(bitPattern: claimed.load(ordering: .relaxed))
        guard let queue, now < Instant(nanoseconds: claimedAt.load(ordering: .relaxed)) + BackendCell.claimTime else {
            return nil
        }
        return queue
    }

    /// It has got its place.
    public func endClaim(of queue: UnsafePointer<WaitQueue>) {
        if claimed.load(ordering: .relaxed) == UInt(bitPattern: queue) { claimed.store(0, ordering: .relaxed) }
    }
}

/// `queue N for T`: where the connections of a route wait, how many, and how long.
public struct QueueRule: @unchecked Sendable {
    public let queue: UnsafePointer<WaitQueue>
    public let limit: UInt32
    public let patience: TimeSpan

    public init(_ queue: UnsafePointer<WaitQueue>, limit: UInt32, patience: TimeSpan) {
        self.queue = queue
        self.limit = limit
        self.patience = patience
    }
}

/// The same in a config.
public struct QueueSpec: Hashable, Sendable {
    /// 1...
    public var limit: UInt32
    public var patience: TimeSpan
    public init(limit: UInt32, patience: TimeSpan) {
        self.limit = limit
        self.patience = patience
    }
    /// `100 for 5s`.
    public var configText: String { "\(countText(UInt64(limit))) for \(patience.configText)" }
}

/// Where a connection may wait in place of being refused, and what it ends with otherwise: reasons of the stage that says
/// so.
@frozen public struct QueueOffer: @unchecked Sendable {
    public let rule: QueueRule
    /// As many wait as may.
    public let ifFull: UInt8
    /// It has waited for as long as it may.
    public let ifOver: UInt8

    public init(_ rule: QueueRule, ifFull: UInt8, ifOver: UInt8) {
        self.rule = rule
        self.ifFull = ifFull
        self.ifOver = ifOver
    }
}

/// What a route, or its `backends` block, says of its connections in place of its pipeline. At a fixed address for as long as
/// the node lives.
public struct RoutePolicy: @unchecked Sendable {
    /// Zero: none. Nil: as the `backend` stage says.
    public let idleTimeout: TimeSpan?
    /// For the route's own limit; nil: who comes beyond it is refused.
    public let queue: QueueRule?
    /// For the limits of its backends and of their group. The same as ``queue`` for a route with backends of its own.
    public let groupQueue: QueueRule?
    /// Nil: as the `backend` stage says.
    public let source: UnsafePointer<SourceAddresses>?

    public init(
        idleTimeout: TimeSpan?, queue: QueueRule?, groupQueue: QueueRule?,
        source: UnsafePointer<SourceAddresses>? = nil
    ) {
        self.source = source
        self.idleTimeout = idleTimeout
        self.queue = queue
        self.groupQueue = groupQueue
    }
}
