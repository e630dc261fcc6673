import Pipeline

/// An object removed from desired state: its connections may continue until the deadline, then they are reset.
///
/// The cell is only compared, never read. It must not be given to another backend or route before an update without
/// this drain was applied. Drains reach a worker whatever its connections hold.
package struct Drain: @unchecked Sendable {
    package enum Target: @unchecked Sendable, Equatable {
        case backend(UnsafePointer<BackendCell>)
        case route(UnsafePointer<RouteCell>)
        /// R30: by ``TenantNumbers``: of routes and of instances.
        case env(UInt32)
        case org(UInt32)

        /// To find it by.
        var key: UInt {
            switch self {
            case .backend(let cell): UInt(bitPattern: cell)
            case .route(let cell): UInt(bitPattern: cell)
            case .env(let number), .org(let number): UInt(number)
            }
        }
        var isOfTenant: Bool {
            switch self {
            case .backend, .route: false
            case .env, .org: true
            }
        }
    }
    package let what: Target
    package let deadline: Instant
    /// ``RuntimeReason/instanceDrained``, ``RuntimeReason/routeRemoved`` or ``RuntimeReason/suspended``.
    package let reason: RuntimeReason

    package init(_ what: Target, deadline: Instant, reason: RuntimeReason) {
        self.what = what
        self.deadline = deadline
        self.reason = reason
    }
}

/// A worker's drains, and the time of the next check.
struct Drains: ~Copyable {
    /// Sorted by ``Drain/Target/key``: each connect asks for two of them, and a walk over all connections for each of theirs.
    private let items: AppliedList<Drain>
    /// Some are of envs or orgs.
    let hasTenants: Bool
    /// The first deadline that has not passed.
    private(set) var next: Instant?

    init(_ drains: some Collection<Drain>) {
        items = AppliedList(drains.sorted { $0.what.key < $1.what.key })
        hasTenants = drains.contains(where: \.what.isOfTenant)
        next = drains.lazy.map(\.deadline).min()
    }

    func isDue(at now: Instant) -> Bool { next.map { $0 <= now } ?? false }

    /// The connections of every due drain have been reset.
    mutating func done(at now: Instant) {
        next = nil
        for i in 0..<items.count where items[i].deadline > now {
            next = min(next ?? items[i].deadline, items[i].deadline)
        }
        assert(next.map { $0 > now } ?? true, "S23: a drain's deadline has passed without being handled")
    }

    /// The reason to reset a connection to that backend; nil: none.
    func overdue(backend cell: UnsafePointer<BackendCell>?, at now: Instant) -> RuntimeReason? {
        guard !items.isEmpty, let cell else { return nil }
        return overdue(.backend(cell), now)
    }

    /// The same for a route.
    func overdue(route cell: UnsafePointer<RouteCell>?, at now: Instant) -> RuntimeReason? {
        guard !items.isEmpty, let cell else { return nil }
        return overdue(.route(cell), now)
    }

    /// The same for an env and its org.
    func overdue(tenant: TenantNumbers?, at now: Instant) -> RuntimeReason? {
        guard hasTenants, let tenant else { return nil }
        return overdue(.env(tenant.env), now) ?? overdue(.org(tenant.org), now)
    }

    private func overdue(_ target: Drain.Target, _ now: Instant) -> RuntimeReason? {
        var (low, high) = (0, items.count)
        while low < high {
            let middle = (low + high) / 2
            if items[middle].what.key < target.key { low = middle + 1 } else { high = middle }
        }
        while low < items.count, items[low].what.key == target.key {
            if items[low].what == target, items[low].deadline <= now { return items[low].reason }
            low += 1
        }
        return nil
    }
}
