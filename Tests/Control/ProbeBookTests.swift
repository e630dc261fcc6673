import FilterBackendSelect
import Pipeline
import PipelineLanguage
import PipelineNode
import PipelineRouting
import Testing

@testable import PipelineHealth

/// Targets follow the table by what changes in it. A walk over every route, which knows nothing of that, must find the same.
@Suite("R12, R18: targets by changes")
struct ProbeBookTests {
    private static let config = """
        node test {
            workers   1
            cooldown  0s
        }
        health a {
            probe   tcp
            on_up   end_backup
        }
        health b {
            probe     tls
            interval  7s
        }
        health own {
            probe  expect "220"
        }
        health quiet {
            probe  off
        }
        pipeline one {
            sni  timeout 3s
            backend round_robin, health a
            proxy_v2
        }
        pipeline two {
            sni  timeout 3s
            backend round_robin, health b, source 192.0.2.7
            proxy_v2
        }
        pipeline three {
            backend round_robin, health quiet
        }
        listen [::]:443   tls_passthrough  via one
        listen [::]:8443  tls_passthrough  via two
        listen [::]:5432  tcp_raw          via three
        """

    private struct Route {
        var port = 443
        var env = 0
        var process = "web"
        var more = ""
        var isRaw: Bool { port == 5432 }
    }
    private struct Instance {
        var env = 0
        var process = "web"
        var address = 1
        var status = "ready"
        var priority = 0
    }

    private struct World {
        var routes: [Int: Route] = [:]
        var instances: [Int: Instance] = [:]

        func document(_ envs: Int) -> String {
            let envs = (0..<envs).map { "{\"env_id\":\"e\($0)\",\"app_id\":\"app\",\"org_id\":\"org\"}" }
            let instances = instances.sorted { $0.key < $1.key }.map { id, it in
                "{\"instance_id\":\"i\(id)\",\"env_id\":\"e\(it.env)\",\"process_type\":\"\(it.process)\","
                    + "\"overlay_ipv6\":\"fd00::\(it.address)\",\"node_id\":\"n\",\"status\":\"\(it.status)\","
                    + "\"priority\":\(it.priority),\"drain_grace_seconds\":1}"
            }
            let routes = routes.sorted { $0.key < $1.key }.map { id, it in
                "{\"route_id\":\"r\(id)\",\"env_id\":\"e\(it.env)\",\"listen_port\":\(it.port),"
                    + (it.isRaw ? "" : "\"hostname\":\"h\(id).test\",")
                    + "\"protocol_hint\":\"\(it.isRaw ? "tcp_raw" : "tls_passthrough")\","
                    + "\"backend_process_type\":\"\(it.process)\",\"backend_port\":80\(it.more)}"
            }
            return "{\"format\":\"pipelined.state/1\",\"envs\":[\(envs.joined(separator: ","))],"
                + "\"instances\":[\(instances.joined(separator: ","))],\"routes\":[\(routes.joined(separator: ","))]}"
        }

        mutating func change(_ random: inout SplitMix64) {
            for _ in 0..<Int.random(in: 0...2, using: &random) {
                let id = Int.random(in: 0..<12, using: &random)
                routes[id] = Int.random(in: 0..<4, using: &random) == 0 ? nil : World.route(&random)
            }
            for _ in 0..<Int.random(in: 0...2, using: &random) {
                let id = Int.random(in: 0..<8, using: &random)
                instances[id] =
                    Int.random(in: 0..<4, using: &random) == 0
                    ? nil
                    : Instance(
                        env: Int.random(in: 0..<3, using: &random),
                        process: ["web", "web", "api"].randomElement(using: &random) ?? "web",
                        address: Int.random(in: 1...6, using: &random),
                        status: ["ready", "ready", "ready", "draining", "failed"].randomElement(using: &random)
                            ?? "ready",
                        priority: Int.random(in: 0...1, using: &random))
            }
        }

