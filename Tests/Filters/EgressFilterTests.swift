import FilterAntiSpoof
import FilterBackendSelect
import FilterRateLimit
import Pipeline
import PipelineLimits
import TestSupport
import Testing

/// The stages of an egress pipeline.
@Suite("Egress stages") struct EgressFilterTests {
    /// A harness that knows two instances of one env, and a function that frees what it needed.
    private func harness() -> (run: FilterHarness, free: () -> Void) {
        var run = FilterHarness()
        let identities = (0..<2).map {
            TestIdentity.make(number: UInt32($0), id: "i_\($0)", env: "env_a", app: "shop", org: "acme")
        }
        let address = { (text: String) in FilterHarness.endpoint(text).address }
        run.instances = InstanceDirectory(
            identities.map { UnsafePointer($0) },
            addresses: [(address("[fd00::1]:0"), 0), (address("10.0.0.1:0"), 0), (address("[fd00::2]:0"), 1)])
        run.hint = .tcpRaw
        let directory = run.instances
        return (
            run,
            {
                for identity in identities { TestIdentity.free(identity) }
                directory.deallocate()
            }
        )
    }

    private let assigned = [Clause(name: "source", values: [])]

    @Test("R19: an assigned source passes, by either family, and gives the identity")
    func assignedSource() throws {
        let (made, free) = harness()
        var run = made
        defer { free() }
        for peer in ["[fd00::1]:40000", "10.0.0.1:40000"] {
            run.peer = FilterHarness.endpoint(peer)
            let (verdict, why) = try run.run(AntiSpoofFilter.self, assigned)
            #expect(verdict == .next)
            #expect(run.facts.identity?.pointee.id.string == "i_0")
            #expect(why.hasSuffix("is assigned to instance i_0 of acme/shop/env_a"), "\(why)")
        }
    }

    @Test(
        "R19: any other source is refused, and what it sends is not looked at",
        arguments: [
            "[fd00::3]:40000", "10.0.0.2:40000", "[::ffff:10.0.0.3]:1", "[::1]:1", "0.0.0.0:1",
        ])
    func otherSource(_ peer: String) throws {
        let (made, free) = harness()
        var run = made
        defer { free() }
        run.peer = FilterHarness.endpoint(peer)
        let (verdict, why) = try run.run(AntiSpoofFilter.self, assigned)
        #expect(FilterHarness.reason(verdict, of: AntiSpoofFilter.self) == "anti_spoof.spoofed_source client")
        #expect(run.facts.identity == nil)
        #expect(why.hasSuffix("is assigned to no instance of this node"), "\(why)")
    }

    @Test("R30: an instance of a suspended env is known, and refused, also where only a later stage refuses")
    func suspendedSource() throws {
        let identity = TestIdentity.make(
            number: 7, id: "i_7", env: "env_a", app: "shop", org: "acme", isSuspended: true)
        let directory = InstanceDirectory(
            [UnsafePointer(identity)], addresses: [(FilterHarness.endpoint("[fd00::7]:1").address, 0)])
        defer {
            directory.deallocate()
            TestIdentity.free(identity)
        }
        var run = FilterHarness()
        run.instances = directory
        run.peer = FilterHarness.endpoint("[fd00::7]:40000")
        let (verdict, why) = try run.run(AntiSpoofFilter.self, assigned)
        #expect(FilterHarness.reason(verdict, of: AntiSpoofFilter.self) == "anti_spoof.suspended node")
        #expect(run.facts.identity?.pointee.id.string == "i_7")
        #expect(why.hasSuffix("of acme/shop/env_a, and the env, or its org, is suspended"), "\(why)")
        let direct = [Clause(name: "original_destination", values: [])]
        let later = try run.evaluate(BackendFilter.self, direct)
        #expect(FilterHarness.reason(later, of: BackendFilter.self) == "backend.suspended node")
        #expect(run.facts.direct == .no)
        run.lasting.release()
    }

