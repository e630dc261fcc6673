import Pipeline
import PipelineRouting
import Testing

@Suite("R9: an env's own IPv4 address")
struct DedicatedTests {
    let state = RoutingState()
    private let own = "192.0.2.10"

    private func apply(_ addresses: [String: String?], _ routes: [TestRoute]) -> [RouteProblem] {
        let envs = ["env_a", "env_b", "env_c"].map { env in
            let address = addresses[env].flatMap { $0 }.map { "\"\($0)\"" } ?? "null"
            return "{\"env_id\": \"\(env)\", \"app_id\": \"app\", \"org_id\": \"org\", \"ipv4_address\": \(address)}"
        }
        return state.applyText(
            """
            {"format": "pipelined.state/1", "envs": [\(envs.joined(separator: ","))], "instances": [],
            "routes": [\(routes.map(\.json).joined(separator: ","))]}
            """
        ).problems
    }

    private func on4(_ id: String, _ env: String, _ host: String?, port: UInt16 = 443, raw: Bool = false) -> TestRoute {
        TestRoute(
            id: id, env: env, hostname: host, port: port, raw: raw, extra: ", \"ipv4_required\": true")
    }

    private func destination(_ address: String, _ port: UInt16) -> DestinationAddress {
        DestinationAddress(Endpoint(IPAddress(address) ?? .unspecified, port))
    }

    private func named(_ name: String, at address: String, _ port: UInt16 = 443) -> String? {
        var server = ServerName()
        let isName = Array(name.utf8).withUnsafeBufferPointer { server.set(wire: $0) }
        guard isName else { return nil }
        return state.snapshot.handle.named(server, at: destination(address, port))?.pointee.id.string
    }
    private func sole(at address: String, _ port: UInt16 = 443) -> String? {
        state.snapshot.handle.sole(at: destination(address, port))?.pointee.id.string
    }

    @Test("R9: only that env's names that ask for it are served there; elsewhere all is as it was")
    func names() {
        let problems = apply(
            ["env_a": own],
            [
                on4("a4", "env_a", "a.example.com"), TestRoute(id: "a6", env: "env_a", hostname: "six.example.com"),
                TestRoute(id: "b6", env: "env_b", hostname: "b.example.org"), on4("w4", "env_a", "*.example.com"),
            ])
        #expect(problems.isEmpty)
        #expect(named("a.example.com", at: own) == "a4")
        #expect(named("x.example.com", at: own) == "w4")
        // As if the others were not there at all: the wildcard that is served here takes the name.
        #expect(named("six.example.com", at: own) == "w4")
        #expect(named("b.example.org", at: own) == nil)
        #expect(named("a.example.com", at: own, 8443) == nil)
        for elsewhere in ["192.0.2.11", "2001:db8::1"] {
            #expect(named("a.example.com", at: elsewhere) == "a4")
            #expect(named("six.example.com", at: elsewhere) == "a6")
            #expect(named("b.example.org", at: elsewhere) == "b6")
        }
    }

