import Foundation
import Pipeline
import Testing

@testable import PipelineRouting

/// D6. Groups of backends are slots that routes share: a change of one costs a slot, and a table has its own all the same (R1, R22).
///
/// `SLOT_CHANGES=10000 SLOT_HELD=1000` says how many changes there are, and on how many routes a connection is held meanwhile.
@Suite("R22: slots of groups")
struct GroupSlotTests {
    private static func number(_ name: String, _ otherwise: Int) -> Int {
        ProcessInfo.processInfo.environment[name].flatMap { Int($0) } ?? otherwise
    }

    private let state = RoutingState(seed: testSeed)
    private let store = ObjectStore()

    private func set(_ id: String, _ env: String, _ address: String, _ status: String = "ready") {
        _ = store.set(.instance, id, [instance(id, env: env, address: address, status: status)])
    }

    private func set(_ route: TestRoute) { _ = store.set(.route, route.id, [route.json]) }

    @discardableResult private func change(_ kind: StateKind, _ ids: [String]) -> ApplyReport {
        var touched = TouchedObjects()
        for id in ids { touched.insert(kind, id.utf8) }
        return state.apply(touched, of: store)
    }

    private func addresses(_ snapshot: RouteTableSnapshot, _ host: String) -> [String] {
        snapshot.named(host)?.backends.buffer.map { "\($0.address.endpoint.address)" } ?? []
    }

    @Test("one instance of an env with 100,000 routes costs no shard, and as many blocks as it had")
    func oneInstance() throws {
        let count = 100_000
        let routes = (0..<count).map { TestRoute(id: "r\($0)", env: "env_a", hostname: "h\($0).example.com") }
        _ = store.set(.env, "env_a", [envObject("env_a")])
        for number in 1...10 { set("i\(number)", "env_a", "fd00::\(number)") }
        let instances = (store.texts[.instance] ?? [:]).values.map { String(decoding: $0, as: UTF8.self) }
        state.apply(envs: ["env_a"], instances: instances, routes)
        #expect(state.snapshot.routeCount == count)
        let (blocks, before) = (state.store.liveBlocks, state.snapshot)
        for round in 0..<20 {
            set("i7", "env_a", "fd00::7", round % 2 == 0 ? "failed" : "ready")
            let report = change(.instance, ["i7"])
            #expect(report.shardsBuilt == 0 && report.backendsChanged == 1 && report.changed == 0)
            for host in ["h0.example.com", "h99999.example.com"] {
                #expect(addresses(state.snapshot, host).contains("fd00::7") == (round % 2 == 1))
                #expect(addresses(before, host).contains("fd00::7"), "R22: the table before is as it was")
            }
            // The chunk of the newest table, and of the one that this test holds; the group that it has, and that one's.
            #expect(state.store.liveBlocks <= blocks + 4, "round \(round)")
        }
    }