        private static func route(_ random: inout SplitMix64) -> Route {
            let both = ",\"proxy_protocol\":\"v2\",\"backend_expects_proxy_protocol\":true"
            // The last one is refused at each connection (R16).
            let words = ["", "", both, ",\"health\":\"own\"", ",\"health\":\"quiet\"", ",\"proxy_protocol\":\"v2\""]
            return Route(
                port: [443, 443, 8443, 5432].randomElement(using: &random) ?? 443,
                env: Int.random(in: 0..<3, using: &random),
                process: ["web", "web", "api"].randomElement(using: &random) ?? "web",
                more: words.randomElement(using: &random) ?? "")
        }
    }

    /// What the walk finds of a target.
    private struct Found: Equatable {
        var block: String
        var source: String
        var routes: Int
        var envs: Set<String>
        var backups: Set<String>

        init(_ target: ProbeTarget) {
            block = target.settings.name
            source = target.sourceText
            routes = target.routes.count
            envs = Set(target.routes.envs.map(\.path))
            backups = Set(target.backups.map { "\($0.pointee.endpoint)" })
        }

        init(_ uses: [Use], primaries: Set<String>) {
            let first = uses.min { ($0.rank, $0.block, $0.source) < ($1.rank, $1.block, $1.source) } ?? uses[0]
            (block, source) = (first.block, first.source)
            routes = uses.count
            envs = Set(uses.map(\.env))
            backups = Set(uses.flatMap(\.backups)).subtracting(primaries)
        }
    }

    /// A route, of those that lead to a target.
    private struct Use {
        let rank: Int
        let block: String
        let source: String
        let env: String
        let backups: Set<String>
    }

    /// By the config above.
    private func probing(_ route: FoundRoute) -> (rank: Int, block: String, source: String)? {
        let source = route.pointee.port == 8443 ? "192.0.2.7" : ""
        if let health = route.group.pointee.health {
            return health.pointee.name == "own" ? (-1, "own", source) : nil
        }
        switch route.pointee.port {
        case 443: return (0, "a", source)
        case 8443: return (1, "b", source)
        default: return nil
        }
    }

    private func walk(_ table: RouteTableSnapshot) -> [ProbeTarget.Key: Found] {
        var uses: [ProbeTarget.Key: [Use]] = [:]
        var primaries: Set<String> = []
        func add(_ route: FoundRoute) {
            guard !route.pointee.flags.contains(.proxyMismatch), let probing = probing(route) else { return }
            let backends = route.backends.buffer
            let least = backends.map(\.priority).min()
            for backend in backends {
                let endpoint = backend.address.endpoint
                if backend.priority == least { primaries.insert("\(endpoint)") }
                let key = ProbeTarget.Key(
                    endpoint: endpoint, usesProxy: route.pointee.flags.contains(.proxyHeader))
                let behind = backends.filter { $0.priority > backend.priority }.map { "\($0.address.endpoint)" }
                uses[key, default: []].append(
                    Use(
                        rank: probing.rank, block: probing.block, source: probing.source,
                        env: route.pointee.owner.pointee.name.path, backups: probing.block == "a" ? Set(behind) : []))
            }
        }
        for part in 0..<table.partCount { table.visit(part: part) { route, _ in add(route) } }
        return uses.mapValues { Found($0, primaries: primaries) }
    }

