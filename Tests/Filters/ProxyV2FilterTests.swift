import FilterProxyV2
import Pipeline
import PipelineWire
import TestSupport
import Testing

@Suite("proxy_v2")
struct ProxyV2FilterTests {
    private let authority = [Clause(name: "tlv", values: [.word("authority")])]

    private func harness(_ flags: Route.Flags = .proxyHeader) -> FilterHarness {
        var run = FilterHarness()
        run.facts.route = run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"], flags: flags))
        var name = ServerName()
        _ = withExactBytes(Array("app.example.com".utf8)) { name.set(wire: $0) }
        run.facts.serverName = name
        return run
    }

    @Test("R16: IPv6, as the specification draws it")
    func v6() throws {
        var run = harness()
        #expect(try run.evaluate(ProxyV2Filter.self) == .next)
        #expect(
            hex(run.preludeBytes) == "0d0a0d0a000d0a515549540a21210024"
                + "20010db800000000000000000000009920010db8000000000000000000000001" + "9c4001bb")
        #expect(!run.facts.owesProxyHeader)
    }

    @Test("R16: IPv4 and IPv4-mapped are INET", arguments: ["192.0.2.1:40000", "[::ffff:192.0.2.1]:40000"])
    func v4(_ client: String) throws {
        var run = harness()
        run.lasting.client = ClientAddress(FilterHarness.endpoint(client))
        var other = FilterHarness()
        other.destination = FilterHarness.endpoint("192.0.2.2:443")
        other.lasting.client = run.facts.client
        other.facts.route = run.facts.route
        #expect(try other.evaluate(ProxyV2Filter.self) == .next)
        #expect(hex(other.preludeBytes) == "0d0a0d0a000d0a515549540a2111000cc0000201c00002029c4001bb")
    }

    @Test("R16: the authority is the canonical name, and comes only if asked for and known")
    func authorityTLV() throws {
        var run = harness()
        let (verdict, text) = try run.run(ProxyV2Filter.self, authority)
        #expect(verdict == .next)
        #expect(hex(run.preludeBytes).hasSuffix("02000f" + hex("app.example.com".utf8)))
        #expect(text.hasSuffix("authority app.example.com"))

        var nameless = harness()
        nameless.facts.serverName = ServerName()
        #expect(try nameless.evaluate(ProxyV2Filter.self, authority) == .next)
        #expect(nameless.preludeBytes.count == 52)
    }

    @Test("R16: off unless the route says so")
    func off() throws {
        var run = harness([])
        let (verdict, text) = try run.run(ProxyV2Filter.self, authority)
        #expect(verdict == .next)
        #expect(run.preludeBytes.isEmpty)
        #expect(text == "no PROXY header: the route does not ask for one")
    }

    @Test("R17: the believed client is passed on, not the peer")
    func believed() throws {
        var run = harness()
        run.lasting.client = ClientAddress(FilterHarness.endpoint("[2001:db8::7]:7"))
        #expect(try run.evaluate(ProxyV2Filter.self) == .next)
        withExactBytes(run.preludeBytes) { bytes in
            guard case .ok(let header) = ProxyHeader.parse(bytes) else {
                Issue.record("no header")
                return
            }
            #expect(header.source == FilterHarness.endpoint("[2001:db8::7]:7"))
        }
    }

    @Test("R16: an IPv4 client of an IPv6 listener is INET, with the destination that its header named")
    func believedDestination() throws {
        for (client, destination, wanted) in [
            ("192.0.2.1:1", "192.0.2.2:2", "21" + "11" + "000c" + "c0000201" + "c0000202" + "0001" + "0002"),
            ("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2", "2111000cc0000201c000020200010002"),
            // What a sender has said so: an IPv4-mapped client of an IPv6 destination.
            (
                "192.0.2.1:1", "[2001:db8::5]:2",
                "21210024" + "00000000000000000000ffffc0000201" + "20010db8000000000000000000000005" + "00010002"
            ),
        ] {
            var run = harness()
            run.lasting.client = ClientAddress(FilterHarness.endpoint(client))
            run.facts.believedDestination = DestinationAddress(FilterHarness.endpoint(destination))
            let (verdict, text) = try run.run(ProxyV2Filter.self)
            #expect(verdict == .next)
            #expect(hex(run.preludeBytes) == "0d0a0d0a000d0a515549540a" + wanted)
            #expect(text.hasSuffix("destination \(FilterHarness.endpoint(destination))"), "\(text)")
        }
    }

    @Test("R16: a second stage adds no second header")
    func once() throws {
        var run = harness()
        #expect(try run.evaluate(ProxyV2Filter.self) == .next)
        let first = run.preludeBytes
        #expect(try run.evaluate(ProxyV2Filter.self) == .next)
        #expect(run.preludeBytes == first)
    }

    @Test("R16: a header that can't be the backend's first bytes is refused")
    func noRoom() throws {
        var run = harness()
        let isAdded = withExactBytes([1, 2, 3]) { run.prelude.append($0) }
        #expect(isAdded)
        let verdict = try run.evaluate(ProxyV2Filter.self)
        #expect(FilterHarness.reason(verdict, of: ProxyV2Filter.self) == "proxy_v2.header_too_large node")
        #expect(run.facts.owesProxyHeader)
        #expect(run.preludeBytes == [1, 2, 3])
    }

    @Test("the same TLV twice is an error")
    func twice() {
        #expect(throws: SettingsError.self) {
            try ProxyV2Filter.settings(Directive(keyword: "proxy_v2", clauses: authority + authority))
        }
    }
}
