import Pipeline
import Testing

@testable import PipelineRouting

@Suite("R31: addresses that were another env's")
struct CooldownTests {
    private let clock = TestClock()
    private let state = RoutingState()

    init() { follow(state) }

    private func follow(_ state: RoutingState) {
        let clock = clock
        state.clock = { clock.now }
        state.cooldown = CooldownSetting(instances: .seconds(60), ipv4: .seconds(600))
    }

    private static let routes = [
        TestRoute(id: "ra", env: "env_a", hostname: "a.example.com"),
        TestRoute(id: "rb", env: "env_b", hostname: "b.example.com"),
    ]

    /// - Parameter owners: by instance id: env, address and status.
    @discardableResult private func apply(
        _ owners: [(String, String, String, String)], envs: [String] = [envObject("env_a"), envObject("env_b")],
        to other: RoutingState? = nil
    ) -> [RouteProblem] {
        let instances = owners.map { instance($0.0, env: $0.1, address: $0.2, status: $0.3) }
        return (other ?? state).applyText(
            documentText(envObjects: envs, instances: instances, routes: Self.routes.map(\.json), hostnames: [])
        ).problems
    }

    /// Addresses of a route's backends.
    private func backends(_ route: String, _ other: RoutingState? = nil) -> [String] {
        (other ?? state).snapshot.listing().first { $0.id == route }?.backends.map { "\($0.address.address)" } ?? []
    }

    private func dedicated(_ env: String) -> String? {
        state.envs.values.first { $0.name == env }?.ipv4.map { "\($0)" }
    }

    @Test("another env gets it once the time is over, by itself; the one that had it gets it back at once")
    func instances() {
        apply([("i1", "env_a", "fd00::1", "ready")])
        #expect(backends("ra") == ["fd00::1"])
        let problems = apply([("i2", "env_b", "fd00::1", "ready"), ("i3", "env_b", "fd00::2", "ready")])
        #expect(problems.isEmpty && backends("ra") == [] && backends("rb") == ["fd00::2"], "\(problems)")
        let cooling = state.cooling(10)
        #expect(cooling.count == 1 && cooling.named.first?.left == .seconds(60))
        #expect(cooling.named.first.map { [$0.last, $0.waits] } == ["org/app/env_a", "org/app/env_b"])
        #expect(state.nextCooldown == clock.now.monotonic + .seconds(60))
        clock.pass(59)
        #expect(state.applyWaiting(at: clock.now.monotonic) != nil)
        #expect(backends("rb") == ["fd00::2"])
        clock.pass(1)
        #expect(state.nextCooldown == clock.now.monotonic)
        #expect(state.applyWaiting(at: clock.now.monotonic) != nil)
        #expect(backends("rb") == ["fd00::1", "fd00::2"] && state.nextCooldown == nil && state.cooling(10).count == 0)
        // Back to the first: that one waits now. To the second again: it had it last.
        apply([("i1", "env_a", "fd00::1", "ready")])
        #expect(backends("ra") == [])
        apply([("i2", "env_b", "fd00::1", "ready")])
        #expect(backends("rb") == ["fd00::1"] && state.nextCooldown == nil)
    }

    @Test("the time runs from the last instance's end: one that drains still has it")
    func draining() {
        apply([("i1", "env_a", "fd00::1", "ready")])
        apply([("i1", "env_a", "fd00::1", "draining")])
        clock.pass(50)
        apply([("i2", "env_b", "fd00::1", "ready")])
        clock.pass(59)
        apply([("i2", "env_b", "fd00::1", "ready")])
        #expect(backends("rb") == [])
        clock.pass(1)
        apply([("i2", "env_b", "fd00::1", "ready")])
        #expect(backends("rb") == ["fd00::1"])
    }

    @Test("R5: an env is org, app and env together: of another org it is another one, though its id is the same")
    func identity() {
        apply([("i1", "env_a", "fd00::1", "ready")])
        apply([], envs: [envObject("env_b")])
        apply([("i1", "env_a", "fd00::1", "ready")], envs: [envObject("env_a", org: "other"), envObject("env_b")])
        #expect(backends("ra") == [] && state.cooling(1).count == 1)
        clock.pass(60)
        apply([("i1", "env_a", "fd00::1", "ready")], envs: [envObject("env_a", org: "other"), envObject("env_b")])
        #expect(backends("ra") == ["fd00::1"])
    }

