import Synchronization

/// What a route says about its backends' health, in place of its pipeline's `backend … health`: the part of the named
/// block that the data path reads. Probes are found by the name.
public struct RouteHealth: Hashable, Sendable {
    /// The block's; nil: neither probed nor ejected.
    public var name: String?
    public var ejection: EjectionPolicy
    /// If all are out, all are tried.
    public var usesAll: Bool
    public init(name: String?, ejection: EjectionPolicy, usesAll: Bool) {
        self.name = name
        self.ejection = ejection
        self.usesAll = usesAll
    }

    /// `health off`.
    public static let off = RouteHealth(name: nil, ejection: .none, usesAll: true)
}

/// A ``RouteHealth`` at a fixed address: a connection may hold the policy longer than the table lives that it came from.
public struct GroupHealth: @unchecked Sendable {
    /// As ``RouteHealth/name``.
    public let name: String?
    public let ejection: UnsafePointer<EjectionPolicy>
    public let usesAll: Bool

    private struct Place: @unchecked Sendable { let pointer: UnsafePointer<GroupHealth> }
    private static let known = Mutex<[RouteHealth: Place]>([:])

    /// The same for the same; never freed, and as many as a process has met in its configs.
    public static func interned(_ health: RouteHealth) -> UnsafePointer<GroupHealth> {
        let place = known.withLock { known -> Place in
            if let place = known[health] { return place }
            let place = Place(pointer: make(health))
            known[health] = place
            return place
        }
        return place.pointer
    }

    private static func make(_ health: RouteHealth) -> UnsafePointer<GroupHealth> {
        let policy = UnsafeMutablePointer<EjectionPolicy>.allocate(capacity: 1)
        policy.initialize(to: health.ejection)
        let place = UnsafeMutablePointer<GroupHealth>.allocate(capacity: 1)
        place.initialize(to: GroupHealth(name: health.name, ejection: UnsafePointer(policy), usesAll: health.usesAll))
        return UnsafePointer(place)
    }
}

/// A block that a route may name as its `health`.
public protocol RouteHealthBlock: ConfigBlock {
    var routeHealth: RouteHealth { get }
}

extension BlockKind {
    /// Named by stages, and by routes.
    public static let health = BlockKind("health")
}
