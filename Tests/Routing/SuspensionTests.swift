import Pipeline
import Testing

@testable import PipelineRouting

@Suite("R30: suspended envs and orgs")
struct SuspensionTests {
    private static let routes = [
        TestRoute(id: "ra", env: "env_a", hostname: "a.example.com"),
        TestRoute(id: "rb", env: "env_b", hostname: "b.example.com"),
    ]

    private let state = RoutingState()

    private func document(_ a: String, _ b: String, orgs: [String] = [], _ routes: [TestRoute] = routes) -> String {
        documentText(orgs: orgs, envObjects: [a, b], routes: routes.map(\.json), hostnames: [])
    }

    /// By id.
    private var suspendedRoutes: [String] {
        state.snapshot.suspendedRoutes.sorted()
    }

    private var drained: [String] { state.currentDrains.map(\.name).sorted() }

    @Test("of an env its routes stay, are marked, and its connections are to end at once; of others nothing changes")
    func env() {
        state.applyText(document(envObject("env_a"), envObject("env_b")))
        #expect(suspendedRoutes == [] && drained == [])
        state.applyText(document(envObject("env_a", suspended: true), envObject("env_b")))
        #expect(suspendedRoutes == ["ra"] && drained == ["org/app/env_a"])
        #expect(state.currentDrains[0].grace == .zero)
        #expect(state.suspended.envs == ["org/app/env_a"] && state.suspended.orgs == [])
        // The name is its own still.
        var stolen = Self.routes
        stolen[1].hostname = "a.example.com"
        let problems = state.applyText(
            document(envObject("env_a", suspended: true), envObject("env_b"), stolen)
        ).problems
        #expect(isRejected(problems, "rb", "belongs to"))
        state.applyText(document(envObject("env_a"), envObject("env_b")))
        #expect(suspendedRoutes == [] && drained == [])
    }

    @Test("of an org all its envs, also those that come or join later; without its object it is not suspended")
    func org() {
        let (a, b) = (envObject("env_a", org: "x"), envObject("env_b", org: "y"))
        state.applyText(document(a, b, orgs: [orgObject("x", suspended: true)]))
        #expect(suspendedRoutes == ["ra"] && drained == ["x", "x/app/env_a"])
        #expect(state.suspended.orgs == ["x"] && state.suspended.envs == [])
        state.applyText(document(a, envObject("env_b", org: "x"), orgs: [orgObject("x", suspended: true)]))
        #expect(suspendedRoutes == ["ra", "rb"] && drained == ["x", "x/app/env_a", "x/app/env_b"])
        state.applyText(document(a, b, orgs: []))
        #expect(suspendedRoutes == [] && drained == [])
    }

