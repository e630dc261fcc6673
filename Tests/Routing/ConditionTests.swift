import Pipeline
import PipelineRouting
import Testing

/// Routes that ask for more than a name: an ALPN protocol, or first bytes that are no TLS (ADR 0096).
@Suite("Routes by ALPN and by first bytes")
struct ConditionTests {
    let state = RoutingState()

    private func alpn(_ name: String) -> String { ", \"when_alpn\": \"\(name)\"" }
    private func client(_ name: String) -> String { ", \"when_protocol\": \"\(name)\"" }

    private func named(_ name: String, offering protocols: [String], _ port: UInt16 = 443) -> String? {
        var server = ServerName()
        guard Array(name.utf8).withUnsafeBufferPointer({ server.set(wire: $0) }) else { return nil }
        let list = protocols.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
        return list.withUnsafeBufferPointer {
            state.snapshot.handle.named(server, offering: ALPNList($0), at: destination(port))?.pointee.id.string
        }
    }

    private func speaking(_ client: ClientProtocol, _ port: UInt16 = 443) -> String? {
        state.snapshot.handle.speaking(client, at: destination(port))?.pointee.id.string
    }

    @Test("R8: two routes of one name and port that differ by ALPN are both served, and the client's order decides")
    func clientsOrder() {
        let problems = state.apply([
            TestRoute(id: "h2", env: "env_a", hostname: "app.example.com", extra: alpn("h2")),
            TestRoute(id: "h1", env: "env_a", hostname: "app.example.com", extra: alpn("http/1.1")),
            TestRoute(id: "rest", env: "env_a", hostname: "app.example.com"),
        ]).problems
        #expect(problems.isEmpty, "\(problems)")
        #expect(named("app.example.com", offering: ["h2", "http/1.1"]) == "h2")
        #expect(named("app.example.com", offering: ["http/1.1", "h2"]) == "h1")
        #expect(named("app.example.com", offering: ["acme-tls/1", "http/1.1"]) == "h1")
        #expect(named("app.example.com", offering: ["acme-tls/1"]) == "rest")
        #expect(named("app.example.com", offering: []) == "rest")
        #expect(named("app.example.com", offering: ["h"]) == "rest", "a protocol is matched whole")
        #expect(named("app.example.com", offering: ["h2"], 8443) == nil)
        #expect(named("other.example.com", offering: ["h2"]) == nil)
        #expect(state.snapshot.named("app.example.com")?.pointee.id.string == "rest")
        #expect(state.snapshot.sole(443) == nil)
    }

    @Test("without a route for the rest, a client that offers none of the protocols has none (R6)")
    func noRest() {
        state.apply([TestRoute(id: "h2", env: "env_a", hostname: "app.example.com", extra: alpn("h2"))])
        #expect(named("app.example.com", offering: ["h2"]) == "h2")
        #expect(named("app.example.com", offering: ["http/1.1"]) == nil)
        #expect(state.snapshot.named("app.example.com") == nil)
        #expect(state.snapshot.sole(443) == nil, "it is not the only possible one for a client without a name")
    }

    @Test("R4: the whole name wins over a wildcard, whatever is offered; a name's route that doesn't fit is not there")
    func wildcards() {
        state.apply([
            TestRoute(id: "name", env: "env_a", hostname: "a.example.com"),
            TestRoute(id: "star", env: "env_a", hostname: "*.example.com", extra: alpn("h2")),
            TestRoute(id: "tree", env: "env_a", hostname: ".example.com"),
            TestRoute(id: "only", env: "env_a", hostname: "b.example.com", extra: alpn("h2")),
        ])
        #expect(named("a.example.com", offering: ["h2"]) == "name")
        #expect(named("c.example.com", offering: ["h2"]) == "star")
        #expect(named("c.example.com", offering: ["http/1.1"]) == "tree")
        #expect(named("b.example.com", offering: ["h2"]) == "only")
        #expect(named("b.example.com", offering: ["http/1.1"]) == "tree")
    }

