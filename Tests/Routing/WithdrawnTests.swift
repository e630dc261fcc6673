import Pipeline
import Testing

@testable import PipelineRouting

/// What is withdrawn keeps what it owns, and gets no new connection.
@Suite("R5: withdrawn routes and envs")
struct WithdrawnTests {
    private let state = RoutingState()
    private static let withdrawn = ", \"withdrawn\": true"

    private func route(_ id: String, _ env: String, _ name: String, _ extra: String = "") -> TestRoute {
        TestRoute(id: id, env: env, hostname: name, extra: extra)
    }

    private func apply(_ routes: [TestRoute], a: String = "", suspended: Bool = false) -> [RouteProblem] {
        let env = envObject("env_a", suspended: suspended).dropLast() + "\(a)}"
        return state.applyText(
            documentText(
                envObjects: [String(env), envObject("env_b")], routes: routes.map(\.json), hostnames: [])
        ).problems
    }

    private var refused: [String] { state.snapshot.suspendedRoutes.sorted() }
    private var drained: [String] { state.currentDrains.map(\.name).sorted() }

    @Test("a route that is withdrawn refuses connections, and its name stays its own", arguments: OnDelete.allCases)
    func route(_ onDelete: OnDelete) {
        let extra = ", \"on_delete\": \"\(onDelete.name)\""
        let other = route("rb", "env_b", "b.example.com")
        _ = apply([route("ra", "env_a", "a.example.com", extra), other])
        #expect(refused == [] && drained == [])
        _ = apply([route("ra", "env_a", "a.example.com", extra + Self.withdrawn), other])
        #expect(refused == ["ra"] && state.snapshot.routeCount == 2)
        #expect(drained == (onDelete == .keep ? [] : ["ra"]))
        #expect(state.currentDrains.allSatisfy { $0.grace == (onDelete == .kill ? .zero : .seconds(30)) })
        // Nobody else gets it, by itself or by a wildcard.
        for name in ["a.example.com", "*.example.com"] {
            let problems = apply([
                route("ra", "env_a", "a.example.com", extra + Self.withdrawn), route("rb", "env_b", name),
            ])
            #expect(isRejected(problems, "rb", "org/app/env_a"), "\(problems)")
        }
        // Back again, its connections are its own.
        _ = apply([route("ra", "env_a", "a.example.com", extra), other])
        #expect(refused == [] && drained == [])
    }

    @Test("R24: a route whose new version is rejected serves the old one, but not if the new one is withdrawn")
    func kept() {
        let other = route("rb", "env_b", "b.example.com")
        _ = apply([route("ra", "env_a", "a.example.com"), other])
        let problems = apply([route("ra", "env_a", "b.example.com", Self.withdrawn), other])
        #expect(isRejected(problems, "ra", "belongs to"))
        #expect(refused == ["ra"] && state.snapshot.routeCount == 2)
    }

    @Test("an env that is withdrawn: its routes refuse, its connections go on; suspended as well, they end")
    func env() {
        let routes = [route("ra", "env_a", "a.example.com"), route("rb", "env_b", "b.example.com")]
        _ = apply(routes)
        for (words, suspended, ended) in [
            (Self.withdrawn, false, [String]()), (Self.withdrawn, true, ["org/app/env_a"]), (Self.withdrawn, false, []),
            ("", true, ["org/app/env_a"]), (Self.withdrawn, true, ["org/app/env_a"]),
        ] {
            _ = apply(routes, a: words, suspended: suspended)
            #expect(refused == ["ra"] && drained == ended, "\(words) \(suspended)")
        }
        #expect(state.suspended.envs == ["org/app/env_a"])
        _ = apply(routes)
        #expect(refused == [] && drained == [] && state.suspended.envs == [])
    }
}
