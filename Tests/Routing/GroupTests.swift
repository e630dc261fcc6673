import Pipeline
import PipelineRouting
import Testing

/// What the routes of one group share: turns, counts, limits (R11, R27).
@Suite("Groups of backends")
struct GroupTests {
    let state = RoutingState()

    private func spec(
        _ id: String, _ host: String, env: String = "prod", _ backends: [String], group: String? = "web"
    ) throws -> RouteSpec {
        let list = try backends.map { BackendSpec(try #require(Endpoint($0))) }
        var spec = RouteSpec(
            index: 0, id: id, org: "acme", app: "shop", env: env, hostname: host, port: 443, hint: .tlsPassthrough,
            backends: list)
        spec.group = group
        return spec
    }

    /// With the blocks that routes name: each has the addresses of the route.
    private func apply(_ specs: [RouteSpec], limit: UInt32 = 0) {
        let groups = Dictionary(
            specs.compactMap { spec in
                spec.group.map { ($0, GroupSpec(name: $0, backends: spec.backends, maxConnections: limit)) }
            }, uniquingKeysWith: { first, _ in first })
        let (document, problems) = StateDocument.config(specs, groups: Array(groups.values), seed: testSeed)
        #expect(problems.isEmpty)
        #expect(state.apply(document).problems.isEmpty)
    }

    private func group(_ host: String) throws -> BackendGroup {
        try #require(state.snapshot.named(host)).group.pointee
    }

    private func turn(_ host: String) throws -> UInt64 { try group(host).cell.pointee.cursor.load(ordering: .relaxed) }

    private func take(_ turns: UInt64, _ host: String) throws {
        try group(host).cell.pointee.cursor.add(turns, ordering: .relaxed)
    }

    @Test("R11: routes of one `backends` block take turns together, whatever their env")
    func shared() throws {
        let two = ["[fd00::1]:80", "[fd00::2]:80"]
        apply([
            try spec("r1", "a.example.com", two), try spec("r2", "b.example.com", two),
            try spec("r3", "c.example.com", env: "test", two), try spec("r4", "d.example.com", two, group: "api"),
            try spec("r5", "e.example.com", two, group: nil),
        ])
        try take(3, "a.example.com")
        #expect(try turn("b.example.com") == 3)
        #expect(try turn("c.example.com") == 3)
        #expect(try turn("d.example.com") == 0, "another block of the same addresses")
        #expect(try turn("e.example.com") == 0, "the route's own list")
        #expect(try group("a.example.com").cell.pointee.name.string == "web")
        #expect(try group("e.example.com").cell.pointee.name.buffer.isEmpty)
    }

    @Test("R11: turns go on when a block's addresses change, and when a route's own do")
    func kept() throws {
        apply([
            try spec("r1", "a.example.com", ["[fd00::1]:80"]),
            try spec("r2", "b.example.com", ["[fd00::1]:80"], group: nil),
        ])
        try take(5, "a.example.com")
        try take(7, "b.example.com")
        let old = try group("a.example.com").cell
        apply([
            try spec("r1", "a.example.com", ["[fd00::1]:80", "[fd00::2]:80"]),
            try spec("r2", "b.example.com", ["[fd00::3]:80"], group: nil),
        ])
        #expect(try group("a.example.com").cell == old)
        #expect(try group("a.example.com").backends.count == 2)
        #expect(try turn("a.example.com") == 5)
        #expect(try turn("b.example.com") == 7)
        apply([])
        #expect(state.memory.pinnedCount == 0)
        apply([try spec("r1", "a.example.com", ["[fd00::1]:80"])])
        #expect(try turn("a.example.com") == 0, "a block that nobody used is another one")
    }

    @Test("R11: routes of desired state that lead to the same instances take turns together, and keep them")
    func instances() throws {
        let routes = [
            TestRoute(id: "r1", env: "env_a", hostname: "a.example.com"),
            TestRoute(id: "r2", env: "env_a", hostname: "b.example.com"),
            TestRoute(id: "r3", env: "env_a", hostname: "c.example.com", backendPort: 9090),
        ]
        state.apply(instances: [instance("i1", address: "fd00::1")], routes)
        try take(4, "a.example.com")
        state.apply(
            instances: [instance("i1", address: "fd00::1"), instance("i2", address: "fd00::2")], routes)
        #expect(try turn("b.example.com") == 4)
        #expect(try turn("c.example.com") == 0)
        state.apply(instances: [], routes)
        state.apply(instances: [instance("i2", address: "fd00::2")], routes)
        #expect(try turn("a.example.com") == 4)
    }

    @Test("a limit of the block is one for all its routes, and outlives its table while a connection counts")
    func limit() throws {
        let specs = [
            try spec("r1", "a.example.com", ["[fd00::1]:80"]), try spec("r2", "b.example.com", ["[fd00::1]:80"]),
        ]
        apply(specs, limit: 9)
        let cell = try group("b.example.com").cell
        #expect(try group("a.example.com").maxConnections == 9)
        #expect(try group("a.example.com").cell == cell)
        cell.pointee.active.add()
        apply([])
        #expect(state.freeUnpinned() == 1)
        apply(specs, limit: 9)
        #expect(try group("a.example.com").cell == cell, "what comes back counts on")
        #expect(state.freeUnpinned() == 0)
        apply([])
        #expect(state.freeUnpinned() == 1)
        cell.pointee.active.remove()
        #expect(state.freeUnpinned() == 0)
    }

    @Test("R12: a block has priorities and health; routes that differ in health share turns and the limit")
    func health() throws {
        let strict = RouteHealth(
            name: "strict", ejection: EjectionPolicy(after: 3, base: .seconds(1), max: .seconds(9)), usesAll: false)
        var specs = try ["a.example.com", "b.example.com", "c.example.com"].map {
            try spec("r-\($0)", $0, ["[fd00::1]:80", "[fd00::2]:80", "[fd00::3]:80"])
        }
        for index in specs.indices { specs[index].backends[0].priority = BackendSpec.backupPriority }
        specs[0].health = strict
        specs[1].health = strict
        apply(specs, limit: 7)
        let (first, other) = (try group("a.example.com"), try group("c.example.com"))
        #expect(first.tiers.buffer.map(\.priority) == [0, 15] && first.tiers[0].backends.count == 2)
        #expect(first.health?.pointee.name == "strict" && other.health == nil)
        #expect(try group("b.example.com").number == first.number)
        #expect(other.number != first.number && other.cell == first.cell && other.maxConnections == 7)
        // A change of the block's health keeps the turns.
        try take(3, "a.example.com")
        specs[0].health = .off
        apply(specs, limit: 7)
        #expect(try group("a.example.com").health?.pointee.usesAll == true)
        #expect(try turn("a.example.com") == 3)
    }
}
