import CLinux
import Glibc
import Pipeline
import PipelineRouting
import TestSupport
import Testing

@testable import PipelineLastGood
@testable import PipelineState

/// A start from a table is one from texts, only quicker (ADR 0116).
@Suite("R4, R5, R22, R23, R31: a table that is served where it lies")
struct MappedTableTests {
    private let histories = LastGoodPropertyTests()
    private static let names = (0..<40).map { "n\($0).example.com" } + ["a.example.com", "b.example.com"]

    /// Mostly plain, some of them with what a table can't have, and some for names that others have.
    private func routeText(_ id: String, _ random: inout SplitMix64) -> String {
        let env = LastGoodPropertyTests.envs.randomElement(using: &random) ?? "env_a"
        let more = [
            "", "", "", "", ",\"balance\":\"consistent_hash\"", ",\"on_delete\":\"kill\"", ",\"max_connections\":7",
            ",\"allow_non_tls\":true", ",\"idle_timeout_seconds\":9", ",\"proxy_protocol\":\"v2\"",
            ",\"proxy_protocol\":\"v2\",\"backend_expects_proxy_protocol\":true", ",\"ipv4_required\":true",
            ",\"when_alpn\":\"h2\"", ",\"balance\":3",
        ]
        return "{\"route_id\":\"\(id)\",\"env_id\":\"\(env)\","
            + "\"hostname\":\"\(Self.names.randomElement(using: &random) ?? "a.example.com")\","
            + "\"listen_port\":\([443, 443, 443, 8443].randomElement(using: &random) ?? 443),"
            + "\"protocol_hint\":\"tls_passthrough\",\"backend_process_type\":\"web\","
            + "\"backend_port\":\([80, 81].randomElement(using: &random) ?? 80)"
            + "\(more.randomElement(using: &random) ?? "")}"
    }

    private func change(_ world: inout World, _ random: inout SplitMix64) {
        for _ in 0..<Int.random(in: 1...6, using: &random) {
            let id = "p\(Int.random(in: 0..<60, using: &random))"
            world.set(.route, id, histories.one(in: 5, &random) ? nil : routeText(id, &random))
        }
        histories.change(&world, &random)
    }

    /// What a start from texts makes of a directory.
    private func fromTexts(_ directory: String, _ prepare: (RoutingState) -> Void) throws -> (RoutingState, [String]) {
        let kept = try LastGood.look(at: directory).state
        let routing = RoutingState(seed: kept.seed)
        routing.nodeName = "n1"
        prepare(routing)
        let report = kept.restore(routing)
        return (routing, report.problems.list.map(\.description).sorted() + ["\(report.cooling)"])
    }