    @Test("R5: so it is when its org or app changes while it has addresses: it waits for them, also as a change")
    func identityWithAddresses() {
        let envs = { (org: String) in
            [envObject("env_a", ipv4: "192.0.2.7", org: org), envObject("env_b")]
        }
        for isRunning in [true, false] {
            let state = RoutingState()
            follow(state)
            apply([("i1", "env_a", "fd00::1", "ready")], envs: envs("org"), to: state)
            #expect(backends("ra", state) == ["fd00::1"])
            if !isRunning { apply([("i1", "env_a", "fd00::1", "draining")], envs: envs("org"), to: state) }
            apply([("i1", "env_a", "fd00::1", "ready")], envs: envs("other"), to: state)
            #expect(backends("ra", state) == [] && state.cooling(2).count == 2)
            #expect(state.cooling(2).named.map(\.last) == ["org/app/env_a", "org/app/env_a"])
            #expect(state.cooling(2).named.map(\.waits) == ["other/app/env_a", "other/app/env_a"])
            // The first one has them at once.
            apply([("i1", "env_a", "fd00::1", "ready")], envs: envs("org"), to: state)
            #expect(backends("ra", state) == ["fd00::1"] && state.cooling(2).count == 0)
            apply([("i1", "env_a", "fd00::1", "ready")], envs: envs("other"), to: state)
            clock.pass(60)
            _ = state.applyWaiting(at: clock.now.monotonic)
            #expect(backends("ra", state) == ["fd00::1"] && state.cooling(2).named.map(\.last) == ["org/app/env_a"])
        }
    }

    @Test("R9: a dedicated address has its own time; who waits keeps the one that it had")
    func ipv4() {
        let envs = { (a: String?, b: String?) in [envObject("env_a", ipv4: a), envObject("env_b", ipv4: b)] }
        apply([], envs: envs("192.0.2.1", "192.0.2.2"))
        apply([], envs: envs(nil, "192.0.2.1"))
        #expect(dedicated("env_a") == nil && dedicated("env_b") == "192.0.2.2")
        #expect(state.cooling(1).named.first?.left == .seconds(600))
        clock.pass(599)
        apply([], envs: envs(nil, "192.0.2.1"))
        #expect(dedicated("env_b") == "192.0.2.2")
        clock.pass(1)
        _ = state.applyWaiting(at: clock.now.monotonic)
        #expect(dedicated("env_b") == "192.0.2.1" && state.nextCooldown == nil)
    }

    @Test("0s: it is served at once; a first document knows of nobody; a shorter time holds for what is lost already")
    func settings() {
        apply([("i1", "env_a", "fd00::1", "ready")])
        #expect(backends("ra") == ["fd00::1"])
        apply([("i2", "env_b", "fd00::1", "ready")])
        #expect(backends("rb") == [])
        state.cooldown = .off
        apply([("i2", "env_b", "fd00::1", "ready")])
        #expect(backends("rb") == ["fd00::1"] && state.nextCooldown == nil)
        apply([("i1", "env_a", "fd00::1", "ready")])
        #expect(backends("ra") == ["fd00::1"])
    }

    @Test("who waits stands in the way of a third, and loses its turn with its instance")
    func third() {
        apply([("i1", "env_a", "fd00::1", "ready")])
        apply([("i2", "env_b", "fd00::1", "ready")])
        apply([])
        #expect(state.nextCooldown == nil && state.cooling(1).count == 0)
        clock.pass(60)
        apply([("i2", "env_b", "fd00::1", "ready")])
        #expect(backends("rb") == ["fd00::1"])
    }

    // MARK: Over a restart

    /// A state that goes on with what was kept, on a machine that was started anew.
    private func restarted(_ kept: [(IPAddress, LostAddress?)]) -> RoutingState {
        clock.now.monotonic = Instant(nanoseconds: 5_000_000_000)
        let next = RoutingState()
        follow(next)
        next.restore(lost: kept.compactMap { address, lost in lost.map { (address, $0) } })
        return next
    }