    @Test("R6, R9: the only route of the address is found without a name, however many others the port has")
    func soles() {
        let routes = [
            on4("a4", "env_a", "a.example.com"), TestRoute(id: "b6", env: "env_b", hostname: "b.example.org"),
            on4("db", "env_a", nil, port: 5432, raw: true), on4("c4", "env_c", "c.example.org"),
        ]
        #expect(apply(["env_a": own, "env_c": "192.0.2.12"], routes).isEmpty)
        #expect(sole(at: own) == "a4" && sole(at: "192.0.2.12") == "c4" && sole(at: "2001:db8::1") == nil)
        #expect(sole(at: own, 5432) == "db" && sole(at: "192.0.2.12", 5432) == nil)
        #expect(sole(at: "2001:db8::1", 5432) == "db")
        #expect(
            state.dedicatedListeners.map { "\($0.address):\($0.port) \($0.hint.name) \($0.env)" } == [
                "192.0.2.10:443 tls_passthrough org/app/env_a", "192.0.2.10:5432 tcp_raw org/app/env_a",
                "192.0.2.12:443 tls_passthrough org/app/env_c",
            ])
        _ = apply(["env_a": own, "env_c": "192.0.2.12"], routes + [on4("a5", "env_a", "a5.example.com")])
        #expect(sole(at: own) == nil && named("a5.example.com", at: own) == "a5")
    }

    @Test("R9: an address has one env; another's claim is refused with both named, and the env stays without")
    func conflict() {
        let routes = [on4("a4", "env_a", "a.example.com"), on4("b4", "env_b", "b.example.org")]
        _ = apply(["env_a": own], routes)
        let problems = apply(["env_a": own, "env_b": own], routes)
        let text = problems.map(\.description).joined(separator: "\n")
        #expect(problems.contains { $0.object == .env && $0.severity == .rejected && $0.id == "env_b" })
        #expect(text.contains("org/app/env_a") && text.contains("org/app/env_b") && text.contains(own), "\(text)")
        #expect(problems.contains { $0.id == "b4" && $0.severity == .warning && $0.field == "ipv4_required" })
        #expect(named("a.example.com", at: own) == "a4" && named("b.example.org", at: own) == nil)
        #expect(named("b.example.org", at: "2001:db8::1") == "b4")
    }

    @Test("R9: who has an address keeps it against an earlier line; who lets go of it in the same change doesn't")
    func keeping() {
        let routes = [on4("a4", "env_a", "a.example.com"), on4("b4", "env_b", "b.example.org")]
        _ = apply(["env_b": own], routes)
        let snapshot = state.snapshot
        let refused = apply(["env_a": own, "env_b": own], routes)
        #expect(refused.contains { $0.id == "env_a" && $0.severity == .rejected })
        #expect(named("b.example.org", at: own) == "b4")
        #expect(apply(["env_a": own], routes).allSatisfy { $0.severity == .warning })
        #expect(named("a.example.com", at: own) == "a4" && named("b.example.org", at: own) == nil)
        // What was handed out before stays as it was.
        #expect(snapshot.handle.sole(at: destination(own, 443))?.pointee.id.string == "b4")
        // Two may swap.
        _ = apply(["env_a": own, "env_b": "192.0.2.20"], routes)
        #expect(apply(["env_b": own, "env_a": "192.0.2.20"], routes).isEmpty)
        #expect(sole(at: own) == "b4" && sole(at: "192.0.2.20") == "a4")
    }

    @Test("R9: an address that goes is an ordinary one again; a route that changes its mind is served accordingly")
    func going() {
        let route = on4("a4", "env_a", "a.example.com")
        let other = TestRoute(id: "b6", env: "env_b", hostname: "b.example.org")
        _ = apply(["env_a": own], [route, other])
        #expect(named("b.example.org", at: own) == nil)
        var plain = route
        plain.extra = ""
        _ = apply(["env_a": own], [plain, other])
        #expect(named("a.example.com", at: own) == nil && state.dedicatedListeners.isEmpty)
        _ = apply(["env_a": own], [route, other])
        #expect(named("a.example.com", at: own) == "a4")
        _ = apply(["env_a": own], [other])
        #expect(named("a.example.com", at: own) == nil && sole(at: own) == nil)
        _ = apply([:], [other])
        #expect(named("b.example.org", at: own) == "b6")
    }

    @Test("R9: memory of tables with addresses is given back")
    func memory() {
        var memory: RouteStore?
        do {
            let state = RoutingState()
            memory = state.memory
            let envs = ["env_a", "env_b"].enumerated().map { index, env in
                "{\"env_id\": \"\(env)\", \"app_id\": \"p\", \"org_id\": \"o\", \"ipv4_address\": \"192.0.2.\(index + 1)\"}"
            }
            for count in [3, 0, 2] {
                let routes = (0..<count).map { on4("r\($0)", "env_a", "h\($0).example.com").json }
                state.applyText(
                    "{\"format\": \"pipelined.state/1\", \"envs\": [\(envs.joined(separator: ","))], "
                        + "\"instances\": [], \"routes\": [\(routes.joined(separator: ","))]}")
            }
        }
        #expect(memory?.liveBlocks == 0)
    }
}
