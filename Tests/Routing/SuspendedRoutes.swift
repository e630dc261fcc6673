import Pipeline
import PipelineRouting

extension RouteTableSnapshot {
    /// Ids of routes that lookups in this table refuse (R30), in no order.
    var suspendedRoutes: [String] {
        var ids: [String] = []
        for part in 0..<partCount {
            visit(part: part) { route, _ in if handle.isSuspended(route) { ids.append(route.pointee.id.string) } }
        }
        return ids
    }
}
