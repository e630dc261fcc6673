import Pipeline
import Testing

@testable import PipelineRouting

@Suite("R11: what balancing reads")
struct BalanceTests {
    @Test("R11: each window of a schedule gives each its weight; turns of one are spread")
    func schedules() {
        var random = SplitMix64(seed: 11)
        for _ in 0..<50 {
            let weights = (0..<Int.random(in: 2...9, using: &random)).map { _ in
                UInt16.random(in: 0...12, using: &random)
            }
            let turns = TurnSchedule.make(weights)
            guard !turns.isEmpty else {
                #expect(Set(weights).count == 1)
                continue
            }
            var counts = [Int](repeating: 0, count: weights.count)
            for turn in turns { counts[Int(turn)] += 1 }
            for (index, weight) in weights.enumerated() {
                // Same shares: the schedule is as short as they allow.
                #expect(counts[index] * weights.reduce(0) { $0 + Int($1) } == Int(weight) * turns.count)
                // Spread: within two turns of where a ruler would put them.
                let places = turns.indices.filter { turns[$0] == index }
                guard places.count > 1 else { continue }
                let gaps = zip(places, places.dropFirst()).map { $1 - $0 }
                let even = Double(turns.count) / Double(places.count)
                #expect(Double(gaps.max() ?? 0) <= 2 * even + Double(weights.count), "\(weights) \(turns)")
            }
        }
    }

    @Test("R27: a schedule is bounded, whatever the weights")
    func bounded() {
        #expect(TurnSchedule.make([]) == [] && TurnSchedule.make([7]) == [] && TurnSchedule.make([4, 4]) == [])
        #expect(TurnSchedule.make([4, 8]).count == 3)
        let heavy = TurnSchedule.make((0..<2000).map { UInt16(255 + $0 % 2) })
        #expect(heavy.count <= TurnSchedule.limit + 2000)
        #expect(Set(heavy).count == 2000)
        #expect(TurnSchedule.make(Array(repeating: 1, count: 70000)) == [])
    }

    private static func backends(_ count: Int, _ random: inout SplitMix64) -> [BackendSpec] {
        (0..<count).map { _ in
            BackendSpec(Endpoint(IPAddress(high: 0xFD00 << 48, low: random.next()), 8443))
        }
    }

    @Test("R11: when one of n backends goes, at most 1.5/n of all clients move", arguments: 2...50)
    func maglev(_ count: Int) {
        var random = SplitMix64(seed: UInt64(count))
        let all = Self.backends(count, &random)
        let gone = Int.random(in: 0..<count, using: &random)
        var rest = all
        rest.remove(at: gone)
        let (before, after) = (Maglev.table(all), Maglev.table(rest))
        let moved = (0..<Maglev.size).count { all[Int(before[$0])] != rest[Int(after[$0])] }
        #expect(Double(moved) / Double(Maglev.size) <= 1.5 / Double(count))
        // And none of them has more than its share, give or take a place or two.
        var counts = [Int](repeating: 0, count: count)
        for index in before { counts[Int(index)] += 1 }
        #expect((counts.max() ?? 0) - (counts.min() ?? 0) <= 1)
    }

    @Test("R11: tables go by address, not by order; weights are shares")
    func maglevWeights() {
        var random = SplitMix64(seed: 5)
        var all = Self.backends(3, &random)
        all[1].weight = 3
        all[2].weight = 0
        let table = Maglev.table(all)
        let counts = (0..<3).map { index in table.count { $0 == index } }
        #expect(abs(counts[1] - 3 * counts[0]) <= 8 && counts[2] == 0, "\(counts)")
        #expect(Maglev.table([]).isEmpty)
        for index in all.indices { all[index].weight = 0 }
        #expect(Maglev.table(all).isEmpty)
    }

    @Test("a route is at most 64 bytes in the table: one line of the cache")
    func size() {
        #expect(MemoryLayout<TableRoute>.stride <= 64)
        #expect(MemoryLayout<Route>.size <= 48)
    }

    // MARK: From documents to what the data path reads

    private func backends(_ state: RoutingState, _ name: String) -> [Backend] {
        state.snapshot.named(name).map { Array($0.backends.buffer) } ?? []
    }