    @Test("R27: of a client's protocols the first 32 are looked at")
    func bound() {
        state.apply([TestRoute(id: "h2", env: "env_a", hostname: "a.example.com", extra: alpn("h2"))])
        let many = (0..<40).map { "p\($0)" }
        #expect(named("a.example.com", offering: Array(many.prefix(31)) + ["h2"]) == "h2")
        #expect(named("a.example.com", offering: Array(many.prefix(32)) + ["h2"]) == nil)
    }

    @Test("R8: one name, port and protocol twice: the lower id has it, and the message names both")
    func twice() {
        let problems = state.apply([
            TestRoute(id: "r2", env: "env_a", hostname: "a.example.com", extra: alpn("h2")),
            TestRoute(id: "r1", env: "env_a", hostname: "a.example.com", extra: alpn("h2")),
        ]).problems
        #expect(isRejected(problems, "r2", "443 is taken", "\"r1\"", "for h2"))
        #expect(named("a.example.com", offering: ["h2"]) == "r1")
    }

    @Test("R5: a name belongs to one env, whatever its routes ask for")
    func owner() {
        state.apply([TestRoute(id: "ra", env: "env_a", hostname: "a.example.com", extra: alpn("h2"))])
        let problems = state.apply([
            TestRoute(id: "ra", env: "env_a", hostname: "a.example.com", extra: alpn("h2")),
            TestRoute(id: "rb", env: "env_b", hostname: "a.example.com", extra: alpn("http/1.1")),
        ]).problems
        #expect(isRejected(problems, "rb", "env_a", "env_b"))
        #expect(named("a.example.com", offering: ["http/1.1"]) == nil)
    }

    @Test("R27: at most 64 routes of a name, ports times protocols")
    func tooMany() {
        let routes = (0..<65).map { index in
            TestRoute(
                id: "r\(100 + index)",
                env: "env_a", hostname: "a.example.com", extra: alpn("p\(index)"))
        }
        let problems = state.apply(routes).problems
        #expect(problems.count == 1 && problems[0].description.contains("64"), "\(problems)")
        #expect(named("a.example.com", offering: ["p63"]) != nil && named("a.example.com", offering: ["p64"]) == nil)
    }

    @Test("R8: TLS by name, SSH, PostgreSQL, what is neither, and silence share a port, of several envs")
    func onePort() {
        let problems = state.apply([
            TestRoute(id: "tls", env: "env_a", hostname: "a.example.com"),
            TestRoute(id: "ssh", env: "env_b", extra: client("ssh")),
            TestRoute(id: "pg", env: "env_a", extra: client("postgresql")),
            TestRoute(id: "plain", env: "env_c", extra: client("plain")),
            TestRoute(id: "silent", env: "env_c", extra: client("silent")),
            TestRoute(id: "ssh2", env: "env_a", port: 8443, extra: client("ssh")),
        ]).problems
        #expect(problems.isEmpty, "\(problems)")
        #expect(ClientProtocol.allCases.map { speaking($0) } == ["ssh", "pg", "plain", "silent"])
        #expect(ClientProtocol.allCases.map { speaking($0, 8443) } == ["ssh2", nil, nil, nil])
        #expect(state.snapshot.sole(443) == nil && state.snapshot.sole(8443) == nil)
        #expect(state.snapshot.named("a.example.com")?.pointee.id.string == "tls")
        #expect(state.snapshot.listing().compactMap(\.condition).count == 5)
        #expect(state.snapshot.rawPorts.isEmpty)
    }

    @Test("a protocol without a route of its own is plain; silence is not")
    func plain() {
        state.apply([TestRoute(id: "plain", env: "env_a", extra: client("plain"))])
        #expect(speaking(.ssh) == "plain" && speaking(.postgresql) == "plain" && speaking(.plain) == "plain")
        #expect(speaking(.silent) == nil)
    }

