import Pipeline

/// `backend round_robin`: finds the route, and the backends to try, in order (R4, R6, R10, R11, R13).
package enum BackendFilter: Filter {
    package struct Settings: @unchecked Sendable {
        /// Of the `health` block, which the program keeps alive; nil: none is named.
        let ejection: UnsafePointer<EjectionPolicy>?
        let usesAllInPanic: Bool
    }

    enum Refusal: UInt8, CaseIterable {
        case noRoute, noBackend
    }

    package static let descriptor = FilterDescriptor(
        keyword: "backend",
        summary: "finds the route and the backends to try",
        gives: [.route, .backend],
        clauses: [
            ClauseSpec(
                "balance", [.choice(name: "balance", ["round_robin"])],
                summary: "how a route's backends take turns; `round_robin` unless said"),
            ClauseSpec(
                "health", [.word("health"), .block(name: "health", .health)],
                summary: "the `health` block that says which backends are out"),
        ],
        reasons: [
            ReasonSpec(
                "no_route", .client,
                "No route has this name here; or there is no name, and not exactly one route that could be meant."),
            ReasonSpec("no_backend", .upstream, "The route has no instance that is ready."),
        ])

    package static func settings(_ directive: Directive) throws(SettingsError) -> Settings {
        let health = directive.block("health") as? HealthSettings
        return Settings(ejection: health?.ejection, usesAllInPanic: health?.panic == .useAll)
    }

    package static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        guard let route = route(view) else { return .refuse(Refusal.noRoute.rawValue) }
        if let ejection = settings.ejection { effects.setEjection(ejection) }
        let candidates = nextCandidates(route, settings, view.now)
        effects.setRoute(route, candidates: candidates)
        return candidates.count > 0 ? .next : .refuse(Refusal.noBackend.rawValue)
    }

    /// A client that named a host gets that host's route or none: never the only route there is (R6). A raw route
    /// never serves a TLS listener, nor the reverse.
    private static func route(_ view: ConnectionView) -> UnsafePointer<Route>? {
        let destination = view.facts.destination
        let isRaw = view.facts.hint == .tcpRaw
        let found =
            isRaw || view.facts.serverName.isEmpty
            ? view.routes.sole(at: destination) : view.routes.named(view.facts.serverName, at: destination)
        guard let found, found.pointee.flags.contains(.raw) == isRaw else { return nil }
        return found
    }

    /// Up to three eligible backends from the route's cursor on, each once (R12). The cursor is shared by all workers and outlives
    /// route tables, so turns are exact and go on where they were.
    private static func nextCandidates(
        _ route: UnsafePointer<Route>, _ settings: Settings, _ now: Instant
    ) -> BackendCandidates {
        var candidates = BackendCandidates()
        let backends = route.pointee.backends
        guard !backends.isEmpty else { return candidates }
        let turn = route.pointee.cell.pointee.cursor.wrappingAdd(1, ordering: .relaxed).oldValue
        let first = Int(turn % UInt64(backends.count))
        append(backends, from: first, to: &candidates) { $0.pointee.cell.pointee.isEligible(at: now) }
        if candidates.count == 0, settings.usesAllInPanic {
            append(backends, from: first, to: &candidates) { _ in true }
        }
        return candidates
    }

    private static func append(
        _ backends: FrozenArray<Backend>, from first: Int, to candidates: inout BackendCandidates,
        where isWanted: (UnsafePointer<Backend>) -> Bool
    ) {
        var index = first
        for _ in 0..<backends.count where Int(candidates.count) < BackendCandidates.capacity {
            let backend = backends.pointer(index)
            if isWanted(backend) { candidates.append(backend) }
            index = index + 1 == backends.count ? 0 : index + 1
        }
    }

    package static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        let name = view.facts.serverName
        let destination = view.facts.destination.endpoint
        guard let route = view.facts.route else {
            return name.isEmpty || view.facts.hint == .tcpRaw
                ? "no name to go by, and not exactly one \(view.facts.hint.name) route at \(destination)"
                : "no route for \(name.string) at \(destination)"
        }
        let found = "route \(route.pointee.id.string) of env \(route.pointee.owner.pointee.env.string)"
        let all = route.pointee.backends.count
        guard all > 0 else { return "\(found) has no ready instance" }
        let tries = (0..<Int(view.facts.candidates.count)).compactMap { view.facts.candidates[$0] }
            .map { "\($0.pointee.address.endpoint) (\($0.pointee.instance.string))" }
        return "\(found), \(all) ready; to try in order: \(tries.joined(separator: ", "))"
    }
}
