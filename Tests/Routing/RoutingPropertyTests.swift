import Pipeline
import PipelineRouting
import Testing

/// The table as a few lines of dictionaries, from the routes that were let in.
private struct Model {
    var routes: [String: TestRoute] = [:]

    func named(_ name: String, _ port: UInt16) -> String? {
        let routes = routes.filter { !$0.value.raw }
        return PatternModel.order(name).lazy.compactMap { wanted in
            routes.values.first { $0.hostname == wanted && $0.port == port }?.id
        }.first
    }

    func sole(_ port: UInt16) -> String? {
        let there = routes.values.filter { $0.port == port }
        return there.count == 1 ? there.first?.id : nil
    }

    /// Whether `route` may stand beside all others: the rules again, by brute force.
    func admits(_ route: TestRoute) -> Bool {
        routes.values.allSatisfy { other in
            if other.id == route.id { return true }
            if route.port == other.port, route.raw || other.raw { return false }
            guard let name = route.hostname, let theirs = other.hostname else { return true }
            if name == theirs { return route.env == other.env && (route.port != other.port || route.raw || other.raw) }
            return route.env == other.env || !PatternModel.clash(name, theirs)
        }
    }
}

@Suite("Routes against a model")
struct RoutingPropertyTests {
    static let names = ["a", "b", "c"].flatMap { label in ["x.example.com", "example.com"].map { "\(label).\($0)" } }
    static let hosts =
        names + ["*.example.com", "*.x.example.com", ".example.com", ".x.example.com", ".a.x.example.com"]
    static let ports: [UInt16] = [443, 8443, 5432]

    private func randomRoute(_ id: Int, _ random: inout SplitMix64) -> TestRoute {
        let raw = Int.random(in: 0..<6, using: &random) == 0
        let host = RoutingPropertyTests.hosts.randomElement(using: &random)
        return TestRoute(
            id: "r\(id)", env: ["env_a", "env_b", "env_c"].randomElement(using: &random) ?? "env_a",
            hostname: raw && Bool.random(using: &random) ? nil : host,
            port: RoutingPropertyTests.ports.randomElement(using: &random) ?? 443, raw: raw,
            process: ["web", "api"].randomElement(using: &random) ?? "web")
    }

    @Test(
        "R4, R5, R8: thousands of random documents; only owners are served, and lookups equal the model",
        arguments: 0..<40)
    func random(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let state = RoutingState()
        var wanted: [TestRoute] = []
        var olderSnapshots: [(RouteTableSnapshot, Model)] = []
        for step in 0..<60 {
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                let route = randomRoute(Int.random(in: 0..<14, using: &random), &random)
                wanted.removeAll { $0.id == route.id }
                if Int.random(in: 0..<4, using: &random) > 0 {
                    wanted.insert(route, at: Int.random(in: 0...wanted.count, using: &random))
                }
            }
            let before = state.served
            let result = state.apply(wanted)
            let model = Model(routes: state.served)
            check(state, model, wanted, before: before, result.problems, "seed \(seed) step \(step)")
            olderSnapshots.append((state.snapshot, model))
            if olderSnapshots.count > 3 { olderSnapshots.removeFirst() }
            for (snapshot, model) in olderSnapshots { compare(snapshot, model, "seed \(seed) step \(step)") }
        }
    }

    private func check(
        _ state: RoutingState, _ model: Model, _ wanted: [TestRoute], before: [String: TestRoute],
        _ problems: [RouteProblem], _ run: Comment
    ) {
        let refused = Set(problems.filter { $0.severity == .rejected }.compactMap(\.id))
        #expect(state.snapshot.routeCount == model.routes.count, run)
        // No two that are served conflict.
        for route in model.routes.values { #expect(model.admits(route), run) }
        for want in wanted {
            let now = model.routes[want.id]
            if refused.contains(want.id) {
                // Refused: its last version stays, or none; and there was a reason.
                #expect(now == nil || now == before[want.id], run)
                #expect(
                    !(model.admits(want)
                        && wanted.allSatisfy { $0.id == want.id || Model(routes: [$0.id: $0]).admits(want) }), run)
            } else {
                #expect(now?.hostname == want.hostname && now?.env == want.env && now?.port == want.port, run)
            }
        }
        #expect(Set(model.routes.keys).isSubset(of: wanted.map(\.id)), run)
    }

    private func compare(_ snapshot: RouteTableSnapshot, _ model: Model, _ run: Comment) {
        for port in RoutingPropertyTests.ports {
            for name in RoutingPropertyTests.names + [
                "x.example.com", "d.x.example.com", "example.com", "a.b.c.d", "q.a.x.example.com", "e.d.x.example.com",
            ] {
                #expect(snapshot.named(name, port)?.pointee.id.string == model.named(name, port), run)
            }
            #expect(snapshot.sole(port)?.pointee.id.string == model.sole(port), run)
        }
    }

    @Test("R5: the order of documents can't smuggle a name: an env keeps it until it lets go", arguments: 0..<20)
    func noStealing(seed: UInt64) {
        var random = SplitMix64(seed: seed &+ 1000)
        let state = RoutingState()
        let held = TestRoute(id: "held", env: "env_a", hostname: "held.example.com")
        state.apply([held])
        for _ in 0..<50 {
            var routes = [held]
            for index in 0..<8 {
                var route = randomRoute(index, &random)
                route.env = "env_b"
                if !route.raw, Bool.random(using: &random) {
                    route.hostname = Bool.random(using: &random) ? "held.example.com" : "*.example.com"
                }
                routes.insert(route, at: Int.random(in: 0...routes.count, using: &random))
            }
            state.apply(routes)
            for port in RoutingPropertyTests.ports {
                let owner = state.snapshot.named("held.example.com", port)?.pointee.owner.pointee.env.string
                #expect(owner == nil || owner == "env_a", "seed \(seed)")
            }
            #expect(state.snapshot.named("held.example.com")?.pointee.id.string == "held", "seed \(seed)")
        }
    }
}