    @Test(
        "a restart goes on with what is left, by the wall clock, and never with more than the whole",
        arguments: [(0, 20), (-3600, 60), (-100_000, 60), (3600, 0), (39, 0), (10, 10)] as [(Int64, UInt32)])
    func restart(step: Int64, left: UInt32) throws {
        state.restore(lost: [])
        apply([("i1", "env_a", "fd00::1", "ready")])
        apply([])
        clock.pass(40)
        let kept = state.takeLostAddresses()
        #expect(kept.count == 1 && kept[0].1?.owner == "org/app/env_a")
        #expect(state.takeLostAddresses().isEmpty)
        clock.step(step)
        let next = restarted(kept)
        apply([("i2", "env_b", "fd00::1", "ready")], to: next)
        #expect(next.nextCooldown.map { $0.since(clock.now.monotonic) } ?? .zero == .seconds(left))
        #expect((backends("rb", next) == []) == (left > 0))
        // From a future that the clock doesn't know: it is kept as lost now, so that another restart begins not anew.
        guard step < 0 else { return }
        let again = next.takeLostAddresses()
        clock.pass(30)
        let last = restarted(again)
        apply([("i2", "env_b", "fd00::1", "ready")], to: last)
        #expect(last.nextCooldown.map { $0.since(clock.now.monotonic) } == .seconds(left - 30))
    }

    @Test(
        "a clock that is set while the node runs changes nothing, and what is kept follows it",
        arguments: [-5000, 5000] as [Int64])
    func steps(step: Int64) {
        state.restore(lost: [])
        apply([("i1", "env_a", "fd00::1", "ready")])
        apply([])
        _ = state.takeLostAddresses()
        clock.step(step)
        let kept = state.takeLostAddresses()
        #expect(kept.count == 1)
        clock.pass(20)
        let next = restarted(kept)
        apply([("i2", "env_b", "fd00::1", "ready")], to: next)
        #expect(next.nextCooldown.map { $0.since(clock.now.monotonic) } == .seconds(40))
    }

    @Test("R27: beyond the bound the oldest go, and are counted")
    func bound() throws {
        var cooldowns = AddressCooldowns()
        cooldowns.setting = CooldownSetting(instances: .seconds(60), ipv4: .seconds(600))
        for number in 0..<AddressCooldowns.limit {
            cooldowns.lose(IPAddress(high: 1, low: UInt64(number)), 1, 1, at: Int64(number))
        }
        #expect(cooldowns.count == AddressCooldowns.limit && cooldowns.forgotten == 0)
        cooldowns.lose(IPAddress(high: 2, low: 0), 1, 1, at: Int64(AddressCooldowns.limit))
        #expect(cooldowns.forgotten > 0 && cooldowns.count <= AddressCooldowns.limit)
        #expect(!cooldowns.has(IPAddress(high: 1, low: 0)) && cooldowns.has(IPAddress(high: 2, low: 0)))
        #expect(cooldowns.has(IPAddress(high: 1, low: UInt64(AddressCooldowns.limit - 1))))
        // Those whose time is over go first, and are not missed.
        let before = cooldowns.forgotten
        for number in 0..<20_000 {
            cooldowns.lose(IPAddress(high: 3, low: UInt64(number)), 1, 1, at: 61_000_000_000)
        }
        #expect(cooldowns.forgotten == before)
    }

    // MARK: Drains

    @Test(
        "what is left of a grace goes on after a restart, neither longer nor forgotten",
        arguments: [(0, 4), (-100, 10), (100, 0)] as [(Int64, UInt32)])
    func drains(step: Int64, left: UInt32) throws {
        state.restore(drains: [])
        apply([("i1", "env_a", "fd00::1", "ready")])
        apply([("i1", "env_a", "fd00::1", "draining")])
        let kept = state.takeDrains()
        #expect(kept.count == 1 && kept[0].1?.grace == .seconds(10), "\(kept)")
        clock.pass(6)
        clock.step(step)
        clock.now.monotonic = Instant(nanoseconds: 5_000_000_000)
        let next = RoutingState()
        follow(next)
        next.restore(drains: kept.compactMap { endpoint, drain in drain.map { (endpoint, $0) } })
        next.isRestoring = true
        apply([("i1", "env_a", "fd00::1", "draining")], to: next)
        next.isRestoring = false
        #expect(next.currentDrains.map(\.grace) == [.seconds(left)], "\(next.currentDrains)")
        // Ready again: it is called off, and that is kept.
        _ = next.takeDrains()
        apply([("i1", "env_a", "fd00::1", "ready")], to: next)
        #expect(next.currentDrains.isEmpty)
        let called = next.takeDrains()
        #expect(called.count == 1 && called[0].1 == nil)
    }
}
