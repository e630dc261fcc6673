import Pipeline
import PipelineRouting
import Testing

/// A `route` block with several names and ports is one route: one id, one owner, one set of counts.
@Suite("Config routes of several names and ports")
struct ConfigClaimTests {
    let state = RoutingState()

    private func specs(_ names: [String], _ ports: [UInt16] = [443], id: String = "rt_web", env: String = "prod") throws
        -> [RouteSpec]
    {
        let backend = BackendSpec(try #require(Endpoint("[fd00::1]:80")))
        return names.flatMap { name in ports.map { (name, $0) } }.enumerated().map { index, claim in
            var spec = RouteSpec(
                index: index, id: id, org: "acme", app: "shop", env: env, hostname: claim.0, port: claim.1,
                hint: .tlsPassthrough, backends: [backend])
            if index > 0 { spec.claim = "\(claim.0):\(claim.1)" }
            return spec
        }
    }

    @discardableResult private func apply(_ specs: [RouteSpec]) -> [RouteProblem] {
        let (document, problems) = StateDocument.config(specs, seed: testSeed)
        return problems.list + state.apply(document).problems.list
    }

    private func cell(_ name: String, _ port: UInt16 = 443) -> UnsafePointer<RouteCell>? {
        state.snapshot.named(name, port)?.pointee.cell
    }

    @Test("each name is found at each port, with one id and one cell")
    func one() throws {
        #expect(apply(try specs(["a.example.com", "b.example.com"], [443, 8443])).isEmpty)
        let first = try #require(cell("a.example.com"))
        for name in ["a.example.com", "b.example.com"] {
            for port in [443, 8443] as [UInt16] {
                #expect(cell(name, port) == first)
                #expect(state.snapshot.named(name, port)?.pointee.id.string == "rt_web")
            }
        }
        #expect(state.snapshot.routeCount == 4)
    }

    @Test("R11: counts stay when names and ports come and go, in whichever order; another owner begins anew")
    func counts() throws {
        apply(try specs(["a.example.com"]))
        let first = try #require(cell("a.example.com"))
        first.pointee.connections.add(7, ordering: .relaxed)
        apply(try specs(["b.example.com", "a.example.com"], [8443, 443]))
        #expect(cell("a.example.com") == first && cell("b.example.com", 8443) == first)
        apply(try specs(["c.example.com"]))
        #expect(cell("c.example.com") == first)
        #expect(cell("a.example.com") == nil)
        #expect(first.pointee.connections.load(ordering: .relaxed) == 7)
        first.pointee.users.add()
        apply(try specs(["c.example.com"], env: "test"))
        let other = try #require(cell("c.example.com"))
        #expect(other != first && other.pointee.connections.load(ordering: .relaxed) == 0)
        #expect(state.freeUnpinned() == 1, "a connection pins what it began with")
        first.pointee.users.remove()
        #expect(state.freeUnpinned() == 0)
        apply([])
        #expect(state.freeUnpinned() == 0)
    }

    @Test("R5: each name is judged by itself, and the claim at fault is named")
    func judged() throws {
        state.apply([TestRoute(id: "rx", env: "env_a", hostname: "b.example.com")])
        let problems = apply(try specs(["a.example.com", "b.example.com", "c.example.com"]))
        #expect(isRejected(problems, "rt_web b.example.com:443", "org/app/env_a", "acme/shop/prod"))
        #expect(problems.count == 1)
        #expect(problems.first?.origin == .config(1))
        #expect(cell("a.example.com") != nil && cell("a.example.com") == cell("c.example.com"))
        #expect(state.snapshot.named("b.example.com")?.pointee.id.string == "rx")
    }

    @Test("R8: one name twice, however it is written, is said of the second")
    func twice() throws {
        let problems = apply(try specs(["a.example.com", "A.Example.Com."]))
        #expect(isRejected(problems, "rt_web A.Example.Com.:443", "taken"))
    }

    @Test("memory is given back with the last table, whatever was shared")
    func memory() throws {
        let before = state.memory.liveBlocks
        apply(try specs((0..<300).map { "n\($0).example.com" }, [443, 8443]))
        apply(try specs((100..<400).map { "n\($0).example.com" }, [443, 9443]))
        apply([])
        #expect(state.freeUnpinned() == 0)
        #expect(state.memory.liveBlocks == before)
    }
}
