import Pipeline
import PipelineRouting
import Testing

/// `.example.com`: the name itself, and every name under it (R4).
@Suite("R4: wildcards of any depth")
struct SuffixTests {
    let state = RoutingState()

    private func route(_ id: String, _ hostname: String, env: String = "env_a", port: UInt16 = 443) -> TestRoute {
        TestRoute(id: id, env: env, hostname: hostname, port: port)
    }

    private func found(_ name: String, _ port: UInt16 = 443) -> String? {
        state.snapshot.named(name, port)?.pointee.id.string
    }

    @Test("the longest suffix wins; of one length, a whole name before one label before any depth")
    func order() {
        let problems = state.apply([
            route("any", ".example.com"), route("one", "*.example.com"), route("deep", ".x.example.com"),
            route("name", "a.b.x.example.com"), route("other", ".example.com", port: 8443),
        ]).problems
        #expect(problems.isEmpty)
        for (name, wanted) in [
            ("example.com", "any"), ("w.example.com", "one"), ("v.w.example.com", "any"),
            // The name itself is as long a suffix as there is.
            ("x.example.com", "deep"), ("w.x.example.com", "deep"), ("c.b.x.example.com", "deep"),
            ("a.b.x.example.com", "name"), ("c.a.b.x.example.com", "deep"), ("nexample.com", nil), ("com", nil),
        ] as [(String, String?)] {
            #expect(found(name) == wanted, "\(name)")
        }
        #expect(found("a.b.x.example.com", 8443) == "other")
        #expect(state.snapshot.named("example.com", 1) == nil)
        // Without the suffixes, lookups are as they were.
        state.apply([route("one", "*.example.com")])
        #expect(found("v.w.example.com") == nil && found("w.example.com") == "one" && found("example.com") == nil)
    }

    @Test("the longest name there can be, of 127 labels, is found under a suffix, and by no other")
    func longest() {
        state.apply([route("any", ".b.c"), route("long", "." + String(repeating: "a.", count: 100) + "b.c")])
        let name = String(repeating: "a.", count: 124) + "b.c"
        #expect(found(name) == "long")
        #expect(found(String(repeating: "a.", count: 99) + "b.c") == "any")
    }

    @Test(
        "R5: what would take from another env's is a conflict, and both owners are named",
        arguments: [
            (".example.com", "example.com"), (".example.com", "a.example.com"), (".example.com", "a.b.example.com"),
            (".example.com", "*.example.com"), (".example.com", "*.b.example.com"), (".example.com", ".example.com"),
            (".example.com", ".b.example.com"),
            // Both take b.example.com.
            ("*.example.com", ".b.example.com"),
        ])
    func conflict(one: String, other: String) {
        for (mine, theirs) in [(one, other), (other, one)] {
            let state = RoutingState()
            state.apply([route("ra", mine)])
            let problems = state.apply([route("ra", mine), route("rb", theirs, env: "env_b", port: 8443)]).problems
            #expect(state.served.keys.sorted() == ["ra"], "\(mine), \(theirs)")
            #expect(isRejected(problems, "rb", "org/app/env_a", "org/app/env_b"), "\(mine), \(theirs): \(problems)")
            // Without one who had it: none.
            let fresh = RoutingState()
            let both = fresh.apply([route("ra", mine), route("rb", theirs, env: "env_b", port: 8443)]).problems
            #expect(fresh.served.isEmpty)
            #expect(isRejected(both, "ra", "env_a", "env_b") && isRejected(both, "rb", "env_b", "env_a"))
            // An entry decides.
            let entry = TestHostname(theirs, "env_b", 1)
            fresh.apply([route("ra", mine), route("rb", theirs, env: "env_b", port: 8443)], hostnames: [entry])
            #expect(fresh.served.keys.sorted() == ["rb"], "\(mine), \(theirs)")
            // Within one env they stand beside each other.
            let own = RoutingState()
            #expect(own.apply([route("ra", mine), route("rb", theirs, port: 8443)]).problems.isEmpty)
        }
    }

    @Test(
        "R4: what takes no common name stands side by side",
        arguments: [
            ("*.example.com", "*.b.example.com"), (".a.example.com", ".b.example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", "a.b.example.com"), ("*.example.com", ".a.b.example.com"),
            (".example.com", "xexample.com"),
        ])
    func apart(one: String, other: String) {
        #expect(state.apply([route("ra", one), route("rb", other, env: "env_b")]).problems.isEmpty)
    }

    @Test("state: it is read and written back like any other, in routes and in hostnames")
    func desiredState() {
        let result = state.apply([route("ra", ".Example.COM.")], hostnames: [TestHostname(".EXAMPLE.com", "env_a", 1)])
        #expect(result.problems.isEmpty)
        #expect(state.served["ra"]?.hostname == ".example.com")
        #expect(found("deep.under.example.com") == "ra")
        for bad in [".com", ".", "..example.com", ".*.example.com", ".example.com:443"] {
            let problems = state.apply([route("rb", bad)]).problems
            #expect(isRejected(problems, "rb", "hostname"), "\(bad)")
        }
        // R24: an entry that can't be read keeps what it had.
        state.apply([], hostnames: [TestHostname(".example.com", "env_a", 1)])
        let entry = "{\"hostname\": \".example.com\", \"env_id\": \"env_a\", \"claimed\": -1}"
        let rival = route("rb", "x.example.com", env: "env_b")
        let problems = state.applyText(
            documentText(
                envObjects: ["env_a", "env_b"].map { envObject($0) }, routes: [rival.json], hostnames: [entry])
        ).problems
        #expect(isRejected(problems, "rb", "org/app/env_a"))
    }

    @Test("R9: at an env's own address, its suffixes alone")
    func dedicated() throws {
        var own = route("ra", ".example.com")
        own.extra = ", \"ipv4_required\": true"
        let plain = route("rp", ".deep.example.com")
        state.applyText(
            documentText(
                envObjects: [envObject("env_a", ipv4: "192.0.2.10")], routes: [own.json, plain.json], hostnames: []))
        var name = ServerName()
        #expect(Array("x.deep.example.com".utf8).withUnsafeBufferPointer { name.set(wire: $0) })
        let there = DestinationAddress(try #require(Endpoint("192.0.2.10:443")))
        #expect(state.snapshot.handle.named(name, at: there)?.pointee.id.string == "ra")
        #expect(found("x.deep.example.com") == "rp")
    }
}
