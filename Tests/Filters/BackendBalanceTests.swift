import FilterBackendSelect
import Pipeline
import PipelineRouting
import TestSupport
import Testing

/// How connections spread, on literals: many connections through one stage (R11, R12).
@Suite("backend: balancing")
struct BackendBalanceTests {
    @Test("R27: a group's limit holds over all its routes, and is named; what a dry run asks counts nothing")
    func groupLimit() throws {
        var run = FilterHarness()
        var fake = FakeRoute("rt_1", hosts: ["app.example.com"])
        fake.group = "web"
        fake.groupMaxConnections = 2
        fake.maxConnections = 5
        let route = run.routes.add(fake)
        let active = route.group.pointee.cell.active
        for expected in [1, 2] as [UInt32] {
            run.resetFacts()
            #expect(try run.evaluate(BackendFilter.self) == .next)
            #expect(active.pointee.current == expected)
        }
        run.resetFacts()
        let settings = try BackendFilter.settings(Directive(keyword: "backend", clauses: []))
        var state = BackendFilter.makeState(settings)
        let (verdict, why) = run.evaluate(BackendFilter.self, settings, &state)
        #expect(FilterHarness.reason(verdict, of: BackendFilter.self) == "backend.group_full client")
        #expect(why.contains("backends web") && why.contains("limit of 2"))
        #expect(active.pointee.current == 2)
        // The route's own reservation is the connection's, to be released at its end.
        #expect(route.pointee.cell.active.pointee.current == 3)
    }

    @Test("R11: the stage's balance is for routes that say nothing")
    func defaults() throws {
        let clause = Clause(name: "balance", values: [.word("least_connections")])
        var silent = try BalanceBench(nil, count: 2, clauses: [clause])
        silent.cell(0).pointee.active.add()
        #expect(silent.firsts(10) == [0, 10])
        var own = try BalanceBench(.roundRobin, count: 2, clauses: [clause])
        own.cell(0).pointee.active.add()
        #expect(own.firsts(10) == [5, 5])
    }

    // MARK: Round robin

