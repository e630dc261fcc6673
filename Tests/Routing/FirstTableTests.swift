import Pipeline
import Testing

@testable import PipelineRouting

/// What a start makes of many routes at once is what the rules make of them one by one.
@Suite("R5, R8, R24: the first table")
struct FirstTableTests {
    private static let envs = (0..<40).map { "env_\($0)" }
    private let listeners = [
        ListenerFacts(
            address: .unspecified, ports: 1...9999, hint: .tlsPassthrough, injectsProxy: true, pipeline: "tls"),
        ListenerFacts(address: .unspecified, ports: 15000...15999, hint: .tcpRaw, injectsProxy: false, pipeline: "raw"),
    ]

    /// Many that are alone, and clashes of every kind among them.
    private func routes(_ random: inout SplitMix64, clashes: Int) -> [TestRoute] {
        var routes = (0..<5000).map { number in
            TestRoute(
                id: "r\(number)", env: Self.envs[number / 7 % 40], hostname: "n\(number).x\(number % 50).example.com",
                process: number % 3 == 0 ? "api" : "web", backendPort: 8080 + number % 2)
        }
        for _ in 0..<clashes {
            let one = Int.random(in: routes.indices, using: &random)
            let other = Int.random(in: 0..<5000, using: &random)
            switch Int.random(in: 0..<12, using: &random) {
            case 0: routes[one].hostname = routes[other].hostname
            case 1:
                routes[one].hostname = routes[other].hostname
                routes[one].env = routes[other].env
                routes[one].port = 8443
            case 2:
                routes[one].hostname = routes[other].hostname
                routes[one].env = routes[other].env
            case 3: routes[one].hostname = "*.x\(one % 50).example.com"
            case 4: routes[one].hostname = ".x\(one % 50).example.com"
            case 5: (routes[one].raw, routes[one].port) = (true, 15000 + UInt16(one % 20))
            case 6: routes.append(routes[other])
            case 7:
                var twin = routes[other]
                twin.backendPort = 9999
                routes.append(twin)
            case 8: routes[one].env = "env_missing"
            case 9: routes[one].port = 25
            case 10: routes[one].extra = ", \"ipv4_required\": true"
            default: routes[one].extra = ", \"proxy_protocol\": \"v2\""
            }
        }
        // A raw port with names at it.
        if clashes > 0 { (routes[17].raw, routes[17].port, routes[18].port) = (true, 16000, 16000) }
        return routes.shuffled(using: &random)
    }

    private func entries(_ routes: [TestRoute], _ random: inout SplitMix64) -> [TestHostname] {
        var known: Set<String> = []
        return routes.compactMap { route in
            guard Int.random(in: 0..<10, using: &random) == 0, let name = route.hostname, known.insert(name).inserted
            else { return nil }
            let isOthers = Int.random(in: 0..<20, using: &random) == 0
            return TestHostname(name, isOthers ? "env_3" : route.env, Int.random(in: 0..<3, using: &random))
        }
    }

    private var first: RoutingState { RoutingState(seed: testSeed, listeners: listeners) }

    /// The same by claims alone, and with its shards made one by one: it had a route before.
    private var later: RoutingState {
        let state = first
        state.seeksLone = false
        state.apply(envs: ["before"], [TestRoute(id: "before", env: "before", hostname: "before.org")])
        return state
    }

    @Test("all at once or after another: the same routes, and the same is said of them", arguments: [0, 30, 100])
    func same(clashes: Int) {
        var random = SplitMix64(seed: UInt64(clashes) + 5)
        for round in 0..<3 {
            let routes = routes(&random, clashes: clashes)
            let hostnames = round == 0 ? [] : entries(routes, &random)
            let (first, later) = (first, later)
            let (one, said) = first.apply(envs: Self.envs, routes, hostnames: hostnames)
            let (two, saidLater) = later.apply(envs: Self.envs, routes, hostnames: hostnames)
            #expect(texts(said) == texts(saidLater))
            #expect(one?.added == two?.added)
            #expect(one?.applied == two?.applied)
            let list = first.snapshot.listing()
            #expect(list == later.snapshot.listing())
            #expect(list.count >= 4096 || clashes == 100, "many are served")
            for route in list {
                guard let name = route.hostname, name.first != "*", name.first != ".", route.hint == .tlsPassthrough
                else { continue }
                #expect(first.snapshot.named(name, route.port)?.pointee.id.string == route.id)
            }
        }
    }

    @Test("a document over another: routes that change, go, come, and take others' names", arguments: [0, 30, 100])
    func changes(clashes: Int) {
        var random = SplitMix64(seed: UInt64(clashes))
        var routes = routes(&random, clashes: clashes)
        let (first, later) = (first, later)
        for state in [first, later] { state.apply(envs: Self.envs, routes, hostnames: []) }
        for round in 0..<4 {
            for number in 0..<60 {
                let index = Int.random(in: routes.indices, using: &random)
                switch Int.random(in: 0..<8, using: &random) {
                case 0: routes.remove(at: index)
                case 1: routes[index].env = Self.envs.randomElement(using: &random) ?? "env_1"
                case 2: routes[index].hostname = routes.randomElement(using: &random)?.hostname
                case 3: routes[index].hostname = "new\(round)-\(number).example.com"
                case 4: routes[index].port = 8443
                case 5: (routes[index].raw, routes[index].port) = (true, 15000 + UInt16(number))
                case 6: routes[index].extra = ", \"balance\": 7"
                default: routes[index].backendPort += 1
                }
            }
            let hostnames = round == 2 ? entries(routes, &random) : []
            let done = [first, later].map { $0.apply(envs: Self.envs, routes, hostnames: hostnames) }
            #expect(texts(done[0].problems) == texts(done[1].problems))
            #expect(done[0].report?.applied == done[1].report?.applied)
            #expect(done[0].report?.removed == done[1].report?.removed)
            #expect(done[0].report?.changed == done[1].report?.changed)
            #expect(done[0].report?.unchanged == done[1].report?.unchanged)
            #expect(done[0].report?.kept == done[1].report?.kept)
            #expect(first.snapshot.listing() == later.snapshot.listing())
        }
    }

    @Test("nothing leaks, and ids of routes that went are not read any more")
    func memory() {
        var random = SplitMix64(seed: 3)
        var memory: RouteStore?
        do {
            let state = first
            memory = state.memory
            state.apply(envs: Self.envs, routes(&random, clashes: 30), hostnames: [])
            state.apply(envs: Self.envs, [], hostnames: [])
            state.freeUnpinned()
            #expect(state.snapshot.routeCount == 0)
            state.apply(envs: Self.envs, routes(&random, clashes: 30), hostnames: [])
        }
        #expect(memory?.liveBlocks == 0)
    }
}
