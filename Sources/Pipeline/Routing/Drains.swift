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
    private var drains: [(drain: RouteDrain, hold: Hold)] = []

    var list: [RouteDrain] { drains.map(\.drain) }

    mutating func add(_ endpoint: Endpoint, seconds: UInt32, apply: UInt64, _ store: RouteStore) {
        let cell = store.retainCell(endpoint)
        let drain = RouteDrain(
            target: .backend(cell), name: endpoint.description, grace: .seconds(seconds), apply: apply)
        drains.append((drain, .backend(endpoint)))
    }

    mutating func add(removed entry: UInt32, id: String, _ onDelete: OnDelete, apply: UInt64, _ store: RouteStore) {
        guard onDelete != .keep else { return }
        store.retain(entry: entry)
        let seconds = onDelete == .kill ? 0 : DrainList.routeGraceSeconds
        let drain = RouteDrain(
            target: .route(store.cell(entry)), name: id, grace: .seconds(seconds), apply: apply)
        drains.append((drain, .entry(entry)))
    }

    /// R30: at once.
    mutating func add(_ tenant: RouteDrain.Target, name: String, apply: UInt64) {
        guard let hold = DrainList.hold(tenant) else { return }
        drains.append((RouteDrain(target: tenant, name: name, grace: .zero, apply: apply), hold))
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

    private mutating func remove(_ store: RouteStore, _ matches: ((drain: RouteDrain, hold: Hold)) -> Bool) {
        let gone = drains.filter(matches)
        guard !gone.isEmpty else { return }
        drains.removeAll(where: matches)
        for item in gone {
            switch item.hold {
            case .backend(let endpoint): store.releaseCell(endpoint)
            case .entry(let entry): store.release(entry: entry)
            case .tenant: break
            }
        }
    }
}
