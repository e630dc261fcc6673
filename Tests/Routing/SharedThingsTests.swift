import Pipeline
import PipelineRouting
import Testing

@Suite("Things that two objects ask for")
struct SharedThingsTests {
    let state = RoutingState()
    private let a = TestRoute(id: "ra", env: "env_a", hostname: "a.example.com")
    private let b = TestRoute(id: "rb", env: "env_b", hostname: "b.example.com")

    private func backends(_ name: String, _ state: RoutingState? = nil) -> [String] {
        (state ?? self.state).snapshot.named(name)?.backends.buffer.map(\.instance.string) ?? []
    }

    private func text(_ envs: [String], instances: [String] = [], _ routes: [TestRoute] = []) -> String {
        documentText(envObjects: envs, instances: instances, routes: routes.map(\.json), hostnames: [])
    }

    @Test("R31: an address of ready instances of two envs is the one's who had it, else nobody's; both are named")
    func overlay() {
        let one = instance("i1", env: "env_a", address: "fd00::1")
        let two = instance("i2", env: "env_b", address: "fd00::1")
        for instances in [[one, two], [two, one]] {
            let state = RoutingState()
            let problems = state.apply(instances: instances, [a, b]).problems
            #expect(backends("a.example.com", state) == [] && backends("b.example.com", state) == [])
            #expect(isRejected(problems, "i1", "org/app/env_a", "org/app/env_b", "fd00::1"))
            #expect(isRejected(problems, "i2", "org/app/env_a", "org/app/env_b", "overlay_ipv6"))
            state.apply(instances: [one], [a, b])
            let kept = state.apply(instances: instances, [a, b]).problems
            #expect(backends("a.example.com", state) == ["i1"] && backends("b.example.com", state) == [])
            #expect(isRejected(kept, "i2", "org/app/env_a", "org/app/env_b") && !isRejected(kept, "i1"))
            // It lets go: the other can have it.
            let gone = instance("i1", env: "env_a", address: "fd00::1", status: "draining")
            #expect(state.apply(instances: [two, gone], [a, b]).problems.isEmpty)
            #expect(backends("b.example.com", state) == ["i2"])
        }
        // Only what is ready counts, and within one env it is harmless.
        let same = [one, instance("i3", env: "env_a", process: "job", address: "fd00::1")]
        #expect(state.apply(instances: same, [a]).problems.isEmpty && backends("a.example.com") == ["i1"])
    }

    @Test("R9: a dedicated address of two envs is the one's who had it, else nobody's; both are named")
    func dedicated() {
        let own = "192.0.2.10"
        let (one, two) = (envObject("env_a", ipv4: own), envObject("env_b", ipv4: own))
        var route = a
        route.extra = ", \"ipv4_required\": true"
        for envs in [[one, two], [two, one]] {
            let state = RoutingState()
            let problems = state.applyText(text(envs, [route])).problems
            #expect(state.dedicatedListeners.isEmpty)
            #expect(isRejected(problems, "env_a", "org/app/env_a", "org/app/env_b", own))
            #expect(isRejected(problems, "env_b", "org/app/env_a", "org/app/env_b", own))
            state.applyText(text([one], [route]))
            let kept = state.applyText(text(envs, [route])).problems
            #expect(state.dedicatedListeners.map(\.env.path) == ["org/app/env_a"])
            #expect(isRejected(kept, "env_b", "org/app/env_a") && !isRejected(kept, "env_a"))
        }
    }

    @Test("R24: objects with one id that say different things: what was applied stays, else neither, in any order")
    func routeIDs() {
        let one = TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")
        let two = TestRoute(id: "r1", env: "env_b", hostname: "b.example.com")
        let third = TestRoute(id: "r2", env: "env_c", hostname: "a.example.com", port: 8443)
        for routes in [[one, two], [two, one]] {
            let state = RoutingState()
            let problems = state.apply(routes).problems
            #expect(state.served.isEmpty && problems.count == 2 && problems.allSatisfy { $0.problem.contains("twice") })
            state.apply([one])
            state.apply(routes)
            #expect(state.served == ["r1": one])
            // Nobody gets the name meanwhile; nor would they after a restart.
            state.apply(routes + [third])
            #expect(state.served == ["r1": one])
            let fresh = RoutingState()
            fresh.apply([third] + routes)
            #expect(fresh.served.isEmpty)
        }
        let same = state.apply([one, one])
        #expect(state.served == ["r1": one])
        #expect(same.problems.map(\.severity) == [.warning])
    }

