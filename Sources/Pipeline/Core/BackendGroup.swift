import Synchronization

/// The backends of a route, by priority, with the tables for balancing. Immutable, shared by routes, part of a snapshot.
public struct BackendGroup: @unchecked Sendable {
    /// Identifies this set of backends for the life of the process.
    public let number: UInt64
    /// Those of the first priority first.
    public let backends: FrozenArray<Backend>
    /// One for each priority in use, the first one first; empty without backends.
    public let tiers: FrozenArray<PriorityTier>
    /// Whose turn it is stands here, for all priorities together.
    public let cell: UnsafePointer<GroupCell>
    /// The most connections at once from this node, over all routes of the group; 0: no limit.
    public let maxConnections: UInt32
    /// In place of the stage's; nil: the stage's.
    public let health: UnsafePointer<GroupHealth>?
    /// Nil: its routes say nothing of that.
    public let policy: UnsafePointer<RoutePolicy>?

    private static let numbers = Atomic<UInt64>(0)

    /// - Parameters:
    ///   - backends: sorted by priority.
    ///   - tables: makes the tables of one priority's backends.
    public init(
        backends: FrozenArray<Backend>, cell: UnsafePointer<GroupCell>, maxConnections: UInt32 = 0,
        health: UnsafePointer<GroupHealth>? = nil, policy: UnsafePointer<RoutePolicy>? = nil,
        tables: (FrozenArray<Backend>) -> BalanceTables = { _ in BalanceTables() }
    ) {
        self.health = health
        self.policy = policy
        self.cell = cell
        self.maxConnections = maxConnections
        number = BackendGroup.numbers.wrappingAdd(1, ordering: .relaxed).newValue
        self.backends = backends
        var tiers: [PriorityTier] = []
        var start = 0
        while start < backends.count {
            var end = start + 1
            while end < backends.count, backends[end].priority == backends[start].priority { end += 1 }
            let part = FrozenArray(viewing: UnsafeMutableBufferPointer(rebasing: backends.storage[start..<end]))
            tiers.append(PriorityTier(part, tables(part)))
            start = end
        }
        self.tiers = FrozenArray(tiers)
    }

    /// How many of its backends are eligible, of whatever priority: not down or ejected (R12), and with a weight.
    public func usable(at now: Instant) -> Int { backends.buffer.count { $0.isEligible(at: now) } }

    /// The priority that new connections go to: the first with an eligible backend. Nil: no backend is eligible.
    public func tierInUse(at now: Instant) -> Int? { tiers.buffer.firstIndex { $0.hasEligible(at: now) } }

    /// Whether one of its backends has this cell.
    public func has(_ cell: UnsafePointer<BackendCell>) -> Bool { backends.buffer.contains { $0.cell == cell } }

    /// Frees the arrays; instances' texts are the caller's.
    public func deallocate() {
        for tier in tiers.buffer { tier.deallocateTables() }
        tiers.deallocate()
        backends.deallocate()
    }
}

/// What balancing looks up. Indexes are into the backends of one priority.
public struct BalanceTables: Sendable {
    /// Weighted round robin: the backend of each turn; empty: one turn each, in order.
    public var schedule: [UInt16]
    /// Maglev's lookup table: backend by hash; empty: no route of the group uses it.
    public var maglev: [UInt16]
    public init(schedule: [UInt16] = [], maglev: [UInt16] = []) {
        self.schedule = schedule
        self.maglev = maglev
    }
}

/// The backends of one priority of a group. Immutable, part of the group.
public struct PriorityTier: Sendable {
    /// A view of the group's memory.
    public let backends: FrozenArray<Backend>
    /// See ``BalanceTables``.
    public let schedule: FrozenArray<UInt16>
    public let maglev: FrozenArray<UInt16>

    fileprivate init(_ backends: FrozenArray<Backend>, _ tables: BalanceTables) {
        self.backends = backends
        schedule = FrozenArray(tables.schedule)
        maglev = FrozenArray(tables.maglev)
    }

    public var priority: UInt8 { backends.isEmpty ? 0 : backends[0].priority }
    /// As the config writes it.
    public var name: String { BackendSpec.name(ofPriority: priority) }

    func hasEligible(at now: Instant) -> Bool { backends.buffer.contains { $0.isEligible(at: now) } }

    fileprivate func deallocateTables() {
        schedule.deallocate()
        maglev.deallocate()
    }
}

extension BackendSpec {
    /// `priority 2`, or `backup`.
    public static func name(ofPriority priority: UInt8) -> String {
        priority == backupPriority ? "backup" : "priority \(priority)"
    }
}
