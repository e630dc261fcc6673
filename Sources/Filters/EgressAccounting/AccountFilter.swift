import Pipeline

/// `account`: adds each ended connection and its bytes to the totals of its route.
package enum AccountFilter: Filter {
    package struct Settings: Sendable {}

    package static let descriptor = FilterDescriptor(
        keyword: "account",
        summary: "counts connections and bytes per route",
        needs: [.route])

    package static func settings(_ directive: Directive) throws(SettingsError) -> Settings { Settings() }

    /// Intercepted connections have no route: their sender does as well.
    package static func facts(_ settings: Settings) -> StageFacts {
        StageFacts(needs: descriptor.needs, instead: [.route: .identity])
    }

    package static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict { .next }

    package static func settle(_ settings: Settings, _ state: inout Void, _ totals: ConnectionTotals) {
        guard let route = totals.route else { return }
        let cell = route.pointee.cell
        cell.pointee.connections.wrappingAdd(1, ordering: .relaxed)
        cell.pointee.bytesToUpstream.wrappingAdd(totals.bytesToUpstream, ordering: .relaxed)
        cell.pointee.bytesToClient.wrappingAdd(totals.bytesToClient, ordering: .relaxed)
    }

    package static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        guard let route = view.facts.route else { return "no route to count for" }
        return "connections and bytes count for route \(route.pointee.id.string) when they end"
    }
}
