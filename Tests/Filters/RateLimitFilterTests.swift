import Pipeline
import PipelineLimits
import TestSupport
import Testing

@testable import FilterRateLimit

@Suite("rate_limit")
struct RateLimitFilterTests {
    private static func table(
        _ key: LimitKey, rate: ConnectionRate? = nil, concurrent: UInt32? = nil, bytesDown: ByteRate? = nil,
        entries: UInt64 = 64
    ) throws -> LimitTable {
        let settings = LimitSettings(
            key: key, rate: rate, concurrent: concurrent, bytesDown: bytesDown, entries: entries)
        return try #require(LimitTable(name: "per_test", settings: settings, seed: .init(1, 2)))
    }
    private static func clauses(_ table: LimitTable) -> [Clause] { [Clause(name: "limit", values: [.block(table)])] }
    private static let once = ConnectionRate(count: 1, period: .seconds(1), burst: 1)

    /// What a new connection from `peer` is told.
    private func verdict(
        _ run: inout FilterHarness, _ table: LimitTable, from peer: String
    ) throws -> (verdict: Verdict, explanation: String) {
        run.peer = FilterHarness.endpoint(peer)
        return try run.run(RateLimitFilter.self, Self.clauses(table))
    }

    @Test("a client is its network: the prefix for IPv6, one address or a prefix for IPv4")
    func clientNetworks() throws {
        let table = try Self.table(.client(v6: 64, v4: 32), rate: Self.once)
        var run = FilterHarness()
        #expect(try verdict(&run, table, from: "[2001:db8:0:1::1]:1").verdict == .next)
        #expect(try verdict(&run, table, from: "[2001:db8:0:1:ffff::9]:2").verdict == .refuse(0))
        #expect(try verdict(&run, table, from: "[2001:db8:0:2::1]:1").verdict == .next)
        #expect(try verdict(&run, table, from: "198.51.100.1:1").verdict == .next)
        #expect(try verdict(&run, table, from: "198.51.100.2:1").verdict == .next)
        #expect(try verdict(&run, table, from: "[::ffff:198.51.100.2]:1").verdict == .refuse(0), "the same host")

        let wide = try Self.table(.client(v6: 32, v4: 24), rate: Self.once)
        #expect(try verdict(&run, wide, from: "198.51.100.1:1").verdict == .next)
        #expect(try verdict(&run, wide, from: "198.51.100.2:1").verdict == .refuse(0))
        #expect(try verdict(&run, wide, from: "198.51.101.2:1").verdict == .next)
        #expect(try verdict(&run, wide, from: "[2001:db8:1::1]:1").verdict == .next)
        #expect(try verdict(&run, wide, from: "[2001:db8:2::1]:1").verdict == .refuse(0))
    }

    @Test("`connection`: each has byte buckets of its own, whoever it is, and gives them back at its end")
    func eachConnection() throws {
        let table = try Self.table(.connection, bytesDown: ByteRate(bytesPerSecond: 1000), entries: 8)
        var runs: [FilterHarness] = []
        for serial in UInt64(1)...8 {
            var run = FilterHarness()
            run.lasting.serial = serial << 48 | 7
            let (verdict, text) = try run.run(RateLimitFilter.self, Self.clauses(table))
            #expect(verdict == .next && text == "the connection has 1 connections")
            runs.append(run)
        }
        let buckets = Set(runs.compactMap { $0.lasting.buckets[0] })
        #expect(buckets.count == 8)
        var late = FilterHarness()
        late.lasting.serial = 99
        #expect(try late.run(RateLimitFilter.self, Self.clauses(table)).verdict == .refuse(2), "the table is full")
    }

    @Test("networks of every length", arguments: [1, 31, 32, 33, 63, 64, 65, 96, 127, 128] as [UInt8])
    func lengths(_ length: UInt8) {
        let all = IPAddress(high: .max, low: .max)
        let network = RateLimitFilter.network(all, v6: length, v4: 32)
        #expect(network.high.nonzeroBitCount + network.low.nonzeroBitCount == Int(length))
        #expect(network.high.leadingZeroBitCount == 0)
        let v4 = RateLimitFilter.network(IPAddress(v4: .max), v6: 1, v4: min(length, 32))
        #expect(v4.isIPv4 && v4.v4Bits.nonzeroBitCount == Int(min(length, 32)))
    }

    @Test("R17: the believed client is counted, not the sender in between")
    func believedClient() throws {
        let table = try Self.table(.client(v6: 64, v4: 32), rate: Self.once)
        var run = FilterHarness()
        for host in 1...3 {
            run.resetFacts()
            run.lasting.client = ClientAddress(FilterHarness.endpoint("198.51.100.\(host):1"))
            #expect(try run.evaluate(RateLimitFilter.self, Self.clauses(table)) == .next)
        }
    }

