import Synchronization

/// R11: how a route chooses among its backends.
public enum Balance: UInt8, Sendable, CaseIterable {
    case roundRobin, leastConnections, randomOfTwo, consistentHash
    public var name: String {
        switch self {
        case .roundRobin: "round_robin"
        case .leastConnections: "least_connections"
        case .randomOfTwo: "random_of_two"
        case .consistentHash: "consistent_hash"
        }
    }
}

/// What this node knows of one backend address, across routes and tables (R12).
///
/// Threading: every field atomic, relaxed; workers, the prober and the control side all write. Ownership: the routing
/// side, one cell an (address, port), kept for as long as a table names it or ``active`` counts a connection.
public struct BackendCell: ~Copyable {
    public let endpoint: Endpoint
    /// Connections to it now, those being connected included. Each pins the cell.
    public let active = ReservationCount()
    /// Successful and failed connects.
    public let connects = Atomic<UInt64>(0)
    public let failures = Atomic<UInt64>(0)
    /// Connect failures since the last successful connect.
    public let failuresInARow = Atomic<UInt32>(0)
    /// Passive ejection: ejected until this instant (monotonic nanoseconds); 0: not ejected.
    public let ejectedUntil = Atomic<UInt64>(0)
    /// Ejections in a row without a good connect: the next one's length grows with them.
    public let ejections = Atomic<UInt32>(0)
    /// What the active probe says: see ``Probe``.
    public let probe = Atomic<UInt8>(Probe.unknown.rawValue)
    /// Since when it has been usable without a break (monotonic nanoseconds), for slow start; 0: since the node's
    /// start.
    public let eligibleSince = Atomic<UInt64>(0)
    /// R18: whether PROXY headers were accepted, from traffic and probes: see ``HeaderVerdict``.
    public let proxy = Atomic<UInt8>(HeaderVerdict.unknown.rawValue)
    public let proxyRejections = Atomic<UInt64>(0)
    /// Networks whose clients got answers as from a server that rejects the header, since it was last accepted: see
    /// ``noteHeaderDoubt(of:)``.
    public let headerDoubts = Atomic<UInt64>(0)

    /// The queue whose connections get the next place under a limit, before those of other queues: see ``claim(for:at:)``.
    public let claimed = Atomic<UInt>(0)
    /// When it was claimed (monotonic nanoseconds).
    public let claimedAt = Atomic<UInt64>(0)

    /// The percentage of its usual share of new connections that its agent asks for; 0: none, as if it were drained.
    public let agentPercent = Atomic<UInt8>(100)

    public enum Probe: UInt8, Sendable {
        /// Not probed (yet): counts as up.
        case unknown = 0
        case up
        case down
    }

    /// Whether the backend accepts this node's PROXY headers (R18).
    public enum HeaderVerdict: UInt8, Sendable {
        /// Unknown: silence proves nothing.
        case unknown = 0
        /// Accepted: it gave an answer that requires having read the header.
        case accepted
        /// Rejected: a LOCAL header, or connections of three networks in a row, were closed, or answered as by a server
        /// that reads the header as its client's first bytes.
        case rejected

        /// How long after the connect an answer counts as evidence against the header.
        public static let window = TimeSpan.seconds(2)
    }

    public init(_ endpoint: Endpoint) { self.endpoint = endpoint }

    /// R12: false while a probe, its agent or an ejection of this node excludes it. It never makes a backend eligible that is not
    /// in the route's set.
    public func isEligible(at now: Instant) -> Bool {
        probe.load(ordering: .relaxed) != Probe.down.rawValue
            && ejectedUntil.load(ordering: .relaxed) <= now.nanoseconds && agentPercent.load(ordering: .relaxed) > 0
    }
}

/// Passive ejection (R12): from a `health` block, or ``standard``. Immutable.
public struct EjectionPolicy: Sendable, Hashable {
    /// The default, without a `health` block or its `eject` line.
    public static let standard = EjectionPolicy(after: 5, base: .seconds(10), max: .seconds(300))
    /// Connect failures eject no backend.
    public static let none = EjectionPolicy(after: 0, base: .zero, max: .zero)
    /// ``standard`` at a fixed address; never freed.
    nonisolated(unsafe) public static let standardPointer: UnsafePointer<EjectionPolicy> = {
        let memory = UnsafeMutablePointer<EjectionPolicy>.allocate(capacity: 1)
        memory.initialize(to: standard)
        return UnsafePointer(memory)
    }()

    /// Consecutive connect failures that eject; 0: never.
    public var after: UInt32
    /// The first ejection's length; each further one in a row is twice as long.
    public var base: TimeSpan
    public var max: TimeSpan
    public init(after: UInt32, base: TimeSpan, max: TimeSpan) {
        self.after = after
        self.base = base
        self.max = max
    }

    /// The length of an ejection after `earlier` others in a row.
    public func length(after earlier: UInt32) -> TimeSpan {
        let (length, overflow) = base.nanoseconds.multipliedReportingOverflow(by: 1 << UInt64(min(earlier, 63)))
        return overflow ? max : min(TimeSpan(nanoseconds: length), max)
    }
}

