import Pipeline
import PipelineRouting
import Testing

@testable import PipelineLastGood

/// The boot guard goes back behind an update, and what that took from somebody is not given back with it.
@Suite("R29, R30, R31: whom an update suspended, and whose addresses are, outlives its being set aside")
struct RollbackTests {
    private let folder = Folder()
    private let clock = TestClock()

    private final class Start {
        let state: LastGood
        let routing: RoutingState
        let notices: [String]

        init(_ folder: Folder, _ clock: TestClock) throws {
            let (state, notices) = try LastGood.openForStart(folder.state, now: clock.now.wall)
            routing = RoutingState(seed: state.seed)
            clock.drive(routing)
            _ = state.restore(routing)
            (self.state, self.notices) = (state, notices.map(\.event))
        }

        func take(_ text: String) throws {
            let bytes = Array(text.utf8)
            try bytes.withUnsafeBufferPointer { bytes in
                let update = try #require(StateUpdate.read(bytes, as: .either).update)
                let prepared = try state.prepare(update, from: "push", UpdateOptions(isConfirmed: true), now: 1)
                try state.keep(prepared)
                _ = state.apply(prepared, to: routing)
            }
        }

        /// Addresses of a route's backends.
        func backends(_ route: String) -> [String] {
            routing.snapshot.listing().first { $0.id == route }?.backends.map { "\($0.address.address)" } ?? []
        }
    }

    private func start() throws -> Start { try Start(folder, clock) }

    private func env(_ id: String, _ more: String = "") -> String {
        "{\"env_id\":\"\(id)\",\"app_id\":\"app\",\"org_id\":\"org_\(id)\"\(more)}"
    }

    private func instance(_ id: String, _ env: String, _ address: String) -> String {
        "{\"instance_id\":\"\(id)\",\"env_id\":\"\(env)\",\"process_type\":\"web\",\"status\":\"ready\","
            + "\"overlay_ipv6\":\"\(address)\",\"drain_grace_seconds\":100}"
    }

    /// Envs a, b and c, each with a route; an instance of a; the dedicated address is a's.
    private func world() -> World {
        var world = World()
        for (id, port) in [("a", 1001), ("b", 1002), ("c", 1003)] {
            world.set(.env, id, env(id, id == "a" ? ",\"ipv4_address\":\"192.0.2.7\"" : ""))
            world.set(
                .route, id,
                "{\"route_id\":\"\(id)\",\"env_id\":\"\(id)\",\"listen_port\":\(port),"
                    + "\"protocol_hint\":\"tcp_raw\",\"backend_process_type\":\"web\",\"backend_port\":80}")
        }
        world.set(.instance, "i1", instance("i1", "a", "fd00::1"))
        return world
    }

    private func tell(_ world: inout World, to start: Start) throws {
        world.revision += 1
        try start.take(world.document)
        world.told()
    }

    /// Two starts that are killed, and a third.
    private func afterTwoKills() throws -> Start {
        for _ in 0..<2 { _ = try start() }
        return try start()
    }

    /// More than an entry of the log takes.
    private func grow(_ world: inout World) {
        for number in 0..<50_001 {
            let name = "n\(number).example.com"
            world.set(.hostname, name, "{\"hostname\":\"\(name)\",\"env_id\":\"a\"}")
        }
    }

    @Test(
        "an env and an org that it suspended stay suspended, also those without an object before",
        arguments: [false, true])
    func suspensions(isLarge: Bool) throws {
        var world = world()
        do {
            let first = try start()
            try tell(&world, to: first)
            world.set(.env, "b", env("b", ",\"suspended\":true"))
            world.set(.org, "org_c", "{\"org_id\":\"org_c\",\"suspended\":true}")
            if isLarge { grow(&world) }
            try tell(&world, to: first)
            first.state.startIsReady()
        }
        let third = try afterTwoKills()
        #expect(third.notices.contains("state_rolled_back") && third.state.last?.revision == 1)
        #expect(third.state.count(.hostname) == 0)
        #expect(third.routing.suspended.orgs == ["org_c"] && third.routing.suspended.envs == ["org_b/app/b"])
        #expect(third.state.setAside?.revision == 2)
        // Who takes them back says so.
        world.set(.env, "b", env("b"))
        world.set(.org, "org_c", nil)
        try tell(&world, to: third)
        #expect(third.routing.suspended.orgs == [] && third.routing.suspended.envs == [])
    }

    @Test("an address that another env had by then is nobody's until its cooldown is over", arguments: [false, true])
    func addresses(isLarge: Bool) throws {
        var world = world()
        do {
            let first = try start()
            try tell(&world, to: first)
            world.set(.instance, "i1", instance("i1", "b", "fd00::1"))
            world.set(.env, "a", env("a"))
            world.set(.env, "b", env("b", ",\"ipv4_address\":\"192.0.2.7\""))
            if isLarge { grow(&world) }
            try tell(&world, to: first)
            clock.pass(600)
            _ = first.state.applyWaiting(to: first.routing, at: clock.now.monotonic)
            #expect(first.backends("b") == ["fd00::1"] && first.routing.cooling(1).count == 0)
            first.state.startIsReady()
        }
        do {
            let third = try afterTwoKills()
            #expect(third.state.last?.revision == 1)
            #expect(third.backends("a") == [] && third.backends("b") == [])
            let cooling = third.routing.cooling(10).named
            #expect(cooling.map(\.address.description) == ["192.0.2.7", "fd00::1"], "\(cooling)")
            #expect(cooling.allSatisfy { $0.last == "org_b/app/b" && $0.waits == "org_a/app/a" }, "\(cooling)")
            third.state.startIsReady()
        }
        clock.pass(600)
        let later = try start()
        #expect(later.backends("a") == ["fd00::1"] && later.routing.cooling(1).count == 0)
    }

    @Test("one that waited for it by the update waits no more, and who had it has it: nobody else was there")
    func waiting() throws {
        var world = world()
        do {
            let first = try start()
            try tell(&world, to: first)
            world.set(.instance, "i1", instance("i1", "b", "fd00::1"))
            try tell(&world, to: first)
            #expect(first.backends("b") == [] && first.routing.cooling(1).count == 1)
            first.state.startIsReady()
        }
        let third = try afterTwoKills()
        #expect(third.backends("a") == ["fd00::1"] && third.routing.cooling(1).count == 0)
    }

    @Test("an address that was lost by an update before, and since then, is remembered as the later state has it")
    func remembered() throws {
        var world = world()
        do {
            let first = try start()
            world.set(.instance, "i2", instance("i2", "c", "fd00::2"))
            try tell(&world, to: first)
            world.set(.instance, "i2", nil)
            try tell(&world, to: first)
            // Kept behind the update that is set aside: what this one says alone is not.
            world.set(.instance, "i3", instance("i3", "b", "fd00::3"))
            try tell(&world, to: first)
            first.state.startIsReady()
        }
        let third = try afterTwoKills()
        #expect(third.state.last?.revision == 2)
        world.set(.instance, "i3", instance("i3", "a", "fd00::3"))
        world.set(.instance, "i2", instance("i2", "a", "fd00::2"))
        try tell(&world, to: third)
        let cooling = third.routing.cooling(10).named.map { "\($0.address) \($0.last)" }
        #expect(cooling == ["fd00::2 org_c/app/c", "fd00::3 org_b/app/b"])
    }
}