    @Test(
        "by route, env, org, instance and listener",
        arguments: [.route, .env, .org, .instance, .listener] as [LimitKey])
    func otherKeys(_ key: LimitKey) throws {
        let table = try Self.table(key, rate: Self.once)
        var run = FilterHarness()
        let routes = [
            run.routes.add(FakeRoute("rt_1", backends: ["[fd00::1]:1"])),
            run.routes.add(FakeRoute("rt_2", backends: ["[fd00::2]:1"])),
        ]
        func ask(_ route: Int, listener: UInt16) throws -> Verdict {
            run.resetFacts()
            run.lasting.listener = listener
            run.lasting.hint = .tcpRaw
            run.facts.route = routes[route]
            run.facts.candidates.append(routes[route].backends.pointer(0))
            return try run.evaluate(RateLimitFilter.self, Self.clauses(table))
        }
        #expect(try ask(0, listener: 3) == .next)
        #expect(try ask(0, listener: 3) == .refuse(0))
        // The fakes share env, org and the instance's name.
        #expect(try ask(1, listener: 3) == (key == .route ? .next : .refuse(0)))
        #expect(try ask(1, listener: 4) == (key == .listener ? .next : .refuse(0)))
    }

    private static func route(_ org: String, _ app: String, _ env: String, id: String) -> FakeRoute {
        var route = FakeRoute(id, env: env, backends: ["[fd00::1]:1"])
        (route.org, route.app) = (org, app)
        return route
    }

    @Test(
        "R20: what is called the same in two envs has two entries: an env is org, app and env",
        arguments: [.env, .instance, .route] as [LimitKey],
        [
            (["acme", "shop", "prod"], ["globex", "web", "prod"]),
            (["acme", "shop", "prod"], ["acme", "web", "prod"]),
            (["acme", "shop", "prod"], ["globex", "shop", "prod"]), (["a", "bc", "prod"], ["ab", "c", "prod"]),
            (["a", "b", "cd"], ["a", "bc", "d"]), (["a/b", "c", "d"], ["a", "b/c", "d"]),
        ])
    func wholePath(_ key: LimitKey, _ envs: ([String], [String])) throws {
        let table = try Self.table(key, rate: Self.once)
        var run = FilterHarness()
        let routes = [envs.0, envs.1].map {
            run.routes.add(Self.route($0[0], $0[1], $0[2], id: key == .route ? "rt" : "rt_\($0)"))
        }
        func ask(_ route: Int) throws -> (verdict: Verdict, explanation: String) {
            run.resetFacts()
            run.facts.route = routes[route]
            run.facts.candidates.append(routes[route].backends.pointer(0))
            return try run.run(RateLimitFilter.self, Self.clauses(table))
        }
        #expect(try ask(0).verdict == .next)
        #expect(try ask(0).verdict == .refuse(0))
        #expect(try ask(1).verdict == .next)
        let (verdict, why) = try ask(1)
        #expect(verdict == .refuse(0))
        let who = key == .env ? "env " : key == .instance ? "instance i-0 of " : "route rt of "
        #expect(why.hasPrefix(who + routes[1].pointee.owner.pointee.name.path + " may open 0"), "\(why)")
    }

    @Test("R20: an org's limit is the org's, whichever of its envs it is") func wholeOrg() throws {
        let table = try Self.table(.org, rate: Self.once)
        var run = FilterHarness()
        for (org, expected) in [("acme", Verdict.next), ("acme", .refuse(0)), ("globex", .next)] {
            run.resetFacts()
            run.facts.route = run.routes.add(Self.route(org, "app_\(expected)", "prod", id: "rt"))
            #expect(try run.evaluate(RateLimitFilter.self, Self.clauses(table)) == expected, "\(org)")
        }
    }

    @Test("without a route, which a stage in shadow mode let pass, there is nothing to count")
    func noRoute() throws {
        let table = try Self.table(.env, rate: Self.once)
        var run = FilterHarness()
        for _ in 0..<3 { #expect(try run.evaluate(RateLimitFilter.self, Self.clauses(table)) == .next) }
        #expect(table.touched == 0)
    }

    @Test("what it counts, the connection holds and gives back; what it paces, the relay obeys")
    func holdsAndPacers() throws {
        let table = try Self.table(
            .listener, concurrent: 1, bytesDown: ByteRate(bytesPerSecond: 1000, burst: 4096))
        var run = FilterHarness()
        #expect(try run.evaluate(RateLimitFilter.self, Self.clauses(table)) == .next)
        #expect(run.lasting.buckets.count == 1)
        #expect(run.lasting.buckets[0]?.pointee.up.isUnlimited == true)
        #expect(run.lasting.buckets[0]?.pointee.down.isUnlimited == false)
        var first = run.lasting.reservations
        run.resetFacts()
        let (verdict, why) = try run.run(RateLimitFilter.self, Self.clauses(table))
        #expect(
            verdict == .refuse(1)
                && FilterHarness.reason(verdict, of: RateLimitFilter.self) == "rate_limit.too_many_connections client")
        #expect(why == "listener 0 has 1 connections, which is its limit")
        first.release()
        #expect(try run.evaluate(RateLimitFilter.self, Self.clauses(table)) == .next)
    }

