import Pipeline
import Testing

@testable import PipelineRouting

/// Names of backends in the table: what a change of their addresses costs, keeps and leaves alone.
@Suite("Names of backends in the table")
struct ResolvedNamesTests {
    let state = RoutingState(seed: testSeed)
    private let name = BackendName(.host, "web.test")

    private func spec(_ id: String, _ host: String, _ backends: [BackendSpec]) -> RouteSpec {
        RouteSpec(
            index: 0, id: id, org: "acme", app: "shop", env: "prod", hostname: host, port: 443,
            hint: .tlsPassthrough, backends: backends)
    }
    private func named(_ port: UInt16 = 80) -> BackendSpec {
        BackendSpec(Endpoint(.unspecified, port), name: name, maxConnections: 7)
    }
    private func fixed(_ text: String) throws -> BackendSpec { BackendSpec(try #require(Endpoint(text))) }
    private func addresses(_ texts: String...) throws -> [ResolvedAddress] {
        try texts.map { ResolvedAddress(try #require(IPAddress($0))) }
    }
    private func apply(_ specs: [RouteSpec]) {
        let (document, problems) = StateDocument.config(specs, seed: testSeed)
        #expect(problems.isEmpty && state.apply(document).problems.isEmpty)
    }
    private func backends(_ host: String) throws -> [String] {
        try #require(state.snapshot.named(host)).backends.buffer.map { "\($0.address.endpoint)" }
    }

    @Test("a change makes new backends for routes of that name alone; what stays keeps its cell")
    func changes() throws {
        apply([
            spec("r1", "a.example", [named(), try fixed("10.0.0.9:80")]),
            spec("r2", "b.example", [try fixed("10.0.0.8:80")]),
        ])
        #expect(try backends("a.example") == ["10.0.0.9:80"] && state.backendNames == [name])
        #expect(state.resolve([name: try addresses("10.0.0.1", "10.0.0.2")]).backendsChanged == 1)
        #expect(try backends("a.example") == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"])
        let before = try #require(state.snapshot.named("a.example")).backends
        let (cell, gone) = (before[1].cell, before[0].cell)
        #expect(before[0].maxConnections == 7 && before[0].instance.string == "web.test:80")
        cell.pointee.failures.add(3, ordering: .relaxed)
        gone.pointee.active.add()
        let other = try #require(state.snapshot.named("b.example")).group
        let now = Instant(nanoseconds: 5)
        #expect(state.resolve([name: try addresses("10.0.0.2", "10.0.0.3")], at: now).backendsChanged == 1)
        let after = try #require(state.snapshot.named("a.example")).backends
        #expect(after[0].cell == cell && cell.pointee.failures.load(ordering: .relaxed) == 3)
        // Only what is new starts slowly.
        #expect(cell.pointee.eligibleSince.load(ordering: .relaxed) == 0)
        #expect(after[1].cell.pointee.eligibleSince.load(ordering: .relaxed) == 5)
        #expect(try #require(state.snapshot.named("b.example")).group == other)
        // A connection to what went goes on.
        #expect(state.leavingBackends.map { "\($0.cell.pointee.endpoint)" } == ["10.0.0.1:80"])
        gone.pointee.active.remove()
        #expect(state.freeUnpinned() == 0)
    }

    @Test("the same again is no change; an address that is there twice is one backend")
    func same() throws {
        apply([spec("r1", "a.example", [named(), try fixed("10.0.0.1:80")])])
        let answer = [name: try addresses("10.0.0.1")]
        #expect(state.resolve(answer).backendsChanged == 1)
        #expect(try backends("a.example") == ["10.0.0.1:80"])
        let table = state.snapshot
        #expect(state.resolve(answer).backendsChanged == 0 && state.snapshot === table)
        #expect(state.resolve([BackendName(.host, "other"): try addresses("10.0.0.2")]).backendsChanged == 0)
    }

    @Test("an apply keeps what names have, and forgets names that no route has")
    func kept() throws {
        apply([spec("r1", "a.example", [named()])])
        _ = state.resolve([name: try addresses("10.0.0.1")])
        apply([spec("r1", "a.example", [named()]), spec("r2", "b.example", [named(81)])])
        #expect(try backends("a.example") == ["10.0.0.1:80"] && backends("b.example") == ["10.0.0.1:81"])
        apply([spec("r1", "a.example", [try fixed("10.0.0.9:80")])])
        state.forgetUnusedNames()
        apply([spec("r1", "a.example", [named()])])
        #expect(try backends("a.example") == [])
    }

    @Test("of 20,000 routes, one name's change rebuilds no shard, and frees what it replaced")
    func cost() throws {
        var specs = (0..<20_000).map { number in
            let endpoint = Endpoint(IPAddress(v4: 0x0A01_0000 + UInt32(number % 100)), 80)
            return spec("r\(number)", "h\(number).example", [BackendSpec(endpoint)])
        }
        specs[17].backends = [named()]
        apply(specs)
        let blocks = state.memory.liveBlocks
        for round in 0..<10 {
            let report = state.resolve([name: try addresses("10.0.0.\(1 + round % 2)")])
            #expect(report.shardsBuilt == 0 && report.shards > 50)
        }
        #expect(state.freeUnpinned() == 0 && state.memory.liveBlocks == blocks + 1)
    }

    @Test("SRV: the record's port and weight, its priority behind the config's")
    func service() throws {
        let service = BackendName(.service, "_pg._tcp.test")
        apply([spec("r1", "a.example", [BackendSpec(Endpoint(.unspecified, 0), name: service, priority: 14)])])
        let address = try #require(IPAddress("10.0.0.1"))
        _ = state.resolve([
            service: [
                ResolvedAddress(address, port: 5432, weight: 9, priority: 0),
                ResolvedAddress(address, port: 5433, weight: 3, priority: 7),
            ]
        ])
        let found = try #require(state.snapshot.named("a.example")).backends
        #expect(found.count == 2 && found[0].weight == 9 && found[0].priority == 14 && found[1].priority == 15)
        #expect("\(found[1].address.endpoint)" == "10.0.0.1:5433")
    }
}
