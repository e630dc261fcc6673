import Pipeline
import PipelineRouting
import Testing

/// `idle_timeout_seconds`, `queue` and `health` of routes of desired state, as the table has them for the data path.
@Suite("What routes of desired state say of their own") struct RouteOwnWordsTests {
    let state = RoutingState()

    private func apply(_ routes: [TestRoute]) throws -> [RouteProblem] {
        let (document, problems) = StateDocument.parse(documentText(routes: routes.map(\.json)), seed: testSeed)
        return problems.list + state.apply(try #require(document)).problems.list
    }
    private func route(_ id: String, _ extra: String, env: String = "env_a") -> TestRoute {
        TestRoute(id: id, env: env, hostname: "\(id).example.com", extra: extra.isEmpty ? "" : ", \(extra)")
    }
    private func group(_ id: String) throws -> BackendGroup {
        try #require(state.snapshot.named("\(id).example.com")).group.pointee
    }

    @Test("each is the route's own; without them it has nothing of that, and null is without")
    func own() throws {
        let nothing =
            "\"idle_timeout_seconds\": null, \"queue\": null, \"queue_timeout_seconds\": null, \"health\": null"
        #expect(
            try apply([
                route("a", ""), route("b", nothing), route("c", "\"idle_timeout_seconds\": 300"),
                route("d", "\"idle_timeout_seconds\": 0"),
                route("e", "\"max_connections\": 1, \"queue\": 10, \"queue_timeout_seconds\": 5"),
                route("f", "\"queue\": 10, \"queue_timeout_seconds\": 5"), route("g", "\"health\": \"off\""),
            ]).isEmpty)
        for id in ["a", "b"] { #expect(try group(id).policy == nil && group(id).health == nil) }
        #expect(try group("c").policy?.pointee.idleTimeout == .seconds(300))
        #expect(try group("d").policy?.pointee.idleTimeout == .zero)
        let (one, two) = (try #require(try group("e").policy?.pointee), try #require(try group("f").policy?.pointee))
        #expect(
            one.queue?.limit == 10 && one.queue?.patience == .seconds(5) && one.queue?.queue == one.groupQueue?.queue)
        #expect(one.queue?.queue != two.queue?.queue)
        #expect(try group("g").health?.pointee.name == nil && group("g").health != nil)
        // Those that say the same share their backends' turns; a change of bounds keeps who waits.
        #expect(try apply([route("e", "\"queue\": 20, \"queue_timeout_seconds\": 5")]).isEmpty)
        #expect(try group("e").policy?.pointee.queue?.limit == 20)
        #expect(try group("e").policy?.pointee.queue?.queue == one.queue?.queue)
    }

    @Test("`health` names a block of the node's config; an unknown one is the route's problem, which is served")
    func health() throws {
        state.healths = ["strict": RouteHealth(name: "strict", ejection: .none, usesAll: false)]
        let problems = try apply([route("a", "\"health\": \"strict\""), route("b", "\"health\": \"strickt\"")])
        #expect(try group("a").health?.pointee.name == "strict" && group("b").health == nil)
        #expect(problems.count == 1 && problems[0].severity == .warning && problems[0].id == "b", "\(problems)")
        #expect(problems[0].field == "health")
        // The config has it now.
        state.healths["strickt"] = RouteHealth(name: "strickt", ejection: .none, usesAll: true)
        #expect(try apply([route("b", "\"health\": \"strickt\"")]).isEmpty)
        #expect(try group("b").health?.pointee.usesAll == true)
    }

    @Test(
        "what is out of range or half of a pair quarantines the route",
        arguments: [
            ("\"idle_timeout_seconds\": 2592001", "idle_timeout_seconds"),
            ("\"idle_timeout_seconds\": \"5m\"", "idle_timeout_seconds"),
            ("\"queue\": 0, \"queue_timeout_seconds\": 5", "queue"), ("\"queue\": 10", "queue_timeout_seconds"),
            ("\"queue_timeout_seconds\": 5", "queue"),
            ("\"queue\": 1, \"queue_timeout_seconds\": 3601", "queue_timeout_seconds"),
            ("\"health\": \"\"", "health"), ("\"health\": 1", "health"),
        ])
    func wrong(extra: String, field: String) throws {
        let problems = try apply([route("a", extra)])
        #expect(problems.contains { $0.severity == .rejected && $0.field == field && $0.id == "a" }, "\(problems)")
        #expect(problems.count == 1, "\(problems)")
        #expect(state.snapshot.routeCount == 0)
    }
}