    @Test("after each of random changes the targets are those that a walk over all routes finds", arguments: 0..<60)
    func equal(seed: UInt64) throws {
        var random = SplitMix64(seed: seed &* 7919 &+ 11)
        let program = try #require(Fixture.load(Self.config).node?.program)
        let state = RoutingState(seed: HashSeed(1, 2))
        ListenerPlan.prepare(state, for: program)
        var (world, book, table) = (World(), ProbeBook(), ProbeTable(seed: seed))
        var put = 0
        for step in 0..<40 {
            world.change(&random)
            let (document, _) = StateDocument.parse(world.document(3), seed: HashSeed(1, 2))
            _ = state.apply(try #require(document))
            // Followers are told of several changes at once.
            if Int.random(in: 0..<3, using: &random) == 0 { continue }
            let change = book.follow(program, state, state.takeNews())
            if case .some(let some, _) = change.kind { put += some.count }
            table.apply(change, now: Instant(nanoseconds: UInt64(step) * 1_000_000_000))
            while let next = table.begin(Instant(nanoseconds: UInt64(step) * 1_000_000_000)) {
                _ = table.finish(next.identity, .init(.good), now: Instant(nanoseconds: UInt64(step) * 1_000_000_000))
            }
            let targets = Dictionary(
                table.entries.values.map { ($0.target.key, $0.target) }, uniquingKeysWith: { first, _ in first })
            #expect(targets.count == table.entries.count)
            let expected = walk(state.snapshot)
            let found = targets.mapValues { Found($0) }
            guard found == expected else {
                Issue.record("seed \(seed), step \(step): \(found)\nby a walk: \(expected)\n\(world.document(3))")
                return
            }
            for target in targets.values {
                #expect(target.cell.pointee.endpoint == target.key.endpoint)
                #expect((1...RouteSample.limit).contains(target.routes.ids.count))
            }
            for (key, target) in targets {
                let other = targets[ProbeTarget.Key(endpoint: key.endpoint, usesProxy: !key.usesProxy)]
                let entry = table.entries.values.first { $0.target.key == target.key }
                #expect((entry?.sibling != nil) == (other != nil), "seed \(seed), step \(step): \(key)")
            }
            // Nothing is asked twice.
            let again = book.follow(program, state, state.takeNews())
            #expect(again.isEmpty)
        }
        #expect(put > 0)
    }

    @Test("a change of one instance is one target, whatever the number of groups and routes")
    func one() throws {
        let program = try #require(Fixture.load(Self.config).node?.program)
        let state = RoutingState(seed: HashSeed(1, 2))
        ListenerPlan.prepare(state, for: program)
        var (world, book) = (World(), ProbeBook())
        for number in 0..<500 {
            world.routes[number] = Route(env: number % 50)
            if number < 50 { world.instances[number] = Instance(env: number, address: number + 1) }
        }
        func apply() throws {
            let (document, _) = StateDocument.parse(world.document(50), seed: HashSeed(1, 2))
            _ = state.apply(try #require(document))
        }
        try apply()
        guard case .all(let all) = book.follow(program, state, state.takeNews()).kind else {
            Issue.record("the first is not whole")
            return
        }
        #expect(all.count == 50)
        world.instances[7]?.status = "failed"
        try apply()
        guard case .some(let put, let removed) = book.follow(program, state, state.takeNews()).kind else {
            Issue.record("a change is whole")
            return
        }
        #expect(put.isEmpty && removed.map { "\($0.endpoint)" } == ["[fd00::8]:80"])
        world.instances[7]?.status = "ready"
        try apply()
        guard case .some(let back, let none) = book.follow(program, state, state.takeNews()).kind else { return }
        #expect(back.map { "\($0.key.endpoint)" } == ["[fd00::8]:80"] && none.isEmpty)
    }

    @Test("R27: what goes before its time leaves nothing in the queues that grows")
    func flapping() {
        let cell = UnsafeMutablePointer<BackendCell>.allocate(capacity: 1)
        let endpoint = Endpoint(.unspecified, 80)
        cell.initialize(to: BackendCell(endpoint))
        defer {
            cell.deinitialize(count: 1)
            cell.deallocate()
        }
        let target = ProbeTarget(
            key: .init(endpoint: endpoint, usesProxy: false), cell: cell,
            settings: HealthStateTests.settings(interval: .seconds(3600), jitter: 0), instance: "i")
        var table = ProbeTable(seed: 1)
        for round in 0..<20_000 {
            let kind: ProbeChange.Kind =
                round % 2 == 0 ? .some(put: [target], removed: []) : .some(put: [], removed: [target.key])
            table.apply(ProbeChange(kind), now: Instant(nanoseconds: 1))
            #expect(table.queued <= 2 * 1024)
        }
    }
}