    @Test("weights, limits and balances of documents are what the data path reads; only who asks has a table")
    func documents() throws {
        let state = RoutingState()
        let heavy = instance("i1", address: "fd00::1").replacing(
            "}", with: ", \"weight\": 3, \"max_connections\": 100}")
        let routes = [
            TestRoute(id: "a", env: "env_a", hostname: "a.example.com", extra: ", \"balance\": \"consistent_hash\""),
            TestRoute(id: "b", env: "env_a", hostname: "b.example.com", extra: ", \"max_connections\": 7"),
        ]
        #expect(state.apply(instances: [heavy, instance("i2", address: "fd00::2")], routes).problems.isEmpty)
        #expect(backends(state, "a.example.com").map(\.weight) == [3, 1])
        #expect(backends(state, "a.example.com").map(\.maxConnections) == [100, 0])
        let (a, b) = (
            try #require(state.snapshot.named("a.example.com")), try #require(state.snapshot.named("b.example.com"))
        )
        #expect(a.pointee.balance == .consistentHash && b.pointee.balance == nil && b.pointee.maxConnections == 7)
        #expect(a.group.pointee.tiers[0].maglev.count == Maglev.size)
        #expect(b.group.pointee.tiers[0].maglev.isEmpty)
        #expect(a.group.pointee.tiers[0].schedule.count == 4)
        // What is known of a backend is one, whoever asks.
        #expect(a.backends[0].cell == b.backends[0].cell)
        state.hashesByDefault = true
        #expect(state.apply(instances: [heavy, instance("i2", address: "fd00::2")], routes).report?.changed == 1)
        #expect(state.snapshot.named("b.example.com")?.group.pointee.tiers[0].maglev.count == Maglev.size)
    }

    @Test("instances of several priorities are tiers of one group, in their order by id")
    func priorities() throws {
        let state = RoutingState()
        let route = TestRoute(id: "a", env: "env_a", hostname: "a.example.com")
        let placed = { (id: String, address: String, priority: String) in
            instance(id, address: address).replacing("}", with: ", \"priority\": \(priority)}")
        }
        let instances = [
            placed("i1", "fd00::1", "15"), placed("i2", "fd00::2", "3"), placed("i3", "fd00::3", "null"),
            placed("i4", "fd00::4", "3"),
        ]
        #expect(state.apply(instances: instances, [route]).problems.isEmpty)
        let group = try #require(state.snapshot.named("a.example.com")).group.pointee
        #expect(group.backends.buffer.map { $0.instance.string } == ["i3", "i2", "i4", "i1"])
        #expect(group.tiers.buffer.map(\.name) == ["priority 0", "priority 3", "backup"])
        #expect(group.tiers.buffer.map { $0.backends.count } == [1, 2, 1])
    }

    @Test(
        "out of range is quarantined",
        arguments: [
            "\"weight\": 257", "\"weight\": -1", "\"max_connections\": 0", "\"priority\": 16",
            "\"priority\": \"backup\"",
        ])
    func ranges(_ field: String) {
        let bad = instance("i1", address: "fd00::1").replacing("}", with: ", \(field)}")
        let problems = RoutingState().apply(instances: [bad], []).problems
        #expect(problems.contains { $0.object == .instance && $0.severity == .rejected })
    }

    @Test("who becomes ready later starts slowly; who was there at the start doesn't")
    func eligibleSince() throws {
        let state = RoutingState()
        let route = TestRoute(id: "a", env: "env_a", hostname: "a.example.com").json
        func apply(_ instances: [String], at now: Instant?) throws {
            let text = documentText(instances: instances, routes: [route])
            _ = state.apply(try #require(StateDocument.parse(text, seed: testSeed).document), at: now)
        }
        let since = { (index: Int) in
            backends(state, "a.example.com")[index].cell.pointee.eligibleSince.load(ordering: .relaxed)
        }
        try apply([instance("i1", address: "fd00::1")], at: nil)
        #expect(since(0) == 0)
        try apply(
            [instance("i1", address: "fd00::1"), instance("i2", address: "fd00::2")], at: Instant(nanoseconds: 77))
        #expect(since(0) == 0 && since(1) == 77)
    }
}

extension String {
    fileprivate func replacing(_ end: String, with text: String) -> String {
        hasSuffix(end) ? dropLast(end.count) + text : self
    }
}
