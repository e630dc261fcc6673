import Pipeline
import PipelineLastGood
import PipelineRouting
import Testing

/// Whatever becomes of the process, and however what is wanted comes, a node serves what one serves that was never
/// stopped and always told everything.
@Suite("R5, R22, R23: last good")
struct LastGoodPropertyTests {
    static let envs = ["env_a", "env_b", "env_c"]
    private static let names = ["a.example.com", "b.example.com", "*.example.com", "c.x.example.com", ".x.example.com"]

    func one(in count: Int, _ random: inout SplitMix64) -> Bool {
        Int.random(in: 0..<count, using: &random) == 0
    }
    private func env(_ random: inout SplitMix64) -> String { Self.envs.randomElement(using: &random) ?? "env_a" }
    private func name(_ random: inout SplitMix64) -> String {
        Self.names.randomElement(using: &random) ?? "a.example.com"
    }

    func envText(_ id: String, _ random: inout SplitMix64) -> String {
        let ipv4 = one(in: 3, &random) ? "\"192.0.2.\(Int.random(in: 1...2, using: &random))\"" : "null"
        return "{\"env_id\":\"\(id)\",\"app_id\":\"app\",\"org_id\":\"org\",\"ipv4_address\":\(ipv4),"
            + "\"suspended\":\(one(in: 4, &random))}"
    }

    private func orgText(_ random: inout SplitMix64) -> String {
        let suspended = ["true", "false", "false", "7"].randomElement(using: &random) ?? "false"
        return "{\"org_id\":\"org\",\"suspended\":\(suspended)}"
    }

    private func routeText(_ id: String, _ random: inout SplitMix64) -> String {
        let isRaw = one(in: 5, &random)
        let bad = one(in: 10, &random) ? ",\"balance\":3" : ""
        return "{\"route_id\":\"\(id)\",\"env_id\":\"\(env(&random))\","
            + (isRaw ? "" : "\"hostname\":\"\(name(&random))\",")
            + "\"listen_port\":\([443, 8443, 5432].randomElement(using: &random) ?? 443),"
            + "\"protocol_hint\":\"\(isRaw ? "tcp_raw" : "tls_passthrough")\",\"backend_process_type\":\"web\","
            + "\"backend_port\":80\(bad)}"
    }

    private func instanceText(_ id: String, _ random: inout SplitMix64) -> String {
        let status = ["ready", "ready", "draining", "failed"].randomElement(using: &random) ?? "ready"
        return "{\"instance_id\":\"\(id)\",\"env_id\":\"\(env(&random))\",\"process_type\":\"web\","
            + "\"overlay_ipv6\":\"fd00::\(Int.random(in: 1...4, using: &random))\",\"node_id\":\"n1\",\"status\":\"\(status)\"}"
    }

    private func hostnameText(_ id: String, _ random: inout SplitMix64) -> String {
        let claimed = one(in: 2, &random) ? "null" : "\(Int.random(in: 1...3, using: &random))"
        return "{\"hostname\":\"\(id)\",\"env_id\":\"\(env(&random))\",\"claimed\":\(claimed)}"
    }

    func change(_ world: inout World, _ random: inout SplitMix64) {
        for _ in 0..<Int.random(in: 1...3, using: &random) {
            let id = "r\(Int.random(in: 0..<10, using: &random))"
            world.set(.route, id, one(in: 4, &random) ? nil : routeText(id, &random))
        }
        if one(in: 2, &random) {
            let id = "i\(Int.random(in: 0..<5, using: &random))"
            world.set(.instance, id, one(in: 4, &random) ? nil : instanceText(id, &random))
        }
        if one(in: 3, &random) {
            let id = name(&random)
            world.set(.hostname, id, one(in: 3, &random) ? nil : hostnameText(id, &random))
        }
        if one(in: 6, &random) {
            let id = env(&random)
            world.set(.env, id, one(in: 4, &random) ? nil : envText(id, &random))
        }
        if one(in: 6, &random) { world.set(.org, "org", one(in: 3, &random) ? nil : orgText(&random)) }
        world.revision += 1
    }

    func served(_ state: RoutingState) -> [String] {
        state.snapshot.listing().map { "\($0)" }.sorted() + ["\(state.suspended)"]
            + state.cooling(100).named.map { "\($0.address) \($0.last) \($0.waits) \($0.left.milliseconds)" }
    }

    @Test(
        "a node that is told by changes, killed and started serves what one does that is told everything",
        arguments: 0..<60)
    func restarts(seed: UInt64) throws {
        var random = SplitMix64(seed: seed &* 2741 &+ 9)
        let folder = Folder()
        let clock = TestClock()
        let keeper = try Keeper(folder.state) { clock.drive($0, ahead: UInt64.random(in: 0...1_000_000_000_000)) }
        let whole = RoutingState(seed: HashSeed(1, 2))
        whole.nodeName = "n1"
        clock.drive(whole)
        var world = World()
        for id in Self.envs { world.set(.env, id, envText(id, &random)) }
        for step in 0..<25 {
            clock.pass(UInt32.random(in: 0...25, using: &random))
            change(&world, &random)
            let isWhole = one(in: 4, &random)
            let isKilled = one(in: 4, &random)
            try keeper.take(isWhole ? world.document : world.change, applies: !isKilled)
            world.told()
            if isKilled || one(in: 4, &random) { try keeper.restart() }
            keeper.endCooldowns()
            let (document, _) = StateDocument.parse(world.document, seed: HashSeed(1, 2))
            for _ in 0..<5 { _ = whole.apply(try #require(document)) }
            let run: Comment = "seed \(seed), step \(step), whole \(isWhole), killed \(isKilled): \(world.document)"
            guard served(keeper.routing) == served(whole) else {
                #expect(served(keeper.routing) == served(whole), run)
                return
            }
            #expect(keeper.state?.last?.revision == UInt64(world.revision))
            #expect(keeper.state?.count(.route) == (world.objects[.route] ?? [:]).count)
        }
    }
}
