import Pipeline
import Testing

@testable import PipelineHealth

/// Which backends are probed: from the program and the route table alone.
@Suite("health: targets")
struct HealthTargetsTests {
    private static let blocks = """
        health web {
            probe  tls
        }
        health mail {
            probe  expect "220"
        }
        health quiet {
            probe  off
        }

        """

    private static func pipeline(_ name: String, _ health: String?, sni: Bool = true) -> String {
        """
        pipeline \(name) {
        \(sni ? "    sni  timeout 3s\n" : "")    backend\(health.map { " health \($0)" } ?? "")
            proxy_v2
        }

        """
    }

    private func targets(_ config: String, state: String? = nil) throws -> [ProbeTarget] {
        let loaded = Fixture.load(Self.blocks + config, state: state)
        let node = try #require(loaded.node, "\(loaded.diagnosticText)")
        var book = ProbeBook()
        guard case .all(let list) = book.follow(node.program, node.routing, node.routing.takeNews()).kind else {
            return []
        }
        return list
    }

    private func summary(_ targets: [ProbeTarget]) -> [String] {
        targets.map { "\($0.key.endpoint)\($0.key.usesProxy ? " v2" : "") \($0.settings.name)" }
    }

    @Test("a route's backends are probed as its listener's pipeline says, v2 routes with a header")
    func routes() throws {
        let config =
            Self.pipeline("tls", "web") + Self.pipeline("raw", "mail", sni: false)
            + "listen [::]:443 tls_passthrough via tls\nexpose [::] ports 10000-10010 via raw\n"
            + Fixture.route("a.example.com", id: "rt_a", backend: "[fd00::10]:8443 [fd00::11]:8443")
            + Fixture.route(
                "b.example.com", id: "rt_b", backend: "[fd00::11]:8443",
                more: "proxy_protocol v2\n    backend_expects_proxy_protocol true")
            + Fixture.route(nil, id: "rt_mail", port: 10005, backend: "[fd00::20]:25")
        #expect(
            summary(try targets(config)) == [
                "[fd00::10]:8443 web", "[fd00::11]:8443 web", "[fd00::11]:8443 v2 web", "[fd00::20]:25 mail",
            ])
    }

    @Test("a route by first bytes is probed as the stage of its port says, unless it has a `health` of its own")
    func firstBytes() throws {
        for (own, wanted) in [("", "web"), ("\n    health mail", "mail"), ("\n    health off", nil)] {
            let config =
                Self.pipeline("tls", "web") + "listen [::]:443 tls_passthrough via tls\n"
                + Fixture.route("a.example.com", id: "rt_a", backend: "[fd00::10]:8443")
                + Fixture.route(nil, id: "rt_ssh", backend: "[fd00::20]:22", more: "when protocol ssh\(own)")
            let found = summary(try targets(config))
            #expect(found == ["[fd00::10]:8443 web"] + (wanted.map { ["[fd00::20]:22 \($0)"] } ?? []), "\(own)")
        }
    }

    @Test("no block, or `probe off`: nothing is probed", arguments: [nil, "quiet"])
    func nothing(_ block: String?) throws {
        let config =
            Self.pipeline("tls", block) + "listen [::]:443 tls_passthrough via tls\n"
            + Fixture.route("a.example.com", id: "rt_a")
        #expect(try targets(config).isEmpty)
    }

    @Test("of several blocks for one backend, the first pipeline's holds; a backend is one target")
    func firstBlock() throws {
        for (order, wanted) in [(["web", "mail"], "web"), (["mail", "web"], "mail")] {
            let config =
                Self.pipeline("one", order[0]) + Self.pipeline("two", order[1])
                + "listen [::]:8443 tls_passthrough via two\nlisten [::]:443 tls_passthrough via one\n"
                + Fixture.route("a.example.com", id: "rt_a")
                + Fixture.route("b.example.com", id: "rt_b", port: 8443)
            let found = try targets(config)
            #expect(summary(found) == ["[fd00::10]:8443 \(wanted)"])
            #expect(found.first?.routes.count == 2 && Set(found.first?.routes.ids ?? []) == ["rt_a", "rt_b"])
        }
    }

    @Test("R12: what desired state does not call ready is no target")
    func onlyReady() throws {
        let config =
            Self.pipeline("tls", "web") + "listen [::]:443 tls_passthrough via tls\nroutes file state.json\n"
        let routes =
            Fixture.stateRoute("rt_a", "a.example.com") + ",\n"
            + Fixture.stateRoute("rt_b", "b.example.com", env: "env_b")
        let ready = try targets(config, state: Fixture.state(routes))
        #expect(summary(ready) == ["[fd00::a]:8443 web", "[fd00::b]:8443 web"])
        #expect(ready.first?.instance == "i_a")
        #expect(ready.map { $0.routes.envs.map(\.path) } == [["acme/shop/env_a"], ["acme/blog/env_b"]])
        let state = Fixture.state(routes).replacing(
            "\"node_id\": \"n1\",\n \"status\": \"ready\"", with: "\"node_id\": \"n1\",\n \"status\": \"starting\"",
            maxReplacements: 1)
        #expect(summary(try targets(config, state: state)) == ["[fd00::b]:8443 web"])
    }

    @Test("R27: many routes to one backend are one target, and a few of their ids")
    func manyRoutes() throws {
        let config =
            Self.pipeline("tls", "web") + "listen [::]:443 tls_passthrough via tls\n"
            + (0..<200).map { Fixture.route("h\($0).example.com", id: "rt_\($0)") }.joined()
        let found = try targets(config)
        #expect(found.count == 1)
        #expect(found.first?.routes.count == 200 && found.first?.routes.ids.count == RouteSample.limit)
    }

    @Test("a route of several names, ports and groups is one route")
    func manyNames() throws {
        let config =
            Self.pipeline("tls", "web") + "listen [::]:443 tls_passthrough via tls\n"
            + "listen [::]:8443 tls_passthrough via tls\n"
            + Fixture.route("a.example.com *.a.example.com b.example.com", id: "rt_a")
            .replacing("listen   443", with: "listen 443 8443")
            + Fixture.route("c.example.com", id: "rt_c")
        let found = try targets(config)
        #expect(found.count == 1)
        #expect(found.first?.routes.count == 2 && found.first?.routes.ids.sorted() == ["rt_a", "rt_c"])
    }
}