    @Test("R11: weighted turns are exact over every window as long as the weights' sum")
    func weighted() throws {
        var bench = try BalanceBench(.roundRobin, count: 4, weights: [5, 1, 3, 0])
        var turns: [Int] = []
        for _ in 0..<90 { turns.append(try #require(bench.connect().order.first)) }
        for start in 0...81 {
            let window = turns[start..<start + 9]
            #expect((0..<4).map { index in window.count { $0 == index } } == [5, 1, 3, 0], "window at \(start)")
        }
    }

    @Test("R11: the turns of a backend that is out go to all others alike", arguments: [3, 4, 7])
    func shareOfOneThatIsOut(_ count: Int) throws {
        var bench = try BalanceBench(.roundRobin, count: count)
        bench.cell(1).pointee.probe.store(BackendCell.Probe.down.rawValue, ordering: .relaxed)
        let counts = bench.firsts((count - 1) * 100)
        #expect(counts == (0..<count).map { $0 == 1 ? 0 : 100 })
    }

    @Test("R11: forty backends in a row that are out don't hide the good ones")
    func manyOut() throws {
        var bench = try BalanceBench(.roundRobin, count: 50)
        for index in 0..<48 { bench.cell(index).pointee.ejectedUntil.store(.max, ordering: .relaxed) }
        let counts = bench.firsts(400)
        #expect(counts[48] + counts[49] == 400)
        #expect(min(counts[48], counts[49]) > 100, "\(counts)")
    }

    @Test("weight 0 gets nothing, also if all have it, and not in a panic either", arguments: Balance.allCases)
    func zeroWeight(_ balance: Balance) throws {
        var some = try BalanceBench(balance, count: 3, weights: [0, 1, 0])
        for _ in 0..<50 { #expect(some.connect().order == [1]) }
        var all = try BalanceBench(balance, count: 3, weights: [0, 0, 0], clauses: [BalanceBench.health(.useAll)])
        let refused = all.connect()
        #expect(refused.reason == "backend.no_healthy_backend upstream" && refused.order.isEmpty)
        #expect(refused.why.contains("[fd00::1]:9000 (i-0) weight 0: no new connections"))
        some.cell(1).pointee.ejectedUntil.store(.max, ordering: .relaxed)
        // Without a `health` block all are used: all that have a weight.
        #expect(some.connect().order == [1])
    }

    // MARK: Least connections, random of two

    @Test("R11: least connections fills up to equal loads for the weight")
    func leastConnections() throws {
        var bench = try BalanceBench(.leastConnections, count: 3, weights: [1, 2, 1])
        for _ in 0..<6 { bench.cell(0).pointee.active.add() }
        for _ in 0..<18 {
            let first = try #require(bench.connect().order.first)
            bench.cell(first).pointee.active.add()
        }
        #expect((0..<3).map { bench.cell($0).pointee.active.current } == [6, 12, 6])
    }

    @Test("R11: least connections goes round while all are idle, and tries the next least after")
    func leastConnectionsTies() throws {
        var bench = try BalanceBench(.leastConnections, count: 4)
        #expect(bench.firsts(40) == [10, 10, 10, 10])
        for (index, load) in [3, 1, 4, 2].enumerated() {
            for _ in 0..<load { bench.cell(index).pointee.active.add() }
        }
        #expect(bench.connect().order == [1, 3, 0])
    }

    @Test("R11: random of two never begins with the most loaded, and uses all others")
    func randomOfTwo() throws {
        var bench = try BalanceBench(.randomOfTwo, count: 5)
        bench.cell(2).pointee.active.add()
        let counts = bench.firsts(2000)
        #expect(counts[2] == 0)
        for index in [0, 1, 3, 4] { #expect((350...650).contains(counts[index]), "\(counts)") }
    }

    @Test("R11: workers don't draw alike")
    func workersDiffer() throws {
        var bench = try BalanceBench(.randomOfTwo, count: 50)
        let first = (0..<20).compactMap { _ in bench.connect().order.first }
        bench.state = BackendFilter.makeState(bench.settings)
        #expect((0..<20).compactMap { _ in bench.connect().order.first } != first)
    }

    // MARK: Consistent hash

    @Test("R11: a client stays with its backend; if that is out, its clients spread over all others")
    func consistentHash() throws {
        var bench = try BalanceBench(.consistentHash, count: 5)
        let clients = (0..<1000).map { IPAddress(high: 0x2001_0DB8_0000_0000 + UInt64($0), low: UInt64($0 % 7)) }
        let before = clients.map { bench.connect(client: $0).order }
        #expect(before.allSatisfy { $0.count == 3 && Set($0).count == 3 })
        #expect(clients.map { bench.connect(client: $0).order } == before)
        bench.cell(3).pointee.probe.store(BackendCell.Probe.down.rawValue, ordering: .relaxed)
        var heirs = [Int](repeating: 0, count: 5)
        for (client, order) in zip(clients, before) {
            let now = try #require(bench.connect(client: client).order.first)
            if order[0] == 3 { heirs[now] += 1 } else { #expect(now == order[0]) }
        }
        #expect(heirs[3] == 0 && heirs.count { $0 > 20 } == 4, "\(heirs)")
    }

    @Test("R11: consistent hashing goes by the whole address, of either family")
    func consistentHashAddresses() throws {
        var bench = try BalanceBench(.consistentHash, count: 5)
        let v4 = Set((0..<50).compactMap { bench.connect(client: IPAddress(v4: 0xC000_0200 + $0)).order.first })
        let low = Set(
            (0..<50).compactMap { bench.connect(client: IPAddress(high: 1, low: UInt64($0))).order.first })
        #expect(v4.count == 5 && low.count == 5)
    }

    // MARK: Slow start

    @Test(
        "slow_start: the share grows from a tenth to the whole",
        arguments: [Balance.roundRobin, .leastConnections, .randomOfTwo, .consistentHash])
    func slowStart(_ balance: Balance) throws {
        var bench = try BalanceBench(
            balance, count: 4, clauses: [Clause(name: "slow_start", values: [.duration(.seconds(30))])])
        func share(after seconds: UInt64) throws -> Double {
            bench.cell(0).pointee.eligibleSince.store(1_000_000_000, ordering: .relaxed)
            bench.run.now = Instant(nanoseconds: 1_000_000_000 * (1 + seconds))
            for index in 0..<4 {
                while bench.cell(index).pointee.active.current > 0 { bench.cell(index).pointee.active.remove() }
            }
            var count = 0
            for number in 0..<4000 {
                let first = try #require(
                    bench.connect(client: IPAddress(high: 7, low: UInt64(number))).order.first)
                bench.cell(first).pointee.active.add()
                if first == 0 { count += 1 }
            }
            return Double(count) / 1000
        }
        let shares = try [share(after: 0), share(after: 15), share(after: 30)]
        #expect((0.05...0.25).contains(shares[0]), "\(shares)")
        #expect((0.4...0.8).contains(shares[1]), "\(shares)")
        #expect((0.9...1.1).contains(shares[2]), "\(shares)")
    }

    @Test("slow_start: if all start, all share", arguments: Balance.allCases)
    func allStart(_ balance: Balance) throws {
        var bench = try BalanceBench(
            balance, count: 3, clauses: [Clause(name: "slow_start", values: [.duration(.seconds(30))])])
        for index in 0..<3 { bench.cell(index).pointee.eligibleSince.store(1_000_000_000, ordering: .relaxed) }
        for _ in 0..<100 { #expect(bench.connect().order.count == 3) }
    }

    // MARK: Who is out

    @Test("R12, R13: all out is not the same as none there; a panic block uses them all")
    func allOut() throws {
        var fast = try BalanceBench(.roundRobin, count: 2, clauses: [BalanceBench.health(.failFast)])
        fast.cell(0).pointee.probe.store(BackendCell.Probe.down.rawValue, ordering: .relaxed)
        fast.cell(1).pointee.ejectedUntil.store(fast.run.now.nanoseconds + 2_500_000_000, ordering: .relaxed)
        let refused = fast.connect()
        #expect(refused.reason == "backend.no_healthy_backend upstream" && refused.order.isEmpty)
        #expect(
            refused.why == "route rt_1 of env org_1/app_1/env_1, 2 ready, out: [fd00::1]:9000 (i-0) probe down, "
                + "[fd00::2]:9000 (i-1) ejected for 3 more seconds")
        #expect(fast.run.facts.ejection?.pointee.after == 5)

        var panic = try BalanceBench(.roundRobin, count: 2, clauses: [BalanceBench.health(.useAll)])
        for index in 0..<2 { panic.cell(index).pointee.ejectedUntil.store(.max, ordering: .relaxed) }
        let used = panic.connect()
        #expect(used.reason == nil && used.order.count == 2 && used.why.contains("(panic)"))
        panic.cell(1).pointee.ejectedUntil.store(0, ordering: .relaxed)
        #expect(panic.connect().order == [1])
    }

    @Test("max_connections of backends: full ones are passed over; all full has its own name")
    func backendsFull() throws {
        var bench = try BalanceBench(.roundRobin, count: 2, backendLimit: 1)
        bench.cell(0).pointee.active.add()
        #expect(bench.firsts(4) == [0, 4])
        bench.cell(1).pointee.active.add()
        let refused = bench.connect()
        #expect(refused.reason == "backend.backends_full upstream")
        #expect(refused.why.contains("full with 1 connections"))
    }

    @Test("max_connections of a route: counted, refused at the limit, given back at the end")
    func routeFull() throws {
        var bench = try BalanceBench(.roundRobin, count: 1, routeLimit: 2)
        var reservations: [Reservations] = []
        for _ in 0..<2 {
            #expect(bench.connect().reason == nil)
            reservations.append(bench.run.lasting.reservations)
        }
        let refused = bench.connect()
        #expect(refused.reason == "backend.route_full client")
        #expect(refused.why == "route rt_1 of env org_1/app_1/env_1 is at its limit of 2 connections")
        #expect(bench.route.pointee.cell.pointee.active.current == 2)
        reservations[0].release()
        #expect(bench.connect().reason == nil)
    }

    @Test("a connection that can't be counted is refused, and not counted")
    func noRoomForReservations() throws {
        var bench = try BalanceBench(.roundRobin, count: 1, routeLimit: 2)
        let other = UnsafeMutablePointer<ReservationCount>.allocate(capacity: 1)
        other.initialize(to: ReservationCount())
        defer { other.deinitialize(count: 1).deallocate() }
        for _ in 0..<Reservations.capacity { _ = bench.run.lasting.reservations.append(other) }
        let verdict = bench.run.evaluate(BackendFilter.self, bench.settings, &bench.state).verdict
        #expect(FilterHarness.reason(verdict, of: BackendFilter.self) == "backend.too_many_limits node")
        #expect(bench.route.pointee.cell.pointee.active.current == 0)
    }

    @Test("explain changes nothing that others share, and foretells the next connection", arguments: Balance.allCases)
    func dryRun(_ balance: Balance) throws {
        var bench = try BalanceBench(balance, count: 5, routeLimit: 1)
        bench.cell(0).pointee.ejectedUntil.store(.max, ordering: .relaxed)
        bench.run.isDryRun = true
        let (first, second) = (bench.connect(), bench.connect())
        #expect(bench.route.group.pointee.cell.pointee.cursor.load(ordering: .relaxed) == 0)
        #expect(bench.route.pointee.cell.pointee.active.current == 0)
        #expect(first.why.contains("by \(balance.name): "))
        guard balance != .randomOfTwo else { return }
        #expect(first.order == second.order)
        bench.run.isDryRun = false
        #expect(bench.connect().order == first.order)
    }
}
