import FilterBackendSelect
import Pipeline
import TestSupport
import Testing

@Suite("backend")
struct BackendFilterTests {
    private func reason(_ verdict: Verdict) -> String? { FilterHarness.reason(verdict, of: BackendFilter.self) }

    private func name(_ text: String, _ run: inout FilterHarness) {
        var name = ServerName()
        let isSet = withExactBytes(Array(text.utf8)) { name.set(wire: $0) }
        #expect(isSet)
        run.facts.serverName = name
    }

    private func ports(_ run: FilterHarness) -> [UInt16] {
        (0..<Int(run.facts.candidates.count)).compactMap {
            run.facts.candidates[$0]?.pointee.address.endpoint.port
        }
    }

    private static func backends(_ count: Int) -> [String] { (0..<count).map { "[fd00::1]:\(9000 + $0)" } }

    @Test("R4: a name finds its route")
    func named() throws {
        var run = FilterHarness()
        let wanted = run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"]))
        run.routes.add(FakeRoute("rt_2", hosts: ["other.example.com"]))
        name("app.example.com", &run)
        #expect(try run.evaluate(BackendFilter.self) == .next)
        #expect(run.facts.route == wanted)
        #expect(ports(run) == [8443])
    }

    @Test("R30: a route of a suspended env is found, and gets no backend; nor when a choice is made again")
    func suspended() throws {
        var run = FilterHarness()
        var fake = FakeRoute("rt_1", hosts: ["app.example.com"])
        fake.isSuspended = true
        let route = run.routes.add(fake)
        name("app.example.com", &run)
        let (verdict, text) = try run.run(BackendFilter.self)
        #expect(reason(verdict) == "backend.suspended node")
        #expect(text == "route rt_1 of env org_1/app_1/env_1: the env, or its org, is suspended")
        #expect(run.facts.route == route && run.facts.candidates.count == 0)
    }

    @Test("R6: an unknown name has no route, even where there is only one")
    func unknown() throws {
        var run = FilterHarness()
        run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"]))
        name("forged.example.com", &run)
        let (verdict, text) = try run.run(BackendFilter.self)
        #expect(reason(verdict) == "backend.no_route client")
        #expect(run.facts.route == nil)
        #expect(text == "no route for forged.example.com at [2001:db8::1]:443")
    }

    @Test("R6: without a name, the only route or none")
    func nameless() throws {
        var run = FilterHarness()
        let only = run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"]))
        #expect(try run.evaluate(BackendFilter.self) == .next)
        #expect(run.facts.route == only)
        run.resetFacts()
        run.routes.add(FakeRoute("rt_2", hosts: ["other.example.com"]))
        #expect(reason(try run.evaluate(BackendFilter.self)) == "backend.no_route client")
    }

    @Test("R2: raw and TLS routes never serve each other's listeners")
    func hints() throws {
        var tls = FilterHarness()
        tls.routes.add(FakeRoute("rt_raw", hosts: ["app.example.com"], flags: .raw))
        #expect(reason(try tls.evaluate(BackendFilter.self)) == "backend.no_route client")
        name("app.example.com", &tls)
        #expect(reason(try tls.evaluate(BackendFilter.self)) == "backend.no_route client")

        var raw = FilterHarness()
        raw.hint = .tcpRaw
        raw.routes.add(FakeRoute("rt_tls", hosts: ["app.example.com"]))
        #expect(reason(try raw.evaluate(BackendFilter.self)) == "backend.no_route client")
    }

    @Test("R2: a raw listener goes by port alone, whatever else is known")
    func raw() throws {
        var run = FilterHarness()
        run.hint = .tcpRaw
        run.destination = FilterHarness.endpoint("[2001:db8::1]:5432")
        let wanted = run.routes.add(FakeRoute("rt_db", port: 5432, flags: .raw))
        run.routes.add(FakeRoute("rt_web", hosts: ["app.example.com"]))
        name("app.example.com", &run)
        #expect(try run.evaluate(BackendFilter.self) == .next)
        #expect(run.facts.route == wanted)
    }

    @Test("R13: a route without a ready instance is told apart, and named")
    func empty() throws {
        var run = FilterHarness()
        let route = run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"], backends: []))
        #expect(reason(try run.evaluate(BackendFilter.self)) == "backend.no_backend upstream")
        #expect(run.facts.route == route)
        #expect(route.group.pointee.cell.pointee.cursor.load(ordering: .relaxed) == 0)
    }

    @Test("R11, R13: turns are exact, with up to three distinct to try", arguments: [1, 2, 3, 4, 7])
    func turns(_ count: Int) throws {
        var run = FilterHarness()
        run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"], backends: Self.backends(count)))
        for turn in 0..<count * 3 {
            run.resetFacts()
            #expect(try run.evaluate(BackendFilter.self) == .next)
            let expected = (0..<min(3, count)).map { UInt16(9000 + (turn + $0) % count) }
            #expect(ports(run) == expected, "turn \(turn)")
        }
    }

    @Test("R11: two workers share one cursor, and it survives its wrap")
    func shared() throws {
        var run = FilterHarness()
        let route = run.routes.add(FakeRoute("rt_1", hosts: ["a.example"], backends: Self.backends(3)))
        route.group.pointee.cell.pointee.cursor.store(.max, ordering: .relaxed)
        #expect(try run.evaluate(BackendFilter.self) == .next)
        #expect(ports(run) == [9000, 9001, 9002])  // 2^64 - 1 is a multiple of 3
        run.resetFacts()
        #expect(try run.evaluate(BackendFilter.self) == .next)
        #expect(ports(run) == [9000, 9001, 9002])
    }

    @Test("R16: a route that asks for a PROXY header is owed one")
    func owed() throws {
        var run = FilterHarness()
        run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"], flags: .proxyHeader))
        #expect(!run.facts.owesProxyHeader)
        #expect(try run.evaluate(BackendFilter.self) == .next)
        #expect(run.facts.owesProxyHeader)
    }
}