    @Test("R19: a believed client changes nothing: the socket's address counts")
    func believedClient() throws {
        let (made, free) = harness()
        var run = made
        defer { free() }
        run.peer = FilterHarness.endpoint("[fd00::3]:40000")
        run.lasting.client = ClientAddress(FilterHarness.endpoint("[fd00::1]:40000"))
        #expect(try run.evaluate(AntiSpoofFilter.self, assigned) != .next)
    }

    @Test("`source assigned` stands alone, and `anti_spoof` says one of the two")
    func combinations() {
        for clauses in [assigned + [Clause(name: "refuse", values: [])], []] {
            #expect(throws: SettingsError.self) {
                try AntiSpoofFilter.settings(Directive(keyword: "anti_spoof", clauses: clauses))
            }
        }
    }

    @Test(
        "original_destination connects to where the client was going",
        arguments: [
            ("original_destination", DirectConnect.fromHost), ("from_instance", DirectConnect.fromClient),
        ])
    func originalDestination(_ clause: String, _ direct: DirectConnect) throws {
        let (made, free) = harness()
        var run = made
        defer { free() }
        let (verdict, why) = try run.run(BackendFilter.self, [Clause(name: clause, values: [])])
        #expect(verdict == .next)
        #expect(run.facts.direct == direct && run.facts.route == nil && run.facts.candidates.count == 0)
        #expect(run.facts.unreachableFor == (direct == .fromHost ? .seconds(30) : .zero))
        #expect(why.hasPrefix("is relayed to [2001:db8::1]:443, from "), "\(why)")
        #expect(throws: SettingsError.self) {
            try BackendFilter.settings(
                Directive(
                    keyword: "backend",
                    clauses: [Clause(name: clause, values: []), Clause(name: "slow_start", values: [])]))
        }
    }

    @Test("R20: senders of two envs with the same id have two entries, by env and by instance")
    func senderPaths() throws {
        for (key, shared) in [(LimitKey.env, false), (.instance, false), (.org, true)] {
            let identities = ["shop", "web"].enumerated().map {
                TestIdentity.make(number: UInt32($0), id: "i", env: "prod", app: $1, org: "acme")
            }
            var run = FilterHarness()
            run.instances = InstanceDirectory(
                identities.map { UnsafePointer($0) },
                addresses: (0..<2).map { (IPAddress(high: 0xFD << 56, low: UInt64($0)), $0) })
            let directory = run.instances
            defer {
                for identity in identities { TestIdentity.free(identity) }
                directory.deallocate()
            }
            let table = try #require(
                LimitTable(name: "l", settings: LimitSettings(key: key, concurrent: 1, entries: 100)))
            let clauses = [Clause(name: "limit", values: [.block(table)])]
            let verdicts = try ["[fd00::]:1", "[fd00::1]:1", "[fd00::1]:2"].map { peer in
                run.peer = FilterHarness.endpoint(peer)
                run.resetFacts()
                _ = try run.evaluate(AntiSpoofFilter.self, assigned)
                return try run.evaluate(RateLimitFilter.self, clauses)
            }
            #expect(verdicts == [.next, shared ? .refuse(1) : .next, .refuse(1)], "\(key)")
        }
    }

    @Test(
        "R20: limits by instance, env and org are the sender's",
        arguments: [
            (LimitKey.instance, false), (LimitKey.env, true), (LimitKey.org, true),
        ])
    func senderLimits(_ key: LimitKey, _ isShared: Bool) throws {
        let (made, free) = harness()
        var run = made
        defer { free() }
        let table = try #require(
            LimitTable(name: "l", settings: LimitSettings(key: key, concurrent: 1, entries: 100)))
        let clauses = [Clause(name: "limit", values: [.block(table)])]
        let connect = { (peer: String) in
            run.peer = FilterHarness.endpoint(peer)
            _ = try run.evaluate(AntiSpoofFilter.self, assigned)
            return FilterHarness.reason(try run.evaluate(RateLimitFilter.self, clauses), of: RateLimitFilter.self)
        }
        let full = "rate_limit.too_many_connections client"
        #expect(try connect("[fd00::1]:1") == nil)
        // The same instance by its other family.
        #expect(try connect("10.0.0.1:1") == full)
        #expect(try connect("[fd00::2]:1") == (isShared ? full : nil))
    }
}
