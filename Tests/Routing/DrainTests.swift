import Pipeline
import PipelineRouting
import Testing

@Suite("Draining")
struct DrainTests {
    let state = RoutingState()
    private let route = TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")
    private let other = TestRoute(id: "r2", env: "env_a", hostname: "b.example.com", backendPort: 9090)

    private func apply(_ statuses: [String], _ routes: [TestRoute]) -> [RouteDrain] {
        let instances = statuses.enumerated().map { index, status in
            instance("i\(index)", address: "fd00::\(index + 1)", status: status)
        }
        return state.apply(instances: instances, routes).report?.drains ?? []
    }

    @Test("a draining instance gets no new connection, and its old ones have its grace, at every port")
    func instanceDrains() throws {
        #expect(apply(["ready", "ready"], [route, other]).isEmpty)
        let before = state.snapshot
        let cell = try #require(before.named("a.example.com")).backends[0].cell
        let drains = apply(["draining", "ready"], [route, other])
        #expect(drains.map(\.name) == ["[fd00::1]:8080", "[fd00::1]:9090"])
        #expect(drains.allSatisfy { $0.grace == .seconds(10) && $0.apply == 1 })
        guard case .backend(let named) = drains[0].target else {
            Issue.record("the drain of an instance names its cells")
            return
        }
        #expect(named == cell)
        #expect(state.snapshot.named("a.example.com")?.backends.count == 1)
        // The list is the whole list, and who asked stays who asked.
        #expect(apply(["draining", "ready"], [route, other]).map(\.apply) == [1, 1])
        #expect(apply(["stopped", "ready"], [route, other]).map(\.apply) == [1, 1])
    }

    @Test("an instance that is ready again is drained no more")
    func cancelled() {
        _ = apply(["ready"], [route])
        #expect(apply(["draining"], [route]).count == 1)
        #expect(apply(["ready"], [route]).isEmpty)
        #expect(apply(["draining"], [route]).map(\.apply) == [3])
    }

    @Test("a drain that was carried out is forgotten once, not begun again")
    func forgotten() {
        _ = apply(["ready"], [route])
        _ = apply(["draining"], [route])
        state.forgetDrains { _ in true }
        #expect(apply(["draining"], [route]).isEmpty)
    }

    @Test("an address that another instance serves by now is left alone")
    func reused() {
        state.apply(instances: [instance("i1", address: "fd00::1")], [route])
        let report = state.apply(
            instances: [
                instance("i1", address: "fd00::1", status: "draining"), instance("i2", address: "fd00::1"),
            ], [route]
        ).report
        #expect(report?.drains.isEmpty == true)
    }

    @Test("instances that were draining before the node came have no connections to drain")
    func atStart() {
        #expect(apply(["draining"], [route]).isEmpty)
    }

    @Test("on_delete says what becomes of a removed route's connections", arguments: ["keep", "drain", "kill"])
    func removedRoute(_ onDelete: String) throws {
        var removed = route
        removed.extra = ", \"on_delete\": \"\(onDelete)\""
        _ = apply(["ready"], [removed, other])
        let cell = try #require(state.snapshot.named("a.example.com")).pointee.cell
        let drains = apply(["ready"], [other])
        guard onDelete != "keep" else {
            #expect(drains.isEmpty)
            return
        }
        #expect(drains.map(\.name) == ["r1"])
        #expect(drains.map(\.grace) == [.seconds(onDelete == "kill" ? 0 : 30)])
        guard case .route(let named) = drains[0].target else {
            Issue.record("the drain of a route names its cell")
            return
        }
        #expect(named == cell)
        // The same id again is another route: the old one's connections still go.
        #expect(apply(["ready"], [removed, other]).count == 1)
        #expect(state.snapshot.named("a.example.com")?.pointee.cell != cell)
    }

    @Test("what a drain names stays alive while it is listed, and is freed after")
    func memory() {
        var memory: RouteStore?
        do {
            let state = RoutingState()
            memory = state.memory
            var removed = route
            removed.extra = ", \"on_delete\": \"kill\""
            state.apply(instances: [instance("i1", address: "fd00::1")], [removed])
            let draining = instance("i1", address: "fd00::1", status: "draining")
            let drains = state.apply(instances: [draining], []).report?.drains ?? []
            #expect(drains.count == 2)
            for drain in drains {
                switch drain.target {
                case .backend(let cell): #expect(cell.pointee.active.current == 0)
                case .route(let cell): #expect(cell.pointee.active.current == 0)
                case .env, .org: Issue.record("nobody is suspended")
                }
            }
            let before = state.memory.liveBlocks
            state.forgetDrains { $0.name == "r1" }
            #expect(state.memory.liveBlocks == before - 1)
        }
        #expect(memory?.liveBlocks == 0)
    }
}