    @Test("R24: instances and envs with one id that say different things")
    func otherIDs() {
        let (one, two) = (instance("i1", address: "fd00::1"), instance("i1", address: "fd00::2"))
        let other = instance("i9", env: "env_b", address: "fd00::1")
        for instances in [[one, two], [two, one]] {
            let state = RoutingState()
            #expect(state.apply(instances: instances, [a]).problems.count == 2)
            #expect(backends("a.example.com", state) == [])
            state.apply(instances: [one], [a])
            state.apply(instances: instances, [a])
            #expect(backends("a.example.com", state) == ["i1"])
            state.apply(instances: instances + [other], [a, b])
            #expect(backends("a.example.com", state) == ["i1"] && backends("b.example.com", state) == [])
            let fresh = RoutingState()
            fresh.apply(instances: instances + [other], [a, b])
            #expect(backends("a.example.com", fresh) == [] && backends("b.example.com", fresh) == [])
        }
        let envs = [envObject("env_a", app: "shop"), envObject("env_a", app: "mail")]
        for envs in [envs, envs.reversed()] {
            let state = RoutingState()
            let problems = state.applyText(text(envs, [a])).problems
            #expect(state.served.isEmpty && isRejected(problems, "env_a", "twice") && isRejected(problems, "ra"))
            state.applyText(text([envs[0]], [a]))
            let owner = state.snapshot.named("a.example.com")?.pointee.owner.pointee.app.string
            state.applyText(text(envs, [a]))
            #expect(owner != nil && state.snapshot.named("a.example.com")?.pointee.owner.pointee.app.string == owner)
        }
    }

    @Test("R24: a route whose env is gone goes as a removed one does; an env that can't be read is not gone")
    func envGone() {
        var route = a
        route.extra = ", \"on_delete\": \"kill\""
        let fresh = TestRoute(id: "rc", env: "env_c", hostname: "a.example.com", port: 8443)
        let bad = "{\"env_id\": \"env_a\", \"app_id\": 5, \"org_id\": \"org\"}"
        state.applyText(text([envObject("env_a"), envObject("env_c")], [route]))
        let kept = state.applyText(text([bad, envObject("env_c")], [route, fresh]))
        #expect(state.served.keys.sorted() == ["ra"] && isRejected(kept.problems, "rc", "env_a"))
        #expect(kept.report?.drains.isEmpty == true)
        // After a start nobody knows the env, and its name is still nobody else's.
        let started = RoutingState()
        started.applyText(text([bad, envObject("env_c")], [route, fresh]))
        #expect(started.served.isEmpty)
        let gone = state.applyText(text([envObject("env_c")], [route, fresh]))
        #expect(isRejected(gone.problems, "ra", "env_a", "not in envs"))
        #expect(state.served.keys.sorted() == ["rc"])
        #expect(gone.report?.drains.map(\.name) == ["ra"] && gone.report?.removed == 1)
    }

