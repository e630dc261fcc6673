import FilterBackendSelect
import Pipeline
import PipelineRouting
import TestSupport

/// One stage, one route, many connections.
struct BalanceBench {
    var run = FilterHarness()
    let route: FoundRoute
    let settings: BackendFilter.Settings
    var state: BackendFilter.WorkerState
    /// Keeps the health block alive, as the stage of a program does.
    let clauses: [Clause]

    init(
        _ balance: Balance?, count: Int, weights: [UInt16] = [], backendLimit: UInt32 = 0, routeLimit: UInt32 = 0,
        priorities: [UInt8] = [], clauses: [Clause] = []
    ) throws {
        var fake = FakeRoute(
            "rt_1", hosts: ["app.example.com"], backends: (0..<count).map { "[fd00::\($0 + 1)]:9000" })
        self.clauses = clauses
        fake.balance = balance
        fake.weights = weights
        fake.backendLimit = backendLimit
        fake.maxConnections = routeLimit
        fake.priorities = priorities
        fake.tables = { tier in
            let specs = tier.buffer.map { BackendSpec($0.address.endpoint, weight: $0.weight) }
            return BalanceTables(
                schedule: TurnSchedule.make(specs.map(\.weight)),
                maglev: balance == .consistentHash ? Maglev.table(specs) : [])
        }
        route = run.routes.add(fake)
        settings = try BackendFilter.settings(Directive(keyword: "backend", clauses: clauses))
        state = BackendFilter.makeState(settings)
    }

    func cell(_ index: Int) -> UnsafePointer<BackendCell> { route.backends[index].cell }

    /// The backends that a new connection is to try, by index; or the refusal.
    mutating func connect(client: IPAddress? = nil) -> (order: [Int], reason: String?, why: String) {
        run.resetFacts()
        if let client { run.lasting.client = ClientAddress(Endpoint(client, 40000)) }
        let (verdict, why) = run.evaluate(BackendFilter.self, settings, &state)
        return (order, FilterHarness.reason(verdict, of: BackendFilter.self), why)
    }

    /// The candidates of the last choice, by index.
    var order: [Int] {
        (0..<Int(run.facts.candidates.count)).compactMap { place in
            run.facts.candidates[place].flatMap { route.backends.buffer.baseAddress?.distance(to: $0) }
        }
    }

    mutating func firsts(_ connections: Int) -> [Int] {
        var counts = [Int](repeating: 0, count: route.backends.count)
        for _ in 0..<connections { if let first = connect().order.first { counts[first] += 1 } }
        return counts
    }

    static func health(_ panic: HealthSettings.Panic) -> Clause {
        let settings = HealthSettings(
            name: "edge", probe: .tcp, interval: .seconds(1), jitterPercent: 10, timeout: .seconds(1), rise: 2, fall: 3,
            probesPerSecond: 100, panic: panic,
            ejection: EjectionPolicy(after: 5, base: .seconds(10), max: .seconds(300)))
        return Clause(name: "health", values: [.block(settings)])
    }
}