    @Test(
        "random histories with kills and changes behind them: from a table as from texts, and as without a restart",
        arguments: 0..<60)
    func histories(seed: UInt64) throws {
        var random = SplitMix64(seed: seed &* 7919 &+ 5)
        let folder = Folder()
        let clock = TestClock()
        let keeper = try Keeper(folder.state, tables: 1) { clock.drive($0) }
        let whole = RoutingState(seed: HashSeed(1, 2))
        whole.nodeName = "n1"
        clock.drive(whole)
        var world = World()
        for id in LastGoodPropertyTests.envs { world.set(.env, id, histories.envText(id, &random)) }
        for number in 0..<40 { world.set(.route, "p\(number)", routeText("p\(number)", &random)) }
        var (mapped, starts) = (0, 0)
        var notices: [StateNotice] = []
        for step in 0..<25 {
            clock.pass(UInt32.random(in: 0...25, using: &random))
            change(&world, &random)
            let isKilled = histories.one(in: 4, &random)
            let isWhole = histories.one(in: 5, &random)
            try keeper.take(isWhole ? world.document : world.change, applies: !isKilled)
            world.told()
            if histories.one(in: 3, &random) { try keeper.writeTable(withCompaction: histories.one(in: 2, &random)) }
            if isKilled || histories.one(in: 3, &random) {
                let (texts, said) = try fromTexts(folder.state) { clock.drive($0) }
                let hasTable = keeper.state?.store.hasDerived ?? false
                try keeper.restart()
                starts += hasTable ? 1 : 0
                mapped += keeper.routing.mappedRoutes > 0 ? 1 : 0
                notices += keeper.state?.takeNotices() ?? []
                let run: Comment = "seed \(seed), step \(step), killed \(isKilled)"
                #expect(keeper.said == said, run)
                #expect(look(keeper.routing) == look(texts), run)
            }
            keeper.endCooldowns()
            let (document, _) = StateDocument.parse(world.document, seed: HashSeed(1, 2))
            for _ in 0..<5 { _ = whole.apply(try #require(document)) }
            guard histories.served(keeper.routing) == histories.served(whole) else {
                #expect(
                    histories.served(keeper.routing) == histories.served(whole),
                    "seed \(seed), step \(step), whole \(isWhole), killed \(isKilled): \(world.document)")
                return
            }
        }
        #expect(mapped > 0 || starts < 20, "seed \(seed): \(notices)")
    }

    /// All that others see of a state: routes, owners and backends, by walks and by lookups, and what follows groups.
    private func look(_ state: RoutingState) -> [String] {
        var lines = histories.served(state)
        for route in state.snapshot.listing() {
            guard let hostname = route.hostname, route.hint == .tlsPassthrough, hostname.first != "*" else { continue }
            let destination = DestinationAddress(Endpoint(IPAddress("2001:db8::1") ?? .unspecified, route.port))
            var name = ServerName()
            _ = Array(hostname.utf8).withUnsafeBufferPointer { name.set(wire: $0) }
            guard let found = state.snapshot.handle.named(name, at: destination) else {
                lines.append("\(hostname) is not found")
                continue
            }
            let it = found.pointee
            lines.append(
                "\(hostname) \(it.id.string) \(it.owner.pointee.name.path) \(it.port) \(it.flags.rawValue) "
                    + "\(it.maxConnections) \(it.balance.map { "\($0)" } ?? "-") "
                    + found.backends.buffer.map { $0.address.endpoint.description }.joined(separator: ","))
        }
        state.visitGroups { number in
            guard let group = state.servedGroup(number) else { return }
            var routes: [String] = []
            state.visitRoutes(of: number) { routes.append($0.pointee.id.string) }
            let uses = group.uses.map { "\($0.use.port) \($0.use.flags.rawValue) \($0.single)" }.sorted()
            let backends = group.group.pointee.backends.buffer.map { $0.address.endpoint.description }
            lines.append(
                "\(group.owner) \(group.isSuspended) \(routes.sorted()) \(uses) \(backends) \(group.someRoutes(1000).count)"
            )
        }
        for hint in ProtocolHint.allCases { lines.append("\(state.snapshot.ports(hint))") }
        lines.append("\(state.dedicatedListeners) \(state.backendNames.count)")
        return lines.sorted()
    }

    // MARK: Groups of updates

    @Test("no table and no snapshot is written while a group is durable and not in force", arguments: 0..<20)
    func groups(seed: UInt64) throws {
        var random = SplitMix64(seed: seed &* 31 &+ 7)
        let folder = Folder()
        let keeper = try Keeper(folder.state, tables: 1)
        var world = World()
        for id in LastGoodPropertyTests.envs { world.set(.env, id, histories.envText(id, &random)) }
        for number in 0..<40 { world.set(.route, "p\(number)", routeText("p\(number)", &random)) }
        try keeper.take(world.document)
        world.told()
        for step in 0..<6 {
            var texts: [String] = []
            for _ in 0..<4 {
                change(&world, &random)
                texts.append(world.change)
                world.told()
            }
            let isKilled = step % 3 == 2
            _ = try keeper.takeGroup(texts, applies: !isKilled) { state in
                state.store.wantsCopy = true
                _ = state.tidy(keeper.routing)
                #expect(!state.isTidying, "behind")
            }
            if !isKilled { try keeper.writeTable(withCompaction: step % 2 == 0) }
            if isKilled || step % 2 == 1 {
                let (texts, said) = try fromTexts(folder.state) { _ in }
                try keeper.restart()
                #expect(keeper.said == said, "seed \(seed), step \(step)")
                #expect(look(keeper.routing) == look(texts), "seed \(seed), step \(step)")
                #expect(keeper.state?.count(.route) == (world.objects[.route] ?? [:]).count)
            }
        }
    }
}