/// Passive health (R12): results of real connections. Any thread.
extension BackendCell {
    /// Counts a successful connect. It does not shorten an ejection: a backend returns by time alone.
    public func noteConnect() {
        connects.wrappingAdd(1, ordering: .relaxed)
        // Written only on change, because every connection runs this.
        if failuresInARow.load(ordering: .relaxed) != 0 { failuresInARow.store(0, ordering: .relaxed) }
        if ejections.load(ordering: .relaxed) != 0 { ejections.store(0, ordering: .relaxed) }
    }

    /// Counts a refused or timed-out connect that is not caused by a shortage of this node. Enough of them in a row
    /// eject the backend; after its return the first one does, for longer.
    /// - Parameter policy: nil: never eject.
    public func noteFailure(at now: Instant, _ policy: UnsafePointer<EjectionPolicy>?) {
        failures.wrappingAdd(1, ordering: .relaxed)
        let inARow = failuresInARow.wrappingAdd(1, ordering: .relaxed).newValue
        guard let policy, policy.pointee.after > 0, inARow >= policy.pointee.after else { return }
        let earlier = ejections.load(ordering: .relaxed)
        let until = ejectedUntil.load(ordering: .relaxed)
        // Connects from before the ejection do not prolong it.
        guard until <= now.nanoseconds else { return }
        let end = (now + policy.pointee.length(after: earlier)).nanoseconds
        // One worker ejects, even if several reach the threshold together.
        guard ejectedUntil.compareExchange(expected: until, desired: end, ordering: .relaxed).exchanged else { return }
        ejections.store(earlier == .max ? earlier : earlier + 1, ordering: .relaxed)
        eligibleSince.store(end, ordering: .relaxed)
    }

    /// Un-ejects after good probes: ends an ejection early, and forgets earlier ones.
    public func uneject(at now: Instant) {
        failuresInARow.store(0, ordering: .relaxed)
        ejections.store(0, ordering: .relaxed)
        guard ejectedUntil.exchange(0, ordering: .relaxed) > now.nanoseconds else { return }
        eligibleSince.store(now.nanoseconds, ordering: .relaxed)
    }
}

/// One ready instance behind a route (R10).
public struct Backend: @unchecked Sendable {
    public let address: BackendAddress
    public let instance: FrozenText
    public let cell: UnsafePointer<BackendCell>
    /// 0 (no new connections)...256.
    public let weight: UInt16
    /// The most concurrent connections from this node; 0: no limit.
    public let maxConnections: UInt32
    /// 0 (first)...``BackendSpec/backupPriority``.
    public let priority: UInt8
    public init(
        address: BackendAddress, instance: FrozenText, cell: UnsafePointer<BackendCell>, weight: UInt16 = 1,
        maxConnections: UInt32 = 0, priority: UInt8 = 0
    ) {
        self.address = address
        self.instance = instance
        self.cell = cell
        self.weight = weight
        self.maxConnections = maxConnections
        self.priority = priority
    }

    /// R12: weight 0 gets no new connection, whatever the other backends are.
    public func isEligible(at now: Instant) -> Bool { weight > 0 && cell.pointee.isEligible(at: now) }
}

/// A backend in a config file: address or name, weight, limit and priority.
public struct BackendSpec: Hashable, Sendable {
    /// With a ``name``: of the port alone.
    public var endpoint: Endpoint
    /// What the DNS is asked for; nil: ``endpoint`` is the address.
    public var name: BackendName?
    /// 0...256, as ``Backend/weight``.
    public var weight: UInt16
    /// 0: no limit.
    public var maxConnections: UInt32
    /// As ``Backend/priority``.
    public var priority: UInt8
    public init(
        _ endpoint: Endpoint, name: BackendName? = nil, weight: UInt16 = 1, maxConnections: UInt32 = 0,
        priority: UInt8 = 0
    ) {
        self.endpoint = endpoint
        self.name = name
        self.weight = weight
        self.maxConnections = maxConnections
        self.priority = priority
    }
    /// The largest ``weight``.
    public static let weightLimit: UInt16 = 256
    /// The last ``priority``: `backup`. Few, because each priority of a group may have a table for consistent hashing.
    public static let backupPriority: UInt8 = 15
}

/// What the routes of one group share across tables and applies: whose turn it is (R11), and how many connections the
/// group has.
///
/// Threading: every field atomic, relaxed; all workers. Ownership: the routing side, which keeps it for as long as a table
/// names it or ``active`` counts a connection.
public struct GroupCell: ~Copyable {
    /// Of a `backends` block; empty: the group has none.
    public let name: FrozenText
    /// How many backends were selected, ever.
    public let cursor: Atomic<UInt64>
    /// Connections to the group now, counted only under a limit.
    public let active = ReservationCount()
    public init(name: FrozenText = .empty, cursor: UInt64 = 0) {
        self.name = name
        self.cursor = Atomic(cursor)
    }
}

extension UnsafePointer<GroupCell> {
    /// The address of ``GroupCell/active``: see ``RouteCell/active``.
    public var active: UnsafePointer<ReservationCount> { withUnsafePointer(to: pointee.active) { $0 } }
}
