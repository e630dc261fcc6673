import FilterProxyV1
import FilterProxyV2
import Pipeline
import TestSupport
import Testing

@Suite("proxy_v1")
struct ProxyV1FilterTests {
    private func harness(_ flags: Route.Flags) -> FilterHarness {
        var run = FilterHarness()
        run.facts.route = run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"], flags: flags))
        return run
    }

    @Test("R16: a line for routes of v1, which settles what the route asks for")
    func v1() throws {
        var run = harness([.proxyHeader, .proxyText])
        #expect(run.facts.owesProxyHeader)
        let (verdict, text) = try run.run(ProxyV1Filter.self)
        #expect(verdict == .next && !run.facts.owesProxyHeader)
        #expect(
            String(decoding: run.preludeBytes, as: UTF8.self) == "PROXY TCP6 2001:db8::99 2001:db8::1 40000 443\r\n")
        #expect(text == "PROXY v1 header: client [2001:db8::99]:40000, destination [2001:db8::1]:443")
    }

    @Test("R16: v2 routes and those without a header pass it untouched, and v1 routes pass `proxy_v2`")
    func others() throws {
        for flags in [Route.Flags(), [.proxyHeader]] {
            var run = harness(flags)
            let (verdict, text) = try run.run(ProxyV1Filter.self)
            #expect(verdict == .next && run.preludeBytes.isEmpty)
            #expect(text == "no PROXY v1 header: the route does not ask for one")
        }
        var run = harness([.proxyHeader, .proxyText])
        let (verdict, text) = try run.run(ProxyV2Filter.self)
        #expect(verdict == .next && run.preludeBytes.isEmpty && run.facts.owesProxyHeader)
        #expect(text == "no PROXY v2 header: the route asks for v1")
        // Both in one pipeline: one header.
        #expect(try run.evaluate(ProxyV1Filter.self) == .next)
        #expect(run.preludeBytes.starts(with: Array("PROXY TCP6 ".utf8)))
    }
}
