import Pipeline

/// Connections to end after an apply: those to a draining instance, or of a removed route.
///
/// Ownership: the pointers stay valid for as long as the drain is listed: until it is cancelled by an apply (the
/// instance is ready again) or dropped by ``RoutingState/forgetDrains(where:)``.
public struct RouteDrain: @unchecked Sendable {
    public enum Target: @unchecked Sendable {
        /// Connections to this backend address.
        case backend(UnsafePointer<BackendCell>)
        /// Connections of this route.
        case route(UnsafePointer<RouteCell>)
        /// R30: connections of this env's routes and instances, or of this org's, by ``TenantNumbers``.
        case env(UInt32)
        case org(UInt32)
    }

    public let target: Target
    /// For people: `[fd00::10]:8443`, or the id of the route or org, or the env's path.
    public let name: String
    /// The grace period, from the apply that asked.
    public let grace: TimeSpan
    /// The number of the apply that asked, from 0; with ``target`` it identifies a drain.
    public let apply: UInt64
}

/// An instance's drain as it outlives the node.
public struct KeptDrain: Sendable, Equatable, Comparable {
    /// Nanoseconds since 1970.
    public var end: UInt64
    /// The whole grace: clocks make it no longer.
    public var grace: TimeSpan

    public init(end: UInt64, grace: TimeSpan) {
        self.end = end
        self.grace = grace
    }

    public static func < (a: KeptDrain, b: KeptDrain) -> Bool { (a.end, a.grace) < (b.end, b.grace) }

    /// What is left of it.
    func left(at wall: UInt64) -> TimeSpan { min(grace, TimeSpan(nanoseconds: end > wall ? end - wall : 0)) }
}

extension RoutingState {
    /// What was kept, before ``restore(_:_:meanwhile:)``. From here on ``takeDrains()`` has what changes.
    public func restore(drains kept: [(Endpoint, KeptDrain)]) {
        drains.keep()
        guard let now = clock?() else { return }
        for (endpoint, drain) in kept {
            let left = drain.left(at: now.wall)
            drains.add(endpoint, left, apply: applies, at: now, store)
        }
    }

    /// What is to be kept of instances' drains; nil: no longer.
    public func takeDrains() -> [(Endpoint, KeptDrain?)] { drains.takeChanges() }
}

/// The drains of a routing state.
struct DrainList {
    /// `on_delete` `drain`.
    static let routeGraceSeconds: UInt32 = 30

    private enum Hold: Hashable {
        case backend(Endpoint)
        case entry(UInt32)
        /// Nothing of this store.
        case tenant(env: UInt32?, org: UInt32?)
    }
    private struct Item {
        let drain: RouteDrain
        let hold: Hold
        /// Of an instance: when its time is over; nil: the node has no clock.
        var kept: KeptDrain?
    }
    private var drains: [Item] = []
    /// What a store has to learn; nil: nothing is kept.
    private var changed: Set<Endpoint>?

    var list: [RouteDrain] { drains.map(\.drain) }

    mutating func add(
        _ endpoint: Endpoint, _ grace: TimeSpan, apply: UInt64, at time: NodeTime?, _ store: RouteStore
    ) {
        let cell = store.retainCell(endpoint)
        let drain = RouteDrain(target: .backend(cell), name: endpoint.description, grace: grace, apply: apply)
        let kept = time.map {
            KeptDrain(end: $0.wall.addingReportingOverflow(grace.nanoseconds).partialValue, grace: grace)
        }
        drains.append(Item(drain: drain, hold: .backend(endpoint), kept: kept))
        changed?.insert(endpoint)
    }

    // MARK: What is kept

    mutating func keep() { changed = changed ?? [] }

    mutating func keepAll() {
        guard changed != nil else { return }
        for case .backend(let endpoint) in drains.map(\.hold) { changed?.insert(endpoint) }
    }

    /// What has changed since this was asked last: nil, it is to be forgotten. Of several drains of one the first counts.
    mutating func takeChanges() -> [(Endpoint, KeptDrain?)] {
        guard let all = changed, !all.isEmpty else { return [] }
        changed = []
        var found: [Endpoint: KeptDrain] = [:]
        for item in drains {
            guard case .backend(let endpoint) = item.hold, all.contains(endpoint), let kept = item.kept else {
                continue
            }
            found[endpoint] = min(found[endpoint] ?? kept, kept)
        }
        return all.map { ($0, found[$0]) }
    }

    mutating func add(removed entry: UInt32, id: String, _ onDelete: OnDelete, apply: UInt64, _ store: RouteStore) {
        guard onDelete != .keep else { return }
        store.retain(entry: entry)
        let seconds = onDelete == .kill ? 0 : DrainList.routeGraceSeconds
        let drain = RouteDrain(
            target: .route(store.cell(entry)), name: id, grace: .seconds(seconds), apply: apply)
        drains.append(Item(drain: drain, hold: .entry(entry)))
    }

    /// A route that was withdrawn is back.
    mutating func cancel(entry: UInt32, _ store: RouteStore) {
        guard !drains.isEmpty else { return }
        remove(store) { $0.hold == .entry(entry) }
    }

    /// R30: at once.
    mutating func add(_ tenant: RouteDrain.Target, name: String, apply: UInt64) {
        guard let hold = DrainList.hold(tenant) else { return }
        drains.append(Item(drain: RouteDrain(target: tenant, name: name, grace: .zero, apply: apply), hold: hold))
    }

    /// They are suspended no longer.
    mutating func cancel(tenants: [RouteDrain.Target], _ store: RouteStore) {
        guard !drains.isEmpty, !tenants.isEmpty else { return }
        let gone = Set(tenants.compactMap(DrainList.hold))
        remove(store) { gone.contains($0.hold) }
    }

    private static func hold(_ target: RouteDrain.Target) -> Hold? {
        switch target {
        case .env(let env): .tenant(env: env, org: nil)
        case .org(let org): .tenant(env: nil, org: org)
        case .backend, .route: nil
        }
    }

    /// Instances at these addresses are ready (again).
    mutating func cancel(addresses: Set<IPAddress>, _ store: RouteStore) {
        guard !drains.isEmpty else { return }
        remove(store) {
            if case .backend(let endpoint) = $0.hold { addresses.contains(endpoint.address) } else { false }
        }
    }

    mutating func forget(_ store: RouteStore, _ isDone: (RouteDrain) -> Bool) { remove(store) { isDone($0.drain) } }

    private mutating func remove(_ store: RouteStore, _ matches: (Item) -> Bool) {
        let gone = drains.filter(matches)
        guard !gone.isEmpty else { return }
        drains.removeAll(where: matches)
        for item in gone {
            switch item.hold {
            case .backend(let endpoint):
                store.releaseCell(endpoint)
                changed?.insert(endpoint)
            case .entry(let entry): store.release(entry: entry)
            case .tenant: break
            }
        }
    }
}
