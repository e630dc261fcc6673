import Pipeline
import PipelineRouting
import Testing

@Suite("Ownership, proven by play")
struct OwnershipPropertyTests {
    private static let envs = ["env_a", "env_b", "env_c", "env_d"]
    private static let names = [
        "a.example.com", "b.example.com", "a.x.example.com", "x.example.com", "b.x.example.com",
    ]
    private static let wildcards = [
        "*.example.com", "*.x.example.com", ".example.com", ".x.example.com", ".b.x.example.com",
    ]
    private static let pool =
        names + ["z.example.com", "z.x.example.com", "q.a.example.com", "q.b.x.example.com", "example.com"]
    private static let ports: [UInt16] = [443, 8443, 5432]

    private func host(_ random: inout SplitMix64) -> String {
        let isWildcard = Int.random(in: 0..<4, using: &random) == 0
        return (isWildcard ? Self.wildcards : Self.names).randomElement(using: &random) ?? "a.example.com"
    }

    private func env(_ random: inout SplitMix64) -> String { Self.envs.randomElement(using: &random) ?? "env_a" }

    private func route(_ random: inout SplitMix64, named: Bool = false) -> TestRoute {
        let raw = !named && Int.random(in: 0..<5, using: &random) == 0
        let isNamed = !raw || Bool.random(using: &random)
        return TestRoute(
            id: "r\(Int.random(in: 0..<14, using: &random))", env: env(&random),
            hostname: isNamed ? host(&random) : nil, port: Self.ports.randomElement(using: &random) ?? 443, raw: raw)
    }

    private func entry(_ random: inout SplitMix64) -> TestHostname {
        TestHostname(
            host(&random), env(&random),
            Bool.random(using: &random) ? Int.random(in: 1...4, using: &random) : nil)
    }

    /// What each name and each raw port reaches: who owns it.
    private func owners(_ state: RoutingState) -> [String: String] {
        var found: [String: String] = [:]
        for port in Self.ports {
            for name in Self.pool {
                found["\(name):\(port)"] = state.snapshot.named(name, port)?.pointee.owner.pointee.env.string
            }
            if let sole = state.snapshot.sole(port), sole.pointee.flags.contains(.raw) {
                found["raw:\(port)"] = sole.pointee.owner.pointee.env.string
            }
        }
        return found
    }

    /// Whose a name is, at whichever port.
    private func nameOwners(_ state: RoutingState) -> [String: Set<String>] {
        var found: [String: Set<String>] = [:]
        for route in state.served.values {
            if let name = route.hostname { found[name, default: []].insert(route.env) }
        }
        return found
    }

    private struct World {
        var routes: [TestRoute] = []
        var entries: [TestHostname] = []
    }

    private func change(_ world: inout World, _ random: inout SplitMix64, entries: Bool) {
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            let new = route(&random)
            world.routes.removeAll { $0.id == new.id }
            if Int.random(in: 0..<4, using: &random) > 0 { world.routes.append(new) }
        }
        guard entries else { return }
        for _ in 0..<Int.random(in: 0...2, using: &random) {
            let new = entry(&random)
            world.entries.removeAll { $0.hostname == new.hostname && Bool.random(using: &random) }
            if Int.random(in: 0..<3, using: &random) > 0, !world.entries.contains(new) { world.entries.append(new) }
        }
    }

    private func apply(_ world: World, to state: RoutingState, _ random: inout SplitMix64) -> [RouteProblem] {
        state.apply(
            envs: Self.envs.shuffled(using: &random), world.routes.shuffled(using: &random),
            hostnames: world.entries.shuffled(using: &random)
        ).problems
    }

    @Test(
        "R4, R5, R8: whatever comes in whichever order, the same is served and said, and a restart gives a name to nobody else",
        arguments: 0..<200)
    func model(seed: UInt64) {
        var random = SplitMix64(seed: seed &* 7919 &+ 3)
        let (state, other) = (RoutingState(), RoutingState())
        var world = World()
        var last: [String: TestRoute] = [:]
        var lastOwners: [String: String] = [:]
        for step in 0..<25 {
            change(&world, &random, entries: seed % 3 > 0)
            let run: Comment = "seed \(seed), step \(step): \(world)"
            let model = OwnershipModel(
                entries: world.entries, routes: world.routes, last: last, lastOwners: lastOwners)
            let before = (state.snapshot, state.served)
            let problems = apply(world, to: state, &random)
            #expect(texts(apply(world, to: other, &random)) == texts(problems), run)
            #expect(other.served == state.served, run)
            #expect(state.served == model.solve(), run)
            for (name, owners) in nameOwners(state) { #expect(owners.count == 1, "\(name): \(run)") }
            // Whoever is left out is told so.
            for route in world.routes where state.served[route.id] != route {
                #expect(isRejected(problems, route.id), "\(route.id): \(run)")
            }
            restart(world, state, &random, run)
            #expect(Set(before.0.listing().map(\.id)) == Set(before.1.keys), "R22: the table before is as it was")
            last = state.served
            lastOwners = Dictionary(
                model.solveEntries().filter { $0.state == .isIn }.map { ($0.entry.hostname, $0.entry.env) },
                uniquingKeysWith: { first, _ in first })
        }
    }

    private func restart(_ world: World, _ state: RoutingState, _ random: inout SplitMix64, _ run: Comment) {
        let (fresh, again) = (RoutingState(), RoutingState())
        let problems = apply(world, to: fresh, &random)
        #expect(texts(apply(world, to: again, &random)) == texts(problems), run)
        #expect(again.served == fresh.served, run)
        let now = owners(state)
        for (place, owner) in owners(fresh) { #expect(now[place] == owner || now[place] == nil, "\(place): \(run)") }
        let names = nameOwners(state)
        for (name, owner) in nameOwners(fresh) {
            #expect(names[name] == nil || names[name] == owner, "\(name): \(run)")
        }
    }

    @Test("R5: an env that has a name by an entry keeps it, whatever routes others bring", arguments: 0..<40)
    func entryHolds(seed: UInt64) {
        var random = SplitMix64(seed: seed &* 104_729 &+ 11)
        let state = RoutingState()
        let held = TestRoute(id: "held", env: "env_a", hostname: "held.example.com")
        let entry = TestHostname("held.example.com", "env_a", 7)
        for _ in 0..<20 {
            var world = World(routes: [], entries: [entry])
            for index in 0..<8 {
                var new = route(&random, named: true)
                new.id = "r\(index)"
                new.env = "env_b"
                if Bool.random(using: &random) {
                    new.hostname = Bool.random(using: &random) ? "held.example.com" : "*.example.com"
                }
                world.routes.append(new)
            }
            let isThere = Bool.random(using: &random)
            if isThere { world.routes.append(held) }
            _ = apply(world, to: state, &random)
            for port in Self.ports {
                let owner = state.snapshot.named("held.example.com", port)?.pointee.owner.pointee.env.string
                #expect(owner == nil || owner == "env_a", "seed \(seed)")
            }
            #expect(state.snapshot.named("held.example.com")?.pointee.id.string == (isThere ? "held" : nil))
        }
    }
}
