import Pipeline

extension HealthSettings: RouteHealthBlock {
    public var routeHealth: RouteHealth {
        RouteHealth(name: name, ejection: values.ejection, usesAll: panic == .useAll)
    }
}

extension BackendFilter.Settings {
    /// The route's own, or the stage's.
    func panic(of route: FoundRoute) -> HealthSettings.Panic {
        guard let health = route.group.pointee.health else { return panic }
        return health.pointee.usesAll ? .useAll : .failFast
    }
}
