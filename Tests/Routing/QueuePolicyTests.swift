import Pipeline
import PipelineRouting
import Testing

/// `queue` and `idle_timeout` of a config, as the table has them for the data path.
@Suite("Queues and idle timeouts of routes")
struct QueuePolicyTests {
    let state = RoutingState()

    private func spec(_ id: String, _ host: String, group: String? = nil) throws -> RouteSpec {
        var spec = RouteSpec(
            index: 0, id: id, org: "acme", app: "shop", env: "prod", hostname: host, port: 443, hint: .tlsPassthrough,
            backends: [BackendSpec(try #require(Endpoint("[fd00::1]:80")), maxConnections: 5)])
        spec.group = group
        return spec
    }

    private func apply(_ specs: [RouteSpec], block: QueueSpec? = nil) {
        let groups = specs.compactMap { spec in
            spec.group.map { GroupSpec(name: $0, backends: spec.backends, queue: block) }
        }
        let (document, problems) = StateDocument.config(specs, groups: groups, seed: testSeed)
        #expect(problems.isEmpty)
        #expect(state.apply(document).problems.isEmpty)
    }

    private func policy(_ host: String) throws -> RoutePolicy? {
        try #require(state.snapshot.named(host)).group.pointee.policy?.pointee
    }

    private let five = QueueSpec(limit: 5, patience: .seconds(1))
    private let ten = QueueSpec(limit: 10, patience: .seconds(2))

    @Test(
        "a route without such words has no policy; its own queue is for all that it waits for, a block's for the block's"
    )
    func whose() throws {
        var (own, both, plain) = (
            try spec("r1", "a.example.com"), try spec("r2", "b.example.com", group: "web"),
            try spec("r3", "c.example.com")
        )
        own.queue = five
        both.queue = five
        plain.idleTimeout = nil
        apply([own, both, plain], block: ten)
        #expect(try policy("c.example.com") == nil)
        let mine = try #require(try policy("a.example.com"))
        #expect(mine.queue?.limit == 5 && mine.queue?.queue == mine.groupQueue?.queue)
        let two = try #require(try policy("b.example.com"))
        #expect(two.queue?.limit == 5 && two.groupQueue?.limit == 10 && two.queue?.queue != two.groupQueue?.queue)
        #expect(two.queue?.queue != mine.queue?.queue)
    }

    @Test("routes of one block share its queue; names of one route share the route's")
    func shared() throws {
        var other = try spec("r1", "c.example.com")
        var first = try spec("r1", "b.example.com")
        (first.queue, other.queue, other.claim) = (five, five, "c.example.com:443")
        apply(
            [
                first, other, try spec("r2", "d.example.com", group: "web"),
                try spec("r3", "e.example.com", group: "web"),
            ], block: ten)
        #expect(try policy("b.example.com")?.queue?.queue == policy("c.example.com")?.queue?.queue)
        #expect(try policy("d.example.com")?.groupQueue?.queue == policy("e.example.com")?.groupQueue?.queue)
        #expect(try policy("d.example.com")?.queue == nil)
    }

    @Test(
        "R26: a reload that changes a bound keeps the queue, and who waits in it; one that takes it away and back too")
    func kept() throws {
        var route = try spec("r1", "a.example.com")
        route.queue = five
        apply([route])
        let queue = try #require(try policy("a.example.com")?.queue?.queue)
        queue.pointee.waiting.add()
        route.queue = ten
        route.idleTimeout = .seconds(3)
        apply([route])
        let now = try #require(try policy("a.example.com"))
        #expect(now.queue?.queue == queue && now.queue?.limit == 10 && now.idleTimeout == .seconds(3))
        route.queue = nil
        route.idleTimeout = nil
        apply([route])
        #expect(try policy("a.example.com") == nil)
        route.queue = five
        apply([route])
        let waiting = try policy("a.example.com")?.queue?.queue.pointee.waiting.current
        #expect(waiting == 1)
    }
}