@Suite("Tables and their memory")
struct RouteTableTests {
    @Test("every block is freed: after applies of all kinds, with snapshots held and let go")
    func leaks() {
        var memory: RouteStore?
        var held: [RouteTableSnapshot] = []
        do {
            var random = SplitMix64(seed: 99)
            let state = RoutingState()
            memory = state.memory
            for step in 0..<40 {
                let count = Int.random(in: 0...600, using: &random)
                let routes = (0..<count).map {
                    TestRoute(
                        id: "r\($0)", env: "env_a", hostname: "h\($0 &+ step % 3).example.com",
                        process: "p\(Int.random(in: 0..<5, using: &random))")
                }
                let instances = (0..<Int.random(in: 0...8, using: &random)).map {
                    instance("i\($0)", process: "p\($0 % 5)", address: "fd00::\($0 + 1)")
                }
                state.apply(envs: ["env_a"] + (step % 2 == 0 ? ["env_b"] : []), instances: instances, routes)
                if step % 7 == 0 { held.append(state.snapshot) }
                if step % 11 == 0, !held.isEmpty { held.removeFirst() }
            }
            #expect(state.memory.liveBlocks > 0)
        }
        #expect(held.allSatisfy { $0.listing().count == $0.routeCount })
        held.removeAll()
        #expect(memory?.liveBlocks == 0)
    }

    @Test("a hundred thousand routes: each is found, none else, and a change copies its shard only")
    func large() throws {
        let count = 100_000
        let state = RoutingState()
        var routes = (0..<count).map { index in
            TestRoute(id: "rt_\(index)", env: "env_\(index % 1000)", hostname: "app-\(index).tenant.example.com")
        }
        let envs = (0..<1000).map { "env_\($0)" }
        #expect(state.apply(envs: envs, routes).problems.isEmpty)
        let first = state.snapshot
        for index in 0..<count {
            guard first.named("app-\(index).tenant.example.com")?.pointee.id.string == "rt_\(index)" else {
                Issue.record("app-\(index) is lost")
                return
            }
            guard first.named("app-\(index).tenant.example.org") == nil else {
                Issue.record("app-\(index) is found under another suffix")
                return
            }
        }
        routes[77_777].hostname = "moved.example.com"
        let report = try #require(state.apply(envs: envs, routes).report)
        #expect(report.changed == 1)
        #expect(report.unchanged == count - 1)
        #expect(report.shardsBuilt <= 2)
        #expect(report.shards > 256)
        #expect(first.named("app-77777.tenant.example.com")?.pointee.id.string == "rt_77777")
        #expect(state.snapshot.named("app-77777.tenant.example.com") == nil)
        #expect(state.snapshot.named("moved.example.com")?.pointee.id.string == "rt_77777")
        state.apply([])
        #expect(state.snapshot.routeCount == 0)
    }

    @Test("a name in another kind's place is not found: raw keys and suffixes are no names")
    func kinds() {
        let state = RoutingState()
        state.apply([
            TestRoute(id: "w", env: "env_a", hostname: "*.example.com"),
            TestRoute(id: "raw", env: "env_a", port: 24_930, raw: true),
        ])
        #expect(state.snapshot.named("example.com") == nil)
        #expect(state.snapshot.named("ab", 24_930) == nil, "24930 is \"ab\" as bytes")
    }
}
