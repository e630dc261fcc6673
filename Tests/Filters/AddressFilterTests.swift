import FilterAddressMatch
import Pipeline
import PipelineSets
import TestSupport
import Testing

@Suite("address")
struct AddressFilterTests {
    private func rule(_ action: String, _ side: String?, _ prefixes: String...) -> Clause {
        Clause(
            name: "rule",
            values: [
                .word(action), side.map { .word($0) } ?? .absent,
                .set(AddressSet(name: "@set", prefixes: prefixes.compactMap { Prefix($0) })),
            ])
    }

    private func verdict(_ rules: [Clause], from peer: String, to destination: String = "[2001:db8::1]:443") throws
        -> String
    {
        var run = FilterHarness()
        run.peer = FilterHarness.endpoint(peer)
        run.destination = FilterHarness.endpoint(destination)
        let verdict = try run.evaluate(AddressFilter.self, rules)
        return FilterHarness.reason(verdict, of: AddressFilter.self) ?? "\(verdict)"
    }

    @Test("without a match a connection passes")
    func byDefault() throws {
        #expect(try verdict([rule("deny", nil, "192.0.2.0/24")], from: "198.51.100.1:1") == "next")
    }

    @Test("the source is meant unless said")
    func source() throws {
        let rules = [rule("deny", nil, "192.0.2.0/24", "2001:db8:bad::/48")]
        #expect(try verdict(rules, from: "192.0.2.7:1") == "address.denied_source client")
        #expect(try verdict(rules, from: "[2001:db8:bad::7]:1") == "address.denied_source client")
        #expect(try verdict(rules, from: "[2001:db8:bac:ffff::7]:1") == "next")
        let spelled = [rule("deny", "from", "192.0.2.0/24")]
        #expect(try verdict(spelled, from: "192.0.2.7:1") == "address.denied_source client")
    }

    @Test("`to` looks at the destination only")
    func destination() throws {
        let rules = [rule("deny", "to", "2001:db8::/64")]
        #expect(try verdict(rules, from: "192.0.2.7:1") == "address.denied_destination client")
        #expect(try verdict(rules, from: "[2001:db8::7]:1", to: "[2001:db9::1]:443") == "next")
    }

    @Test("the first rule that matches decides, across both sides")
    func order() throws {
        let rules = [
            rule("allow", "from", "192.0.2.1"), rule("deny", "from", "192.0.2.0/24"),
            rule("allow", "to", "2001:db8::1"), rule("deny", "from", "0.0.0.0/0"),
        ]
        #expect(try verdict(rules, from: "192.0.2.1:1") == "next")
        #expect(try verdict(rules, from: "192.0.2.2:1") == "address.denied_source client")
        #expect(try verdict(rules, from: "198.51.100.1:1") == "next")
        #expect(try verdict(rules, from: "198.51.100.1:1", to: "[2001:db8::2]:443") == "address.denied_source client")
    }

    @Test("an IPv4-mapped client is an IPv4 client")
    func mapped() throws {
        let rules = [rule("deny", nil, "192.0.2.0/24")]
        #expect(try verdict(rules, from: "[::ffff:192.0.2.7]:1") == "address.denied_source client")
        #expect(try verdict([rule("deny", nil, "0.0.0.0/0")], from: "[2001:db8::7]:1") == "next")
    }

    @Test("R17: the believed client counts, not the peer")
    func believed() throws {
        var run = FilterHarness()
        run.peer = FilterHarness.endpoint("198.51.100.1:1")
        run.lasting.client = ClientAddress(FilterHarness.endpoint("192.0.2.7:1"))
        let (verdict, text) = try run.run(AddressFilter.self, [rule("deny", nil, "192.0.2.0/24")])
        #expect(verdict == .refuse(0))
        #expect(text == "source 192.0.2.7 is in @set (192.0.2.0/24), which a rule denies")
    }

    @Test("R17: `peer` is who has connected, whomever a header names")
    func peer() throws {
        for (peer, wanted) in [("198.51.100.1:1", "next"), ("203.0.113.9:1", "address.denied_peer client")] {
            var run = FilterHarness()
            run.peer = FilterHarness.endpoint(peer)
            run.lasting.client = ClientAddress(FilterHarness.endpoint("192.0.2.7:1"))
            let rules = [rule("allow", "peer", "198.51.100.0/24"), rule("deny", "peer", "::/0")]
            let verdict = try run.evaluate(AddressFilter.self, rules)
            #expect(FilterHarness.reason(verdict, of: AddressFilter.self) ?? "\(verdict)" == wanted)
        }
    }

    @Test("R17: a rule about peers alone may stand above the stage that says who the client is")
    func peerReadsNothing() throws {
        let rules = { (side: String?) in [self.rule("deny", side, "192.0.2.0/24")] }
        for (side, reads) in [(nil, [Fact.client]), ("from", [.client]), ("to", []), ("peer", [])]
            as [(String?, Set<Fact>)]
        {
            let settings = try AddressFilter.settings(Directive(keyword: "address", clauses: rules(side)))
            #expect(AddressFilter.facts(settings).reads == reads)
            AddressFilter.dispose(settings)
        }
    }

    @Test("an empty set matches nobody, and a range ends where it says")
    func edges() throws {
        #expect(try verdict([rule("deny", nil)], from: "192.0.2.7:1") == "next")
        let rules = [rule("deny", nil, "192.0.2.0/25", "192.0.2.128/26", "10.0.0.0/8", "192.0.2.64/26")]
        for (last, isDenied) in [(0, true), (127, true), (128, true), (191, true), (192, false), (255, false)] {
            let expected = isDenied ? "address.denied_source client" : "next"
            #expect(try verdict(rules, from: "192.0.2.\(last):1") == expected)
        }
        #expect(try verdict(rules, from: "192.0.1.255:1") == "next")
    }

    @Test("ranges say what their prefixes say")
    func ranges() {
        let prefixes = [
            "10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/25", "192.0.2.128/25", "::/128", "fe80::/10", "fd00::/8",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::/32",
        ].compactMap { Prefix($0) }
        let ranges = AddressRanges(prefixes)
        defer { ranges.deallocate() }
        for prefix in prefixes {
            for edge in [prefix.first, prefix.last] {
                for delta in [-1, 0, 1] {
                    let probe = IPAddress(high: edge.high, low: edge.low &+ UInt64(bitPattern: Int64(delta)))
                    #expect(ranges.contains(probe) == prefixes.contains { $0.contains(probe) }, "\(probe)")
                }
            }
        }
    }
}