    @Test(
        "R16: a route that disagrees with its backends about the PROXY header is there, and refuses; so is its update")
    func mismatch() throws {
        let (v2, expects) = (", \"proxy_protocol\": \"v2\"", ", \"backend_expects_proxy_protocol\": true")
        func route(_ extra: String, port: UInt16 = 443) -> TestRoute {
            TestRoute(id: "r", env: "env_a", hostname: "a.example.com", port: port, extra: extra)
        }
        let good = route(v2 + expects)
        for extra in [v2, expects] {
            for before in [[], [good], [route("")]] {
                let state = RoutingState()
                state.apply(before)
                let problems = state.apply([route(extra)]).problems
                #expect(isRejected(problems, "r", "proxy_mismatch"))
                let flags = try #require(state.snapshot.named("a.example.com")).pointee.flags
                #expect(flags.contains(.proxyMismatch))
                #expect(state.snapshot.listing().map(\.isMismatched) == [true])
                #expect(state.apply([good]).problems.isEmpty)
                #expect(state.snapshot.named("a.example.com")?.pointee.flags == [.proxyHeader])
            }
            // Nor does the old pair go on where the update is refused for something else.
            for other in [route(extra, port: 25), route(extra + ", \"max_connections\": 0")] {
                let state = RoutingState()
                state.apply([good])
                state.apply([other])
                #expect(
                    state.snapshot.named("a.example.com")?.pointee.flags.contains(.proxyMismatch) == true, "\(other)")
            }
            var stolen = route(extra)
            stolen.hostname = "b.example.com"
            let state = RoutingState()
            state.apply([good, b])
            state.apply([stolen, b])
            #expect(state.snapshot.named("a.example.com")?.pointee.flags.contains(.proxyMismatch) == true)
        }
    }

    @Test("R16: PROXY v2 at a port whose pipeline can't write it refuses as well, and no longer once it can")
    func noStage() throws {
        func facts(_ injects: Bool) -> [ListenerFacts] {
            [
                ListenerFacts(
                    address: .unspecified, ports: 443...443, hint: .tlsPassthrough, injectsProxy: injects, pipeline: "p"
                )
            ]
        }
        let state = RoutingState(seed: testSeed, listeners: facts(false))
        var route = a
        state.apply([route])
        route.extra = ", \"proxy_protocol\": \"v2\", \"backend_expects_proxy_protocol\": true"
        #expect(isRejected(state.apply([route]).problems, "ra", "proxy_v2", "proxy_mismatch"))
        #expect(state.snapshot.named("a.example.com")?.pointee.flags == [.proxyHeader, .proxyMismatch])
        state.listeners = facts(true)
        #expect(state.apply([route]).problems.isEmpty)
        #expect(state.snapshot.named("a.example.com")?.pointee.flags == [.proxyHeader])
    }

    @Test("R5: blocks of the config and a state document are one change: neither is first")
    func sources() throws {
        let spec = RouteSpec(
            index: 0, id: "block", org: "acme", app: "shop", env: "prod", hostname: "a.example.com", port: 443,
            hint: .tlsPassthrough, backends: [BackendSpec(try #require(Endpoint("[fd00::10]:8443")))])
        let config = StateDocument.config([spec], seed: testSeed).document
        func document(_ hostnames: [TestHostname] = []) throws -> StateDocument {
            let text = documentText(
                envObjects: [envObject("env_a")], routes: [a.json], hostnames: hostnames.map(\.json))
            return try #require(StateDocument.parse(text, seed: testSeed).document)
        }
        for order in [[config, try document()], [try document(), config]] {
            let fresh = RoutingState()
            let problems = fresh.apply(together: order).problems.list
            #expect(fresh.served.isEmpty)
            #expect(isRejected(problems, "block", "acme/shop/prod", "org/app/env_a"))
            #expect(isRejected(problems, "ra", "acme/shop/prod", "org/app/env_a"))
            for (first, winner) in [(order[0], order[0].source == .config ? "block" : "ra")] {
                _ = fresh.apply(together: [first])
                _ = fresh.apply(together: order)
                #expect(fresh.served.keys.sorted() == [winner])
            }
        }
        // In an entry the config's env is named by its path.
        _ = state.apply(together: [config, try document([TestHostname("a.example.com", "acme/shop/prod", 1)])])
        #expect(state.served.keys.sorted() == ["block"])
        // A name moves from one to the other in one change.
        _ = state.apply(together: [.config([]).document, try document()])
        #expect(state.served.keys.sorted() == ["ra"])
    }

    @Test("R5: an env is org, app and env together, whether a block or a document names it")
    func oneEnvOfBoth() throws {
        let spec = RouteSpec(
            index: 0, id: "block", org: "org", app: "app", env: "env_a", hostname: "b.example.com", port: 443,
            hint: .tlsPassthrough, backends: [BackendSpec(try #require(Endpoint("[fd00::10]:8443")))])
        let config = StateDocument.config([spec], seed: testSeed).document
        func document(_ routes: [TestRoute], _ hostnames: [TestHostname] = []) throws -> StateDocument {
            let text = documentText(
                envObjects: [envObject("env_a"), envObject("env_b")], routes: routes.map(\.json),
                hostnames: hostnames.map(\.json))
            return try #require(StateDocument.parse(text, seed: testSeed).document)
        }
        // A wildcard of the document over a name of the block clashes with nobody: they are one env's.
        let wild = TestRoute(id: "wild", env: "env_a", hostname: "*.example.com")
        for order in [[config, try document([wild])], [try document([wild]), config]] {
            let fresh = RoutingState()
            #expect(fresh.apply(together: order).problems.isEmpty)
            #expect(fresh.served.keys.sorted() == ["block", "wild"])
            let owners = ["b.example.com", "x.example.com"].map { fresh.snapshot.named($0)?.pointee.owner }
            #expect(owners[0] == owners[1] && owners[0] != nil)
        }
        // The name that every message prints can be written into an entry.
        let entry = TestHostname("b.example.com", "org/app/env_a", 1)
        let other = TestRoute(id: "other", env: "env_b", hostname: "b.example.com")
        let problems = state.apply(together: [config, try document([other], [entry])]).problems.list
        #expect(state.served.keys.sorted() == ["block"])
        #expect(problems.count == 1 && isRejected(problems, "other", "org/app/env_a", "org/app/env_b"))
        // The document lets it go: the block's owner has the same name still, and so its hostname.
        let gone = documentText(
            envObjects: [envObject("env_b")], routes: [other.json], hostnames: [entry.json])
        _ = state.apply(together: [config, try #require(StateDocument.parse(gone, seed: testSeed).document)])
        #expect(state.served.keys.sorted() == ["block"])
    }

    @Test("R27: clashes of very many cost what they are, not their square")
    func scale() {
        let count = 20_000
        var routes = (0..<count).flatMap { index in
            ["env_a", "env_b"].map { TestRoute(id: "\($0)-\(index)", env: $0, hostname: "h\(index).example.com") }
        }
        routes.append(TestRoute(id: "w", env: "env_c", hostname: "*.example.com"))
        routes += (0..<count).map { TestRoute(id: "raw\($0)", env: "env_\($0 % 1000)", port: 5432, raw: true) }
        let envs = ["env_a", "env_b", "env_c"] + (0..<1000).map { "env_\($0)" }
        let report = state.apply(envs: envs, routes).report
        #expect(state.served.isEmpty && report?.problems.rejected == 3 * count + 1)
        // All of one env by entries: what was in their way is out.
        let entries = (0..<count).map { TestHostname("h\($0).example.com", "env_b", $0) }
        state.apply(envs: envs, routes, hostnames: entries)
        #expect(state.snapshot.routeCount == count)
    }
}