    @Test("R8: a protocol at a port is one env's: who had it keeps it, else nobody has it; no order decides")
    func contested() {
        let (a, b) = (
            TestRoute(id: "ra", env: "env_a", extra: client("ssh")),
            TestRoute(id: "rb", env: "env_b", extra: client("ssh"))
        )
        for routes in [[a, b], [b, a]] {
            let fresh = RoutingState()
            let problems = fresh.apply(routes).problems
            #expect(isRejected(problems, "ra", "ssh at port 443", "env_b") && isRejected(problems, "rb", "env_a"))
            let isOfProtocol = problems.allSatisfy { $0.field == "when_protocol" && !$0.remedy.contains("hostnames") }
            #expect(isOfProtocol, "\(problems)")
            #expect(fresh.snapshot.routeCount == 0)
            fresh.apply([b])
            #expect(isRejected(fresh.apply(routes).problems, "ra", "ssh at port 443 belongs to", "rb"))
            #expect(fresh.served.keys.sorted() == ["rb"])
        }
        let twins = state.apply([a, TestRoute(id: "rz", env: "env_a", extra: client("ssh"))]).problems
        #expect(isRejected(twins, "rz", "ssh at port 443 is taken", "\"ra\""))
    }

    @Test("R8: a raw route and one by first bytes can't share a port")
    func rawBeside() {
        let problems = state.apply([
            TestRoute(id: "raw", env: "env_a", raw: true), TestRoute(id: "ssh", env: "env_b", extra: client("ssh")),
        ]).problems
        #expect(isRejected(problems, "raw", "env_b") && isRejected(problems, "ssh", "env_a"))
    }

    @Test("R24: what contradicts itself is left out alone, and says why")
    func contradictions() {
        let problems = state.apply([
            TestRoute(id: "ok", env: "env_a", hostname: "a.example.com"),
            TestRoute(id: "b1", env: "env_a", hostname: "b.example.com", extra: client("ssh")),
            TestRoute(id: "b2", env: "env_a", raw: true, extra: client("ssh")),
            TestRoute(id: "b3", env: "env_a", extra: alpn("h2")),
            TestRoute(id: "b4", env: "env_a", hostname: "c.example.com", extra: alpn("h2") + client("ssh")),
            TestRoute(id: "b5", env: "env_a", extra: client("gopher")),
            TestRoute(id: "b6", env: "env_a", hostname: "d.example.com", extra: alpn("")),
            TestRoute(
                id: "b7", env: "env_a", hostname: "e.example.com", extra: alpn("h2") + ", \"allow_non_tls\": true"),
            TestRoute(id: "b8", env: "env_a", hostname: "f.example.com", extra: ", \"when_alpn\": 7"),
        ]).problems
        #expect(isRejected(problems, "b1", "hostname", "names none"))
        #expect(isRejected(problems, "b2", "when_protocol", "tcp_raw"))
        #expect(isRejected(problems, "b3", "hostname", "is missing"))
        #expect(isRejected(problems, "b4", "when_alpn"))
        #expect(isRejected(problems, "b5", "\"gopher\" is unknown", "silent"))
        #expect(isRejected(problems, "b6", "when_alpn", "is empty"))
        #expect(isRejected(problems, "b7", "allow_non_tls", "no effect"))
        #expect(isRejected(problems, "b8", "when_alpn", "a number"))
        #expect(state.served.keys.sorted() == ["ok"])
    }

    @Test("null is the same as nothing, and a change of the condition is a change of the route")
    func changes() throws {
        state.apply([])
        let before = state.memory.liveBlocks
        let none = ", \"when_alpn\": null, \"when_protocol\": null"
        state.apply([TestRoute(id: "r", env: "env_a", hostname: "a.example.com", extra: none)])
        let cell = try #require(state.snapshot.named("a.example.com")).pointee.cell
        state.apply([TestRoute(id: "r", env: "env_a", hostname: "a.example.com", extra: alpn("h2"))])
        #expect(state.snapshot.named("a.example.com") == nil && named("a.example.com", offering: ["h2"]) == "r")
        let report = state.apply([TestRoute(id: "r", env: "env_a", hostname: "a.example.com", extra: alpn("h3"))])
            .report
        #expect(report?.changed == 1 && named("a.example.com", offering: ["h2"]) == nil)
        let same = state.apply([TestRoute(id: "r", env: "env_a", hostname: "a.example.com", extra: alpn("h3"))]).report
        #expect(same?.unchanged == 1)
        state.apply([TestRoute(id: "r", env: "env_a", hostname: "a.example.com")])
        #expect(state.snapshot.named("a.example.com")?.pointee.cell == cell, "its counts stay")
        #expect(state.snapshot.sole(443)?.pointee.id.string == "r")
        state.apply([])
        #expect(state.freeUnpinned() == 0)
        #expect(state.memory.liveBlocks == before)
    }

