import Pipeline
import PipelineRouting
import Testing

@Suite("Rules over routes")
struct RoutingStateTests {
    let state = RoutingState()

    private func rejected(_ problems: [RouteProblem], _ id: String, _ parts: String...) -> Bool {
        problems.contains { problem in
            problem.severity == .rejected && problem.id == id && parts.allSatisfy { problem.description.contains($0) }
        }
    }

    @Test("R1: a route is found at its own port only")
    func ports() {
        state.apply([TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")])
        #expect(state.snapshot.named("A.example.com.")?.pointee.id.string == "r1")
        #expect(state.snapshot.named("a.example.com", 8443) == nil)
        #expect(state.snapshot.named("b.example.com") == nil)
        #expect(state.snapshot.named("example.com") == nil)
    }

    @Test("R4: exact wins over wildcard, which stands for one label")
    func wildcards() {
        let result = state.apply([
            TestRoute(id: "w", env: "env_a", hostname: "*.example.com"),
            TestRoute(id: "x", env: "env_a", hostname: "x.example.com"),
            TestRoute(id: "w2", env: "env_b", hostname: "*.deep.example.com"),
        ])
        #expect(result.problems.isEmpty)
        #expect(state.snapshot.named("x.example.com")?.pointee.id.string == "x")
        #expect(state.snapshot.named("y.example.com")?.pointee.id.string == "w")
        #expect(state.snapshot.named("y.deep.example.com")?.pointee.id.string == "w2")
        #expect(state.snapshot.named("a.b.example.com") == nil)
        #expect(state.snapshot.named("example.com") == nil)
    }

    @Test("R24: of two routes with one id neither counts, though one breaks a rule; what was there before stays")
    func twiceAndRefused() {
        let bad = TestRoute(id: "r1", env: "env_a", hostname: nil)
        let good = TestRoute(id: "r1", env: "env_a", hostname: "b.example.com")
        for earlier in [[], [TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")]] {
            for routes in [[bad, good], [good, bad]] {
                let state = RoutingState()
                state.apply(earlier)
                let result = state.apply(routes)
                #expect(result.problems.count == 2)
                #expect(rejected(result.problems, "r1", "twice"))
                #expect(state.snapshot.listing().map(\.hostname) == earlier.map(\.hostname))
            }
        }
    }

    @Test("R5: a name belongs to one env, at every port; the refusal names both")
    func ownership() {
        state.apply([TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")])
        let result = state.apply([
            TestRoute(id: "r1", env: "env_a", hostname: "a.example.com"),
            TestRoute(id: "r2", env: "env_b", hostname: "A.Example.COM", port: 8443),
            TestRoute(id: "r3", env: "env_a", hostname: "a.example.com", port: 9443),
        ])
        #expect(rejected(result.problems, "r2", "org/app/env_a", "r1", "org/app/env_b", "a.example.com"))
        #expect(result.problems.count == 1)
        #expect(state.snapshot.named("a.example.com", 8443) == nil)
        #expect(state.snapshot.named("a.example.com", 9443)?.pointee.owner.pointee.env.string == "env_a")
    }

    @Test("R5: what is applied wins over what comes earlier in a later document")
    func appliedWins() {
        let first = TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")
        let second = TestRoute(id: "r2", env: "env_b", hostname: "a.example.com")
        state.apply([first])
        let result = state.apply([second, first])
        #expect(rejected(result.problems, "r2", "env_a"))
        #expect(state.snapshot.named("a.example.com")?.pointee.id.string == "r1")
        #expect(state.apply([second]).problems.isEmpty)
        #expect(state.snapshot.named("a.example.com")?.pointee.id.string == "r2")
    }

    @Test("R4: a name under another env's wildcard, and a wildcard over another env's name")
    func wildcardOwnership() {
        let wildcard = TestRoute(id: "w", env: "env_a", hostname: "*.example.com")
        let name = TestRoute(id: "x", env: "env_b", hostname: "x.example.com", port: 8443)
        state.apply([wildcard])
        #expect(rejected(state.apply([name, wildcard]).problems, "x", "env_a", "wildcard", "env_b"))
        #expect(state.snapshot.named("y.example.com")?.pointee.id.string == "w")
        let other = RoutingState()
        other.apply([name])
        #expect(rejected(other.apply([wildcard, name]).problems, "w", "env_b", "env_a"))
        #expect(other.snapshot.named("y.example.com") == nil)
        #expect(other.apply([wildcard]).problems.isEmpty)
        #expect(other.snapshot.named("y.example.com")?.pointee.id.string == "w")
    }

    @Test("R8: claims to a port that can't be told apart")
    func portConflicts() {
        let raw = TestRoute(id: "raw", env: "env_a", port: 5432, raw: true)
        let raw2 = TestRoute(id: "raw2", env: "env_a", port: 5432, raw: true)
        let tls = TestRoute(id: "tls", env: "env_a", hostname: "a.example.com", port: 5432)
        let tls2 = TestRoute(id: "tls2", env: "env_a", hostname: "a.example.com", port: 5432, process: "x")
        #expect(rejected(state.apply([raw, raw2]).problems, "raw2", "5432", "\"raw\""))
        #expect(rejected(state.apply([raw, tls]).problems, "tls", "belongs to the raw route"))
        #expect(rejected(state.apply([tls, tls2]).problems, "tls2", "\"tls\""))
        #expect(state.snapshot.sole(5432)?.pointee.id.string == "tls")
        // Within one env the lower id has it, whatever was there before.
        #expect(rejected(state.apply([tls, raw]).problems, "tls", "belongs to the raw route"))
        let last = TestRoute(id: "zz", env: "env_a", port: 5432, raw: true)
        #expect(rejected(state.apply([last, tls]).problems, "zz", "by name"))
    }

    @Test("R8: the denylist wins", arguments: [23, 25, 137, 138, 139] as [UInt16])
    func denied(port: UInt16) {
        let facts = ListenerFacts(
            address: .unspecified, ports: 1...65535, hint: .tcpRaw, injectsProxy: true, pipeline: "raw")
        let state = RoutingState(seed: testSeed, listeners: [facts])
        let result = state.apply([TestRoute(id: "r", env: "env_a", port: port, raw: true)])
        #expect(rejected(result.problems, "r", "listen_port: \(port) is in denied_ports"))
        #expect(state.snapshot.sole(port) == nil)
    }

    @Test("R2, R16: a route that breaks a rule of its own")
    func ownRules() {
        let v2 = ", \"proxy_protocol\": \"v2\""
        let expects = ", \"backend_expects_proxy_protocol\": true"
        let result = state.apply([
            TestRoute(id: "noname", env: "env_a"),
            TestRoute(id: "rawname", env: "env_a", hostname: "raw.example.com", port: 1, raw: true),
            TestRoute(id: "v2", env: "env_a", hostname: "v2.example.com", extra: v2),
            TestRoute(id: "expects", env: "env_a", hostname: "e.example.com", extra: expects),
            TestRoute(id: "both", env: "env_a", hostname: "both.example.com", extra: v2 + expects),
            TestRoute(id: "nobody", env: "env_x", hostname: "x.example.com"),
        ])
        #expect(rejected(result.problems, "noname", "hostname"))
        #expect(rejected(result.problems, "v2", "backend_expects_proxy_protocol is not true"))
        #expect(rejected(result.problems, "expects", "could forge a header"))
        #expect(rejected(result.problems, "nobody", "env_x"))
        #expect(result.problems.count == 4)
        #expect(state.snapshot.named("both.example.com")?.pointee.flags == [.proxyHeader])
        // Those that disagree with their backends are there, and refuse.
        #expect(state.snapshot.named("v2.example.com")?.pointee.flags == [.proxyHeader, .proxyMismatch])
        #expect(state.snapshot.named("e.example.com")?.pointee.flags == [.proxyMismatch])
        #expect(state.snapshot.routeCount == 4)
    }

    @Test("R16: PROXY v2 where the pipeline has no such stage; a port without listener is only told")
    func listeners() {
        func facts(_ port: UInt16, _ hint: ProtocolHint, _ injects: Bool) -> ListenerFacts {
            ListenerFacts(
                address: .unspecified, ports: port...port, hint: hint, injectsProxy: injects, pipeline: "p\(port)")
        }
        let state = RoutingState(
            seed: testSeed,
            listeners: [
                facts(443, .tlsPassthrough, false), facts(8443, .tlsPassthrough, true), facts(5432, .tcpRaw, false),
            ])
        let v2 = ", \"proxy_protocol\": \"v2\", \"backend_expects_proxy_protocol\": true"
        let result = state.apply([
            TestRoute(id: "r1", env: "env_a", hostname: "a.example.com", port: 443, extra: v2),
            TestRoute(id: "r2", env: "env_a", hostname: "a.example.com", port: 8443, extra: v2),
            TestRoute(id: "r3", env: "env_a", hostname: "a.example.com", port: 5432),
            TestRoute(id: "r4", env: "env_a", hostname: "a.example.com", port: 7777),
            TestRoute(id: "r5", env: "env_a", port: 8443, raw: true),
        ])
        #expect(rejected(result.problems, "r1", "p443", "proxy_v2"))
        #expect(rejected(result.problems, "r3", "tcp_raw"))
        #expect(rejected(result.problems, "r5", "tls_passthrough"))
        #expect(
            result.problems.contains { $0.severity == .warning && $0.id == "r4" && $0.problem.contains("no listener") })
        #expect(state.snapshot.named("a.example.com", 8443) != nil)
        #expect(state.snapshot.named("a.example.com", 7777) != nil)
        #expect(state.snapshot.named("a.example.com", 443)?.pointee.flags == [.proxyHeader, .proxyMismatch])
        #expect(state.snapshot.routeCount == 3)
    }

    @Test("R6: the sole route of a port, until there are two")
    func sole() {
        let first = TestRoute(id: "r1", env: "env_a", hostname: "a.example.com", extra: ", \"allow_non_tls\": true")
        state.apply([first, TestRoute(id: "raw", env: "env_a", port: 5432, raw: true)])
        #expect(state.snapshot.sole(443)?.pointee.id.string == "r1")
        #expect(state.snapshot.sole(443)?.pointee.flags == [.allowNonTLS])
        #expect(state.snapshot.sole(5432)?.pointee.flags == [.raw])
        #expect(state.snapshot.sole(80) == nil)
        state.apply([first, TestRoute(id: "r2", env: "env_b", hostname: "b.example.com")])
        #expect(state.snapshot.sole(443) == nil)
        #expect(state.snapshot.sole(5432) == nil)
        state.apply([TestRoute(id: "r2", env: "env_b", hostname: "b.example.com")])
        #expect(state.snapshot.sole(443)?.pointee.id.string == "r2")
    }

    @Test("R10, R11: backends are the ready instances in one order; cells outlive tables")
    func backends() throws {
        let route = TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")
        let sharing = TestRoute(id: "r2", env: "env_a", hostname: "b.example.com")
        let instances = [
            instance("i2", address: "fd00::2"), instance("i1", address: "fd00::1"),
            instance("i3", address: "fd00::3", status: "draining"), instance("i4", process: "job", address: "fd00::4"),
            instance("i5", env: "env_b", address: "fd00::5"),
        ]
        state.apply(instances: instances, [route, sharing])
        let before = state.snapshot
        let served = try #require(before.named("a.example.com"))
        #expect(
            served.backends.buffer.map(\.address.endpoint.description) == ["[fd00::1]:8080", "[fd00::2]:8080"])
        #expect(served.backends.buffer.map(\.instance.string) == ["i1", "i2"])
        #expect(served.group == before.named("b.example.com")?.group)
        served.group.pointee.cell.pointee.cursor.add(5, ordering: .relaxed)
        let result = state.apply(instances: [instance("i1", address: "fd00::1")], [route, sharing])
        #expect(result.report?.backendsChanged == 1)
        #expect(result.report?.unchanged == 2)
        let after = try #require(state.snapshot.named("a.example.com"))
        #expect(after.backends.count == 1)
        #expect(after.group.pointee.cell.pointee.cursor.load(ordering: .relaxed) == 5)
        #expect(served.backends.count == 2, "R22: the table before is as it was")
    }

    @Test("R22: the same document again makes no new table")
    func idempotent() {
        let routes = [TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")]
        state.apply(instances: [instance("i1", address: "fd00::1")], routes)
        let before = state.snapshot
        let result = state.apply(instances: [instance("i1", address: "fd00::1")], routes)
        #expect(state.snapshot === before)
        #expect(result.report?.unchanged == 1)
    }

    @Test("R24: a bad object is quarantined by id and place, its last good version stays, and the rest is applied")
    func quarantine() {
        let good = TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")
        state.apply([good, TestRoute(id: "gone", env: "env_a", hostname: "gone.example.com")])
        let bad = good.json.replacing("443", with: "\"443\"")
        let text = documentText(
            instances: [instance("i1", address: "192.0.2.1"), "7"],
            routes: [bad, TestRoute(id: "r2", env: "env_b", hostname: "b.example.com").json, "[]", "{}"])
        let result = state.applyText(text)
        #expect(rejected(result.problems, "r1", "listen_port", "is a string"))
        #expect(rejected(result.problems, "i1", "overlay_ipv6", "IPv6"))
        #expect(result.problems.contains { $0.object == .route && $0.id == nil && $0.field == "route_id" })
        #expect(result.problems.allSatisfy { $0.origin != nil })
        #expect(result.report?.kept == 1)
        #expect(result.report?.removed == 1)
        #expect(state.snapshot.named("a.example.com") != nil)
        #expect(state.snapshot.named("b.example.com") != nil)
        #expect(state.snapshot.named("gone.example.com") == nil)
    }

    @Test("R24: duplicate ids")
    func duplicates() {
        let first = TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")
        let again = TestRoute(id: "r1", env: "env_a", hostname: "b.example.com")
        let result = state.applyText(
            documentText(
                envs: ["env_a", "env_a"],
                instances: [instance("i1", address: "fd00::1"), instance("i1", address: "fd00::2")],
                routes: [first.json, again.json]))
        // The env says the same both times.
        #expect(result.problems.map(\.severity) == [.warning, .rejected, .rejected, .rejected, .rejected])
        #expect(rejected(result.problems, "r1", "twice") && rejected(result.problems, "i1", "twice"))
        #expect(state.snapshot.routeCount == 0)
    }

    @Test("R5: two envs swap names in one document; a changed route that is refused keeps what it had")
    func swaps() {
        let (a, b, c) = ("a.example.com", "b.example.com", "c.example.com")
        state.apply([
            TestRoute(id: "r1", env: "env_a", hostname: a), TestRoute(id: "r2", env: "env_b", hostname: b),
            TestRoute(id: "r3", env: "env_c", hostname: c),
        ])
        let swapped = [
            TestRoute(id: "r1", env: "env_a", hostname: b), TestRoute(id: "r2", env: "env_b", hostname: a),
            TestRoute(id: "r3", env: "env_c", hostname: c),
        ]
        #expect(state.apply(swapped).problems.isEmpty)
        #expect(state.snapshot.named(a)?.pointee.id.string == "r2")
        #expect(state.snapshot.named(b)?.pointee.id.string == "r1")
        // r1 wants what r3 has, and gets nothing; what it asks for no more is r2's.
        let result = state.apply([
            TestRoute(id: "r1", env: "env_a", hostname: c), TestRoute(id: "r2", env: "env_b", hostname: b),
            TestRoute(id: "r3", env: "env_c", hostname: c),
        ])
        #expect(rejected(result.problems, "r1", "env_c"))
        #expect(result.problems.count == 1)
        #expect(state.snapshot.named(a) == nil)
        #expect(state.snapshot.named(b)?.pointee.id.string == "r2")
        // Where nobody asks for it, it stays.
        let kept = state.apply([
            TestRoute(id: "r2", env: "env_b", hostname: c), TestRoute(id: "r3", env: "env_c", hostname: c),
        ])
        #expect(rejected(kept.problems, "r2", "env_c") && kept.report?.kept == 1)
        #expect(state.snapshot.named(b)?.pointee.id.string == "r2")
    }

    @Test("R5: a chain of routes of which the last is refused: each has what it asks for, and only that one nothing")
    func chain() {
        let count = 60
        func name(_ index: Int) -> String { "h\(index).example.com" }
        let before = (0...count).map { TestRoute(id: "r\($0)", env: "env_\($0)", hostname: name($0)) }
        let envs = before.map(\.env)
        state.apply(envs: envs, before)
        var after = (0..<count).map { TestRoute(id: "r\($0)", env: "env_\($0)", hostname: name($0 + 1)) }
        after.append(before[count])
        let result = state.apply(envs: envs, after.reversed())
        #expect(rejected(result.problems, "r\(count - 1)", "env_\(count)") && result.problems.count == 1)
        #expect(state.snapshot.routeCount == count)
        for index in 0..<(count - 1) {
            #expect(state.snapshot.named(name(index + 1))?.pointee.id.string == "r\(index)")
        }
        after[count] = TestRoute(id: "r\(count)", env: "env_\(count)", hostname: "free.example.com")
        #expect(state.apply(envs: envs, after).problems.isEmpty)
        for index in 0..<count { #expect(state.snapshot.named(name(index + 1))?.pointee.id.string == "r\(index)") }
    }

    @Test("config routes and the state file go through the same rules, and leave each other alone")
    func config() throws {
        let addresses = ["[fd00::10]:8443", "[fd00::11]:8443"].compactMap { Endpoint($0) }.map { BackendSpec($0) }
        var spec = RouteSpec(
            index: 4, id: "rt_web", org: "acme", app: "shop", env: "prod", hostname: "App.example.com.", port: 443,
            hint: .tlsPassthrough, backends: addresses)
        spec.proxyHeader = .v2
        spec.backendExpectsProxy = true
        var bad = spec
        bad.index = 5
        bad.id = "rt_bad"
        bad.hostname = "a..b"
        let (document, problems) = StateDocument.config([spec, bad], seed: testSeed)
        #expect(problems.list.map(\.origin) == [.config(5)])
        #expect(state.apply(document).problems.isEmpty)
        let result = state.apply([
            TestRoute(id: "r1", env: "env_a", hostname: "app.example.com"),
            TestRoute(id: "rt_web", env: "env_a", hostname: "x.example.com"),
            TestRoute(id: "r2", env: "env_a", hostname: "b.example.com"),
        ])
        #expect(rejected(result.problems, "r1", "acme/shop/prod", "rt_web"))
        #expect(rejected(result.problems, "rt_web", "twice"))
        state.apply([])
        let route = try #require(state.snapshot.named("app.example.com"))
        #expect(route.backends.buffer.map(\.address.endpoint) == addresses.map(\.endpoint))
        #expect(route.pointee.flags == [.proxyHeader])
        #expect(state.snapshot.routeCount == 1)
        let listing = state.snapshot.listing()
        #expect(listing.map(\.owner) == ["acme/shop/prod"])
        #expect(listing.first?.hostname == "app.example.com")
    }

    @Test("R5: an env_id that reads like a config file's owner is another env")
    func pathLikeID() throws {
        let backend = try #require(Endpoint("[fd00::10]:8443"))
        let spec = RouteSpec(
            index: 1, id: "rt_web", org: "acme", app: "shop", env: "prod", hostname: "app.example.com", port: 443,
            hint: .tlsPassthrough, backends: [BackendSpec(backend)])
        _ = state.apply(StateDocument.config([spec], seed: testSeed).document)
        let result = state.apply(
            envs: ["acme/shop/prod"],
            [TestRoute(id: "r1", env: "acme/shop/prod", hostname: "app.example.com", port: 8443)])
        #expect(rejected(result.problems, "r1", "acme/shop/prod", "rt_web", "acme%2Fshop%2Fprod can't have it"))
        #expect(state.snapshot.named("app.example.com", 8443) == nil)
    }

    @Test("R27: the ports of one name are bounded")
    func portsPerName() {
        let routes = (0..<70).map {
            TestRoute(id: "r\($0)", env: "env_a", hostname: "a.example.com", port: UInt16(10_000 + $0))
        }
        let result = state.apply(routes)
        #expect(result.problems.count == 6)
        // By id: "r9" is the last.
        #expect(rejected(result.problems, "r9", "64 ports"))
    }

    @Test("R24: an env that is gone while routes still name it")
    func envGone() {
        let route = TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")
        state.apply([route])
        let result = state.apply(
            envs: ["env_b"], [route, TestRoute(id: "r2", env: "env_b", hostname: "a.example.com")])
        #expect(rejected(result.problems, "r1", "env_a") && result.problems.count == 1)
        #expect(state.snapshot.named("a.example.com")?.pointee.owner.pointee.env.string == "env_b")
    }

    @Test("an env's app changes: its routes say so")
    func ownerChanges() {
        let route = TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")
        state.apply([route])
        state.applyText(documentText(routes: [route.json]).replacing("\"app\"", with: "\"other\""))
        #expect(state.snapshot.named("a.example.com")?.pointee.owner.pointee.app.string == "other")
    }
}
