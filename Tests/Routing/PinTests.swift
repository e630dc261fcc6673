import Pipeline
import Testing

@testable import PipelineRouting

/// What connections pin outlives the last table that names it, and nothing else does (R26).
@Suite("Pins") struct PinTests {
    private let state = RoutingState(seed: testSeed)
    private let ready = instance("i1", address: "fd00::1")
    private let a = TestRoute(id: "r_a", env: "env_a", hostname: "a.example.com")

    @Test("R26: route, owner and backend go each with its own last user, in any order")
    func order() throws {
        state.apply(instances: [], [])
        let empty = state.store.liveBlocks
        state.apply(instances: [ready], [a])
        let route = try #require(state.snapshot.named("a.example.com"))
        let (cell, owner) = (route.pointee.cell, route.pointee.owner)
        let backend = route.backends[0].cell
        // As a worker pins it: the cell has the id from then on.
        route.pointee.nameCell()
        cell.pointee.users.add()
        owner.pointee.users.add()
        backend.pointee.active.add()
        state.applyText(documentText(envs: [], routes: []))
        #expect(state.freeUnpinned() == 3)
        #expect(cell.pointee.id.string == "r_a")
        #expect(owner.pointee.env.string == "env_a")
        #expect(backend.pointee.endpoint.address == IPAddress("fd00::1"))
        backend.pointee.active.remove()
        #expect(state.freeUnpinned() == 2)
        owner.pointee.users.remove()
        #expect(state.freeUnpinned() == 1)
        cell.pointee.users.remove()
        #expect(state.freeUnpinned() == 0)
        #expect(state.store.liveBlocks <= empty)
    }

    @Test("R12: an address that comes back while connections of its last time go on has the same cell")
    func back() throws {
        state.apply(instances: [ready], [a])
        let backend = try #require(state.snapshot.named("a.example.com")).backends[0].cell
        backend.pointee.active.add()
        state.apply(instances: [], [a])
        #expect(state.freeUnpinned() == 1)
        state.apply(instances: [ready], [a])
        #expect(try #require(state.snapshot.named("a.example.com")).backends[0].cell == backend)
        #expect(state.freeUnpinned() == 0)
        backend.pointee.active.remove()
        state.apply(instances: [], [a])
        #expect(state.freeUnpinned() == 0)
    }

    @Test("R26: ten thousand changes leave of a thousand pinned routes at most 1 KiB each")
    func many() throws {
        state.apply(instances: [ready], [])
        let empty = state.store.liveBlocks
        var pinned: [UnsafePointer<RouteCell>] = []
        for change in 0..<10_000 {
            let name = "a\(change).example.com"
            state.apply(instances: [ready], [TestRoute(id: "r_\(change)", env: "env_a", hostname: name)])
            guard change % 10 == 0 else { continue }
            let cell = try #require(state.snapshot.named(name)).pointee.cell
            cell.pointee.users.add()
            pinned.append(cell)
        }
        #expect(state.freeUnpinned() == 1000)
        // An entry each, and what a state with a route has more than one without.
        #expect(state.store.liveBlocks - empty <= 1000 + 10)
        #expect(MemoryLayout<RouteEntry>.stride + 144 <= 1024, "the entry, and an id of 128 bytes")
        for cell in pinned { cell.pointee.users.remove() }
        #expect(state.freeUnpinned() == 0)
        #expect(state.store.liveBlocks - empty <= 10)
    }
}