    @Test("R24: what can't be read leaves it as it was, and what never could be counts as suspended")
    func quarantine() {
        let (a, b) = (envObject("env_a", org: "x"), envObject("env_b", org: "y"))
        let bad = "{\"org_id\": \"x\", \"suspended\": \"no\"}"
        let unknown = state.applyText(document(a, b, orgs: [bad])).problems
        #expect(suspendedRoutes == ["ra"])
        #expect(
            texts(unknown).contains { $0.contains("org x suspended: is not known, so the org counts as suspended") })
        state.applyText(document(a, b, orgs: [orgObject("x", suspended: false)]))
        #expect(suspendedRoutes == [])
        state.applyText(document(a, b, orgs: [bad]))
        #expect(suspendedRoutes == [])
        state.applyText(document(a, b, orgs: [orgObject("x", suspended: true)]))
        let twins = [orgObject("x", suspended: true), orgObject("x", suspended: false)]
        let problems = state.applyText(document(a, b, orgs: twins)).problems
        #expect(suspendedRoutes == ["ra"] && isRejected(problems, "x", "the applied version stays"))
        // The same of an env.
        let broken = envObject("env_b", org: "y", suspended: true).replacing("true", with: "1")
        state.applyText(document(a, envObject("env_b", org: "y", suspended: true)))
        state.applyText(document(a, broken))
        #expect(suspendedRoutes == ["rb"])
    }

    @Test("`route` blocks of the same env, or of an org that is suspended, are suspended with it")
    func blocks() throws {
        let backend = BackendSpec(try #require(Endpoint("[fd00::1]:80")))
        let block = { (index: Int, id: String, env: String) in
            RouteSpec(
                index: index, id: id, org: "org", app: "app", env: env, hostname: "\(id).example.org", port: 443,
                hint: .tlsPassthrough, backends: [backend])
        }
        let (blocks, _) = StateDocument.config(
            [block(0, "same", "env_a"), block(1, "sibling", "env_c")], seed: testSeed)
        let (document, _) = StateDocument.parse(
            document(envObject("env_a", suspended: true), envObject("env_b")), seed: testSeed)
        _ = state.apply(together: [blocks, try #require(document)])
        #expect(suspendedRoutes == ["ra", "same"])
        let (whole, _) = StateDocument.parse(
            self.document(envObject("env_a"), envObject("env_b", org: "y"), orgs: [orgObject("org", suspended: true)]),
            seed: testSeed)
        if let whole { _ = state.apply(whole) }
        #expect(suspendedRoutes == ["ra", "same", "sibling"])
    }

    @Test("an env that is renamed while it is suspended stays so; one that is gone is not, its org is")
    func changes() {
        let b = envObject("env_b")
        state.applyText(document(envObject("env_a", suspended: true), b))
        state.applyText(document(envObject("env_a", app: "other", suspended: true), b))
        #expect(suspendedRoutes == ["ra"] && drained == ["org/app/env_a"])
        state.applyText(documentText(envObjects: [b], routes: [Self.routes[1].json], hostnames: []))
        #expect(suspendedRoutes == [] && drained == [])
        // Connections that went on without their env end with their org.
        let gone = documentText(
            orgs: [orgObject("org", suspended: true)], envObjects: [envObject("env_b", org: "y")],
            routes: [Self.routes[1].json], hostnames: [])
        state.applyText(gone)
        #expect(drained == ["org"] && state.currentDrains.contains { if case .org = $0.target { true } else { false } })
    }

    @Test("R19: instances of this node say so, by a new directory, and keep their numbers")
    func instances() throws {
        state.nodeName = "n1"
        let instances = [
            instance("i1", env: "env_a", address: "fd00::1"), instance("i2", env: "env_b", address: "fd00::2"),
        ]
        let text = { (isSuspended: Bool) in
            documentText(
                envObjects: [envObject("env_a", suspended: isSuspended), envObject("env_b")], instances: instances,
                routes: [], hostnames: [])
        }
        func find(_ text: String) throws -> UnsafePointer<InstanceIdentity> {
            let address = try #require(IPAddress(text))
            return try #require(state.snapshot.instances.identity(of: address))
        }
        state.applyText(text(false))
        let number = try find("fd00::1").pointee.number
        #expect(try !find("fd00::1").pointee.isSuspended)
        state.applyText(text(true))
        let one = try find("fd00::1")
        #expect(one.pointee.isSuspended && one.pointee.number == number)
        #expect(try !find("fd00::2").pointee.isSuspended)
        let tenant = one.pointee.tenant
        #expect(state.currentDrains.contains { if case .env(tenant.env) = $0.target { true } else { false } })
    }

    @Test("R9: a suspended env's own address is known to be its own")
    func dedicated() throws {
        state.applyText(
            document(envObject("env_a", ipv4: "192.0.2.1", suspended: true), envObject("env_b", ipv4: "192.0.2.2")))
        for (text, isSuspended) in [("192.0.2.1", true), ("192.0.2.2", false), ("192.0.2.3", false)] {
            let address = try #require(IPAddress(text))
            #expect(state.snapshot.handle.isSuspended(at: DestinationAddress(Endpoint(address, 443))) == isSuspended)
        }
    }
}
