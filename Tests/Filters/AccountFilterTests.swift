import FilterEgressAccounting
import Pipeline
import TestSupport
import Testing

@Suite("account")
struct AccountFilterTests {
    @Test("totals add up per route, at the end")
    func settle() throws {
        var run = FilterHarness()
        let route = run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"]))
        let settings = try AccountFilter.settings(Directive(keyword: "account", clauses: []))
        var state: Void = AccountFilter.makeState(settings)
        #expect(run.evaluate(AccountFilter.self, settings, &state).verdict == .next)
        #expect(route.pointee.cell.pointee.connections.load(ordering: .relaxed) == 0)
        for upstream: UInt64 in [100, 0] {
            AccountFilter.settle(settings, &state, totals(route, upstream, 7))
        }
        let cell = route.pointee.cell
        #expect(cell.pointee.connections.load(ordering: .relaxed) == 2)
        #expect(cell.pointee.bytesToUpstream.load(ordering: .relaxed) == 100)
        #expect(cell.pointee.bytesToClient.load(ordering: .relaxed) == 14)
    }

    @Test("a connection without a route counts nowhere")
    func noRoute() throws {
        let settings = try AccountFilter.settings(Directive(keyword: "account", clauses: []))
        var state: Void = AccountFilter.makeState(settings)
        AccountFilter.settle(settings, &state, totals(nil, 1, 1))
    }

    private func totals(_ route: UnsafePointer<Route>?, _ upstream: UInt64, _ client: UInt64) -> ConnectionTotals {
        ConnectionTotals(
            route: route, client: ClientAddress(FilterHarness.endpoint("192.0.2.1:1")),
            destination: DestinationAddress(FilterHarness.endpoint("192.0.2.2:443")), backend: nil,
            bytesToUpstream: upstream,
            bytesToClient: client, reason: RuntimeReason.closedByClient.code, duration: .seconds(1))
    }
}
