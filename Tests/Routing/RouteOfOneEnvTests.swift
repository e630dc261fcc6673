import Pipeline
import PipelineRouting
import Testing

@Suite("One id is one route, of one env")
struct RouteOfOneEnvTests {
    private let state = RoutingState()
    private let old = TestRoute(id: "r", env: "env_a", hostname: "a.example.com")
    private let mismatched = TestRoute(
        id: "r", env: "env_b", hostname: "b.example.com", extra: ", \"proxy_protocol\": \"v2\"")

    private func ids() -> [String] {
        var found: [String] = []
        state.snapshot.forEachRoute { found.append("\($0.id) \($0.hostname ?? "")") }
        return found.sorted()
    }

    private func apply(_ envs: [String], _ addresses: [(env: String, address: String)], _ routes: [TestRoute])
        -> ApplyReport?
    {
        state.applyText(
            documentText(
                envObjects: envs.map { envObject($0) },
                instances: addresses.map { instance("i\($0.address)", env: $0.env, address: $0.address) },
                routes: routes.map(\.json), hostnames: [])
        ).report
    }

    @Test(
        "R16: a route that changes into one that refuses leaves nothing of what it was, and every change after it ends")
    func mismatchedMove() {
        for (first, second) in [
            (old, mismatched),
            (old, TestRoute(id: "r", env: "env_a", hostname: "c.example.com", extra: mismatched.extra)),
        ] {
            _ = apply(["env_a", "env_b"], [("env_a", "fd00::1"), ("env_b", "fd00::2")], [first])
            let report = apply(["env_a", "env_b"], [("env_a", "fd00::1"), ("env_b", "fd00::2")], [second])
            #expect(ids() == ["r \(second.hostname ?? "")"] && state.snapshot.routeCount == 1)
            #expect(report?.kept == 0)
            #expect(state.snapshot.named("a.example.com") == nil)
            _ = apply(["env_b", second.env], [("env_b", "fd00::2")], [second])
            // Once this ran for ever: the route stood twice in the list of its group.
            _ = apply(["env_b", second.env], [("env_b", "fd00::2"), (second.env, "fd00::3")], [second])
            #expect(ids() == ["r \(second.hostname ?? "")"])
            _ = apply(["env_b"], [], [])
            #expect(ids().isEmpty && state.snapshot.routeCount == 0)
        }
    }

    @Test("R24: a changed route is not one that was kept as it was")
    func changedIsNotKept() {
        _ = apply(["env_a"], [], [old])
        let report = apply(["env_a"], [], [TestRoute(id: "r", env: "env_a", hostname: "b.example.com")])
        #expect(report?.kept == 0 && report?.changed == 1)
    }

    @Test("a route that moves to another env is a new one: no count, limit or connection of the old one is its own")
    func moved() throws {
        var held = old
        held.extra = ", \"max_connections\": 3, \"on_delete\": \"kill\""
        _ = apply(["env_a", "env_b"], [], [held])
        let cell = try #require(state.snapshot.named("a.example.com")).pointee.cell
        cell.pointee.active.add()
        cell.pointee.users.add()
        held.env = "env_b"
        let report = apply(["env_a", "env_b"], [], [held])
        let fresh = try #require(state.snapshot.named("a.example.com")).pointee
        #expect(fresh.cell != cell && fresh.cell.pointee.active.current == 0 && fresh.id.string == "r")
        #expect(report?.added == 1 && report?.removed == 1 && report?.changed == 0)
        #expect(report?.drains.map(\.name) == ["r"])
        #expect(ids() == ["r a.example.com"] && state.snapshot.routeCount == 1)
        cell.pointee.active.remove()
        cell.pointee.users.remove()
        // And back: again another one.
        held.env = "env_a"
        _ = apply(["env_a", "env_b"], [], [held])
        #expect(ids() == ["r a.example.com"] && state.served["r"]?.env == "env_a")
        _ = apply(["env_a", "env_b"], [], [])
        state.freeUnpinned()
        #expect(ids().isEmpty)
    }

    @Test("R31: an address of somebody whose env is not there is nobody else's, and is not given out by chance later")
    func strangers() {
        let routes = [
            TestRoute(id: "ra", env: "env_a", hostname: "a.example.com"),
            TestRoute(id: "rb", env: "env_b", hostname: "b.example.com"),
        ]
        func backends(_ state: RoutingState) -> [Int] {
            ["a.example.com", "b.example.com"].map { state.snapshot.named($0)?.backends.count ?? 0 }
        }
        func text(_ envs: [String], _ instances: [String]) -> String {
            documentText(
                envObjects: envs.map { envObject($0) }, instances: instances, routes: routes.map(\.json), hostnames: [])
        }
        let (one, two) = (
            instance("i1", env: "env_a", address: "fd00::1"), instance("i2", env: "env_b", address: "fd00::1")
        )
        for turn in 0..<16 {
            let instances = turn % 2 == 0 ? [one, two] : [two, one]
            // Never known before: nobody's.
            let state = RoutingState()
            state.applyText(text([], instances))
            state.applyText(text(["env_a", "env_b"], instances))
            #expect(backends(state) == [0, 0])
            // The one's whose env is missing for a while.
            let held = RoutingState()
            held.applyText(text(["env_a", "env_b"], [one]))
            held.applyText(text(["env_b"], instances))
            #expect(backends(held) == [0, 0])
            held.applyText(text([], instances))
            held.applyText(text(["env_a", "env_b"], instances))
            #expect(backends(held) == [1, 0])
        }
    }

    @Test("R5: an entry that reads as the id of one env and as the path of another gives the name to neither")
    func entryOfTwo() throws {
        let spec = RouteSpec(
            index: 0, id: "block", org: "acme", app: "shop", env: "prod", hostname: "a.example.com", port: 443,
            hint: .tlsPassthrough, backends: [BackendSpec(try #require(Endpoint("[fd00::10]:8443")))])
        let config = StateDocument.config([spec], seed: testSeed).document
        let entry = TestHostname("a.example.com", "acme/shop/prod", 1)
        let evil = TestRoute(id: "evil", env: "acme/shop/prod", hostname: "a.example.com")
        let text = documentText(
            envObjects: [envObject("acme/shop/prod")], routes: [evil.json], hostnames: [entry.json])
        let both = try #require(StateDocument.parse(text, seed: testSeed).document)
        let fresh = RoutingState()
        let problems = fresh.apply(together: [config, both]).problems.list
        #expect(fresh.served.isEmpty)
        #expect(
            problems.contains { $0.object == .hostname && $0.problem.contains("is ambiguous") })
        // Who had it keeps it.
        let only = documentText(envObjects: [], routes: [], hostnames: [entry.json])
        _ = state.apply(together: [config, try #require(StateDocument.parse(only, seed: testSeed).document)])
        #expect(state.served.keys.sorted() == ["block"])
        _ = state.apply(together: [config, both])
        #expect(state.served.keys.sorted() == ["block"])
    }
}
