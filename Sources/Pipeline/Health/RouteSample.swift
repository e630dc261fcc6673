import Pipeline
import PipelineRouting

/// Counts routes, while a walk over a table comes by each of their names and ports.
package struct RouteCount: Equatable, Sendable {
    /// Those with one name, as all of desired state.
    private var single = 0
    /// Cells of those that may have several.
    private var several: Set<UInt> = []

    package init() {}

    package var total: Int { single + several.count }

    /// True if it is a new one.
    package mutating func add(_ route: Route) -> Bool {
        guard !route.cell.pointee.isShared else { return several.insert(UInt(bitPattern: route.cell)).inserted }
        single += 1
        return true
    }

    mutating func add(_ routes: RoutesOfUse) {
        single += Int(routes.single)
        several.formUnion(routes.several)
    }

    package mutating func add(_ other: RouteCount) {
        single += other.single
        several.formUnion(other.several)
    }
}

/// The ids and owners of a few routes, and the total number (R27: bounded line).
package struct RouteSample: Equatable, Sendable {
    package static let limit = 3
    package private(set) var ids: [String] = []
    package private(set) var envs: [EnvName] = []
    private var counted = RouteCount()

    package init() {}

    package var count: Int { counted.total }

    /// How many routes lead to the group.
    static func count(_ group: ServedGroup) -> Int {
        var counted = RouteCount()
        for routes in group.uses { counted.add(routes) }
        return counted.total
    }

    /// Routes of one group.
    /// - Parameter isMeant: of those with such uses.
    init(_ group: ServedGroup, where isMeant: (RouteUse) -> Bool = { _ in true }) {
        for routes in group.uses where isMeant(routes.use) { counted.add(routes) }
        guard count > 0 else { return }
        envs = [group.owner]
        ids = group.someRoutes(RouteSample.limit, where: isMeant).map(\.string)
    }

    mutating func add(_ other: RouteSample) {
        counted.add(other.counted)
        for id in other.ids where ids.count < RouteSample.limit && !ids.contains(id) { ids.append(id) }
        for env in other.envs where envs.count < RouteSample.limit && !envs.contains(env) { envs.append(env) }
    }
}