    @Test("a connection that can hold no more is refused, and leaves no count behind")
    func noRoomToHold() throws {
        let table = try Self.table(.listener, concurrent: 5)
        var run = FilterHarness()
        let other = UnsafeMutablePointer<ReservationCount>.allocate(capacity: 1)
        other.initialize(to: ReservationCount())
        defer { other.deinitialize(count: 1).deallocate() }
        while run.lasting.reservations.append(UnsafePointer(other)) {}
        #expect(try run.evaluate(RateLimitFilter.self, Self.clauses(table)) == .refuse(1))
        #expect(table.handle.look(LimitKeyBits(high: 0, low: 0), at: run.now).active == 0)
    }

    @Test("R28: each refusal has its own name and says who and why")
    func refusals() throws {
        let table = try Self.table(.client(v6: 56, v4: 32), rate: Self.once, entries: 8)
        var run = FilterHarness()
        let fresh = try verdict(&run, table, from: "[2001:db8:0:1::1]:1")
        #expect(fresh.explanation == "client 2001:db8::/56 may open 0 connections now")
        let (rate, why) = try verdict(&run, table, from: "[2001:db8:0:2::1]:1")
        #expect(FilterHarness.reason(rate, of: RateLimitFilter.self) == "rate_limit.rate_exceeded client")
        #expect(why == "client 2001:db8::/56 may open 0 connections now: its rate is exhausted")
        for host in 1...7 { _ = try verdict(&run, table, from: "198.51.100.\(host):1") }
        let (full, noRoom) = try verdict(&run, table, from: "198.51.100.8:1")
        #expect(FilterHarness.reason(full, of: RateLimitFilter.self) == "rate_limit.table_full node")
        #expect(noRoom == "client 198.51.100.8/32 is new to the limit per_test, whose table is full")
    }

    @Test("explain asks as often as it likes, and uses nothing up")
    func dryRun() throws {
        let table = try Self.table(.listener, rate: Self.once, concurrent: 1)
        let settings = try RateLimitFilter.settings(Directive(keyword: "rate_limit", clauses: Self.clauses(table)))
        defer { RateLimitFilter.dispose(settings) }
        var run = FilterHarness()
        func dryRun() -> Verdict {
            var state: Void = ()
            let (now, routes) = (run.now, run.routes.handle)
            var (facts, prelude, memory) = (run.facts, Prelude(), StageMemory())
            return withUnsafeMutablePointer(to: &facts) { facts in
                withUnsafeMutablePointer(to: &prelude) { prelude in
                    withUnsafeMutablePointer(to: &memory) { memory in
                        RateLimitFilter.evaluate(
                            settings, &state,
                            ConnectionView(
                                facts: facts, bytes: .init(start: nil, count: 0), input: .open, now: now,
                                routes: routes, isDryRun: true),
                            Effects(facts: facts, prelude: prelude, memory: memory))
                    }
                }
            }
        }
        for _ in 0..<5 { #expect(dryRun() == .next) }
        #expect(table.touched == 0)
        #expect(try run.evaluate(RateLimitFilter.self, Self.clauses(table)) == .next)
        for _ in 0..<5 { #expect(dryRun() == .refuse(0)) }
        #expect(table.handle.look(LimitKeyBits(high: 0, low: 0), at: run.now).active == 1)
    }

    @Test("it needs what its key needs")
    func needs() throws {
        func needs(_ key: LimitKey) throws -> Set<Fact> {
            let table = try Self.table(key, rate: Self.once)
            let settings = try RateLimitFilter.settings(Directive(keyword: "rate_limit", clauses: Self.clauses(table)))
            defer { RateLimitFilter.dispose(settings) }
            return RateLimitFilter.facts(settings).needs
        }
        #expect(try needs(.client(v6: 64, v4: 32)).isEmpty && needs(.listener).isEmpty)
        #expect(try needs(.route) == [.route] && needs(.env) == [.route] && needs(.org) == [.route])
        #expect(try needs(.instance) == [.backend])
    }
}
