import FilterBackendSelect
import Pipeline
import TestSupport
import Testing

/// `source` as the stage sees it: whose holds, and which backends can be reached from it.
@Suite("backend: sources")
struct BackendSourceTests {
    /// A route with backends of both families, and what it says of its source.
    private final class Site {
        var run = FilterHarness()
        let route: FoundRoute
        private let own: UnsafePointer<SourceAddresses>?
        private let policy = UnsafeMutablePointer<RoutePolicy>.allocate(capacity: 1)
        private var state: BackendFilter.WorkerState
        private let settings: BackendFilter.Settings

        init(
            stage: SourceSpec? = nil, route spec: SourceSpec? = nil,
            backends: [String] = ["192.0.2.1:80", "[fd00::1]:80", "[fd00::2]:80"], priorities: [UInt8] = []
        ) throws {
            own = spec.map(SourceAddresses.make)
            policy.initialize(to: RoutePolicy(idleTimeout: nil, queue: nil, groupQueue: nil, source: own))
            var fake = FakeRoute("rt", hosts: ["app.example.com"], backends: backends)
            (fake.policy, fake.priorities) = (UnsafePointer(policy), priorities)
            route = run.routes.add(fake)
            let clauses: [Clause] =
                switch stage {
                case .client: [Clause(name: "source_client", values: [])]
                case .addresses(let ranges): [Clause(name: "source", values: ranges.map { .custom($0) })]
                case .kernel, nil: []
                }
            settings = try BackendFilter.settings(Directive(keyword: "backend", clauses: clauses))
            state = BackendFilter.makeState(settings)
        }

        deinit {
            BackendFilter.dispose(settings)
            policy.deinitialize(count: 1).deallocate()
            if let own { SourceAddresses.free(own) }
        }

        var facts: StageFacts { BackendFilter.facts(settings) }

        /// What a new connection is to try, where from, and what `explain` says.
        func connect(_ client: String = "[2001:db8::99]:40000") -> (order: [String], reason: String?, why: String) {
            run.resetFacts()
            run.lasting.client = ClientAddress(FilterHarness.endpoint(client))
            let (verdict, why) = run.evaluate(BackendFilter.self, settings, &state)
            let order = (0..<Int(run.facts.candidates.count)).compactMap { run.facts.candidates[$0] }
                .map { "\($0.pointee.address.endpoint)" }
            return (order, FilterHarness.reason(verdict, of: BackendFilter.self), why)
        }

        var source: SourceSpec? { run.facts.source?.pointee.spec }
        func setProbe(_ index: Int, _ probe: BackendCell.Probe) {
            route.backends[index].cell.pointee.probe.store(probe.rawValue, ordering: .relaxed)
        }
    }

    private static func spec(_ words: String...) throws -> SourceSpec {
        try SourceSpec.of(try words.map { try ConfigValue.sourceRange($0) })
    }

    @Test("the stage's holds where the route says nothing, the route's in place of it, `off` in place of both")
    func whose() throws {
        let (one, two) = (try Self.spec("192.0.2.8", "fd00::8"), try Self.spec("192.0.2.9", "fd00::9"))
        for (stage, route, holds) in [
            (nil, nil, nil), (one, nil, one), (one, two, two), (nil, two, two), (one, .kernel, nil),
            (one, .client, .client), (.client, one, one),
        ] as [(SourceSpec?, SourceSpec?, SourceSpec?)] {
            let site = try Site(stage: stage, route: route)
            #expect(site.connect().reason == nil)
            #expect(site.source == holds)
            #expect(site.facts.source == stage)
            #expect(site.facts.capabilities.contains(.appearsAsClient) == (stage == .client))
        }
    }

    @Test("`source client`: only backends of the client's family; none of them is a refusal of its own")
    func families() throws {
        let site = try Site(stage: .client)
        for _ in 0..<6 {
            #expect(Set(site.connect().order) == ["[fd00::1]:80", "[fd00::2]:80"])
            #expect(site.connect("198.51.100.7:4000").order == ["192.0.2.1:80"])
        }
        #expect(site.connect().why.contains("from the client's own address 2001:db8::99"))
        let six = try Site(stage: .client, backends: ["[fd00::1]:80"])
        let refused = six.connect("198.51.100.7:4000")
        #expect(refused.reason == "backend.source_family node" && refused.order.isEmpty)
        #expect(refused.why.contains("none of which is IPv4, as the client is (`source client`)"), "\(refused.why)")
    }

    @Test("addresses of one family: backends of the other are passed over, a later priority is used before them")
    func addresses() throws {
        let source = try Self.spec("192.0.2.8-192.0.2.10")
        let site = try Site(route: source, priorities: [15, 0, 0].sorted())
        #expect(site.connect().order == ["192.0.2.1:80"])
        #expect(site.connect().why.contains("from one of 3 addresses (192.0.2.8 …)"))
        let backup = try Site(
            route: source, backends: ["[fd00::1]:80", "192.0.2.1:80"], priorities: [0, 15])
        #expect(backup.connect().order == ["192.0.2.1:80"])
        let none = try Site(route: source, backends: ["[fd00::1]:80"])
        #expect(none.connect().reason == "backend.source_family node")
        #expect(none.connect().why.contains("none of which is of a family that `source` has an address of"))
    }

    @Test("R12: what is out is judged among those that can be reached; without probes the last of them is tried anyway")
    func health() throws {
        let site = try Site(stage: .client)
        site.setProbe(0, .down)
        #expect(site.connect("198.51.100.7:4000").order == ["192.0.2.1:80"], "panic, of its family alone")
        #expect(Set(site.connect().order) == ["[fd00::1]:80", "[fd00::2]:80"])
    }

    @Test("a Unix socket has no family: it is reached whatever the source is")
    func unix() throws {
        let path = try #require(UnixSockets.endpoint("/run/source.sock"))
        #expect(try Self.reaches(path, .client) && Self.reaches(path, Self.spec("192.0.2.8")))
    }

    private static func reaches(_ endpoint: Endpoint, _ spec: SourceSpec) throws -> Bool {
        let source = SourceAddresses.make(spec)
        defer { SourceAddresses.free(source) }
        return source.pointee.reaches(endpoint, from: IPAddress(high: 1, low: 1))
    }

    @Test("addresses and `client` together, twice, or with original destinations, say what to write")
    func errors() throws {
        let addresses = Clause(name: "source", values: [.custom(try ConfigValue.sourceRange("192.0.2.8"))])
        let client = Clause(name: "source_client", values: [])
        for (clauses, remedy) in [
            ([addresses, client], "write addresses or `client`"), ([client, client], "write addresses or `client`"),
            ([Clause(name: "original_destination", values: []), client], "`original_destination from instance`"),
        ] {
            #expect {
                _ = try BackendFilter.settings(Directive(keyword: "backend", clauses: clauses))
            } throws: {
                ($0 as? SettingsError)?.remedy.contains(remedy) == true
            }
        }
    }
}