    @Test("R22, R31: an address that moves between envs is in each table whose it was then", arguments: 0..<20)
    func moves(seed: UInt64) throws {
        var random = SplitMix64(seed: seed &* 977 &+ 3)
        var memory: RouteStore?
        var held: [(table: RouteTableSnapshot, listing: [RouteListing])] = []
        do {
            let state = RoutingState(seed: testSeed)
            memory = state.memory
            let envs = (0..<300).map { "env_\($0)" }
            for env in envs { _ = store.set(.env, env, [envObject(env)]) }
            for number in 0..<300 { set(TestRoute(id: "r\(number)", env: envs[number], hostname: "h\(number).test")) }
            for number in 0..<20 { set("i\(number)", envs[number], "fd00::\(number + 1)") }
            state.applyText(store.document)
            for step in 0..<60 {
                var touched = TouchedObjects()
                // Several slots of several chunks change at once.
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    let number = Int.random(in: 0..<20, using: &random)
                    set("i\(number)", envs.randomElement(using: &random) ?? "env_0", "fd00::\(number + 1)")
                    touched.insert(.instance, "i\(number)".utf8)
                }
                if step % 5 == 0 {
                    // Groups come and go, and their numbers with them.
                    let number = Int.random(in: 0..<300, using: &random)
                    if store.texts[.route]?["r\(number)"] == nil {
                        set(TestRoute(id: "r\(number)", env: envs[number], hostname: "h\(number).test"))
                    } else {
                        _ = store.set(.route, "r\(number)", [])
                    }
                    touched.insert(.route, "r\(number)".utf8)
                }
                _ = state.apply(touched, of: store)
                let listing = state.snapshot.listing()
                var owners: [IPAddress: Set<String>] = [:]
                for route in listing {
                    for backend in route.backends { owners[backend.address.address, default: []].insert(route.owner) }
                }
                #expect(owners.values.allSatisfy { $0.count == 1 }, "an address of two envs in one table, step \(step)")
                held.append((state.snapshot, listing))
                let place = Int.random(in: 0..<held.count, using: &random)
                #expect(held[place].table.listing() == held[place].listing, "a table has changed, step \(step)")
                if held.count > 12 { held.remove(at: place) }
            }
        }
        while let one = held.indices.randomElement(using: &random) {
            #expect(held[one].table.listing() == held[one].listing, "a table has changed with its state gone")
            held.remove(at: one)
        }
        #expect(memory?.liveBlocks == 0)
    }

    @Test("a number that is free again is another group's in the next table alone")
    func reused() throws {
        set("i1", "env_a", "fd00::1")
        set("i2", "env_b", "fd00::2")
        let instances = ["i1", "i2"].map { String(decoding: store.texts[.instance]?[$0] ?? [], as: UTF8.self) }
        let (a, b) = (
            TestRoute(id: "r_a", env: "env_a", hostname: "a.test"),
            TestRoute(id: "r_b", env: "env_b", hostname: "b.test")
        )
        state.apply(instances: instances, [a])
        let first = state.snapshot
        state.apply(instances: instances, [])
        state.apply(instances: instances, [b])
        let slots = try [first.named("a.test"), state.snapshot.named("b.test")].map { try #require($0).pointee.slot }
        #expect(slots[0] == slots[1])
        #expect(addresses(first, "a.test") == ["fd00::1"] && addresses(state.snapshot, "b.test") == ["fd00::2"])
    }

    @Test("a refused route's group takes no slot of a table")
    func refused() {
        let a = TestRoute(id: "r_a", env: "env_a", hostname: "a.test")
        state.apply([a])
        let before = state.snapshot
        state.apply([a, TestRoute(id: "r_b", env: "env_b", hostname: "a.test")])
        #expect(state.snapshot === before)
    }

    @Test("R26: changes go on while connections are held, none is refused, and memory is bounded")
    func many() throws {
        let (changes, held) = (Self.number("SLOT_CHANGES", 1000), Self.number("SLOT_HELD", 100))
        for number in 0..<held {
            let env = "env_\(number)"
            _ = store.set(.env, env, [envObject(env)])
            set(TestRoute(id: "r\(number)", env: env, hostname: "h\(number).test"))
            for copy in 0..<2 { set("i\(number)_\(copy)", env, "fd00::\(copy + 1):\(String(number + 1, radix: 16))") }
        }
        state.applyText(store.document)
        // An idle connection on each.
        var pins: [(UnsafePointer<RouteCell>, UnsafePointer<RouteOwner>, UnsafePointer<BackendCell>)] = []
        for number in 0..<held {
            let route = try #require(state.snapshot.named("h\(number).test"))
            let backend = route.backends[0].cell
            route.pointee.cell.pointee.users.add()
            route.pointee.owner.pointee.users.add()
            backend.pointee.active.add()
            pins.append((route.pointee.cell, route.pointee.owner, backend))
        }
        let blocks = state.store.liveBlocks
        for number in 0..<changes {
            let (env, isThere) = (number % held, number / held % 2 == 1)
            set("i\(env)_0", "env_\(env)", "fd00::1:\(String(env + 1, radix: 16))", isThere ? "ready" : "failed")
            let report = change(.instance, ["i\(env)_0"])
            #expect(report.backendsChanged == 1 && report.shardsBuilt == 0 && report.problems.isEmpty)
            #expect(state.snapshot.named("h\(env).test")?.backends.count == (isThere ? 2 : 1), "change \(number)")
            // What went stays for its connection alone.
            #expect(state.freeUnpinned() <= held)
            #expect(state.store.liveBlocks <= blocks, "change \(number)")
        }
        for (route, owner, backend) in pins {
            #expect(backend.pointee.endpoint.port == 8080)
            route.pointee.users.remove()
            owner.pointee.users.remove()
            backend.pointee.active.remove()
        }
        for number in 0..<held { set("i\(number)_0", "env_\(number)", "fd00::1:\(String(number + 1, radix: 16))") }
        change(.instance, (0..<held).map { "i\($0)_0" })
        #expect(state.freeUnpinned() == 0 && state.store.liveBlocks <= blocks)
    }
}