    @Test("a table's record is of one size, with a condition or without: only the protocol's text is added")
    func size() {
        func bytes(_ extra: String) -> Int {
            let fresh = RoutingState()
            fresh.apply(
                (0..<50).map { TestRoute(id: "r\($0)", env: "env_a", hostname: "n\($0).example.com", extra: extra) })
            #expect(fresh.snapshot.routeCount == 50)
            return fresh.snapshot.byteCount
        }
        #expect(bytes(alpn("h2")) == bytes("") + 50 * 2)
    }

    @Test("R9: at an env's own address its routes alone, by ALPN and by first bytes too")
    func dedicatedAddress() throws {
        let ipv4 = ", \"ipv4_required\": true"
        state.applyText(
            documentText(
                envObjects: [envObject("env_a", ipv4: "192.0.2.1"), envObject("env_b", ipv4: "192.0.2.2")],
                routes: [
                    TestRoute(id: "h2", env: "env_a", hostname: "a.example.com", extra: alpn("h2") + ipv4),
                    TestRoute(id: "ssh", env: "env_a", extra: client("ssh") + ipv4),
                    TestRoute(id: "plain", env: "env_b", extra: client("plain")),
                ].map(\.json), hostnames: []))
        let handle = state.snapshot.handle
        func at(_ text: String) throws -> DestinationAddress {
            DestinationAddress(Endpoint(try #require(IPAddress(text)), 443))
        }
        let list: [UInt8] = [2] + Array("h2".utf8)
        var server = ServerName()
        #expect(Array("a.example.com".utf8).withUnsafeBufferPointer { server.set(wire: $0) })
        for (address, h2, ssh, plain) in [
            ("192.0.2.1", "h2", "ssh", nil), ("192.0.2.2", nil, nil, nil), ("2001:db8::1", "h2", "ssh", "plain"),
        ] as [(String, String?, String?, String?)] {
            let found = list.withUnsafeBufferPointer {
                handle.named(server, offering: ALPNList($0), at: (try? at(address)) ?? destination(443))
            }
            #expect(found?.pointee.id.string == h2, "\(address)")
            #expect(handle.speaking(.ssh, at: try at(address))?.pointee.id.string == ssh, "\(address)")
            #expect(handle.speaking(.plain, at: try at(address))?.pointee.id.string == plain, "\(address)")
            #expect(handle.sole(at: try at(address)) == nil, "\(address)")
        }
    }

    @Test("a config file's route for two protocols is one route: one id, one set of counts")
    func configClaims() throws {
        let backend = BackendSpec(try #require(Endpoint("[fd00::1]:80")))
        let specs = ["h2", "http/1.1"].enumerated().map { index, name in
            var spec = RouteSpec(
                index: index, id: "rt_web", org: "acme", app: "shop", env: "prod", hostname: "a.example.com", port: 443,
                hint: .tlsPassthrough, backends: [backend])
            spec.condition = .alpn(name)
            if index > 0 { spec.claim = "a.example.com:443 alpn \(name)" }
            return spec
        }
        let (document, problems) = StateDocument.config(specs, seed: testSeed)
        #expect(problems.isEmpty && state.apply(document).problems.isEmpty)
        #expect(named("a.example.com", offering: ["h2"]) == "rt_web")
        #expect(named("a.example.com", offering: ["http/1.1"]) == "rt_web")
        #expect(state.snapshot.routeCount == 2 && state.snapshot.named("a.example.com") == nil)
    }
}
