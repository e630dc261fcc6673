import FilterBackendSelect
import Pipeline
import TestSupport
import Testing

/// `queue N for T` as the stage sees it: what waits, for what, and what it holds meanwhile.
@Suite("backend: waiting for a place")
struct BackendQueueTests {
    /// A route of one backend with a queue, of its own or its block's.
    private final class Site {
        var run = FilterHarness()
        let route: FoundRoute
        let own: UnsafeMutablePointer<WaitQueue>
        let block: UnsafeMutablePointer<WaitQueue>
        private let policy = UnsafeMutablePointer<RoutePolicy>.allocate(capacity: 1)
        private var state: BackendFilter.WorkerState
        private let settings: BackendFilter.Settings

        /// - Parameter group: the block's limit; nil: the route has a backend of its own.
        init(route limit: UInt32 = 0, group: UInt32? = nil, backend: UInt32 = 0, idle: TimeSpan? = nil) throws {
            own = .allocate(capacity: 1)
            own.initialize(to: WaitQueue())
            block = .allocate(capacity: 1)
            block.initialize(to: WaitQueue())
            let queue = QueueRule(own, limit: 2, patience: .seconds(5))
            let shared = group == nil ? queue : QueueRule(block, limit: 2, patience: .seconds(5))
            policy.initialize(
                to: RoutePolicy(idleTimeout: idle, queue: limit > 0 || group == nil ? queue : nil, groupQueue: shared))
            var fake = FakeRoute("rt", hosts: ["app.example.com"])
            (fake.maxConnections, fake.backendLimit, fake.policy) = (limit, backend, UnsafePointer(policy))
            if let group { (fake.group, fake.groupMaxConnections) = ("web", group) }
            route = run.routes.add(fake)
            settings = try BackendFilter.settings(Directive(keyword: "backend", clauses: []))
            state = BackendFilter.makeState(settings)
        }

        deinit {
            policy.deinitialize(count: 1).deallocate()
            own.deinitialize(count: 1).deallocate()
            block.deinitialize(count: 1).deallocate()
        }

        /// Of one connection; another one after ``next()``.
        func ask(turn: UnsafeMutablePointer<WaitQueue>? = nil) -> (verdict: Verdict, why: String) {
            run.facts.turn = turn.map { UnsafePointer($0) }
            let (verdict, why) = run.evaluate(BackendFilter.self, settings, &state)
            return (verdict, why)
        }
        func next() { run.resetFacts() }

        /// The queue that it is to wait in, and the reasons.
        var offer: String? {
            run.facts.queue.map { offer in
                let whose = offer.rule.queue == UnsafePointer(own) ? "own" : "block"
                let names = [offer.ifFull, offer.ifOver].compactMap {
                    FilterHarness.reason(.refuse($0), of: BackendFilter.self)
                }
                return "\(whose): \(names.joined(separator: ", "))"
            }
        }
        var counts: [UInt32] {
            [
                route.pointee.cell.active.pointee.current, route.group.pointee.cell.active.pointee.current,
                run.lasting.reservations.count,
            ]
        }
    }

    @Test("a route's limit: who waits counts in nothing, and gets the place that comes free when it is its turn")
    func routeLimit() throws {
        let site = try Site(route: 1, group: 0)
        #expect(site.ask().verdict == .next)
        var first = site.run.lasting.reservations
        site.next()
        let (verdict, why) = site.ask()
        #expect(
            verdict == .wait && site.offer == "own: backend.route_queue_full client, backend.route_queue_timeout client"
        )
        #expect(
            why.contains("is at its limit of 1 connections; 0 of at most 2 wait for a place, each for 5s at most"),
            "\(why)")
        #expect(site.counts == [1, 0, 0])
        // It waits, and asks again.
        site.own.pointee.waiting.add()
        first.release()
        #expect(site.ask(turn: nil).verdict == .wait, "it is another one's turn")
        #expect(site.ask(turn: site.own).verdict == .next)
        #expect(site.counts == [1, 0, 1])
    }

    @Test("nobody goes past those that wait, even if a place is free")
    func newcomers() throws {
        let site = try Site(route: 5)
        site.own.pointee.waiting.add()
        #expect(site.ask().verdict == .wait)
        #expect(site.counts == [0, 0, 0])
        site.own.pointee.waiting.remove()
        #expect(site.ask().verdict == .next)
    }

    @Test("backends of its own at their limit: the route's place is given back until the wait is over")
    func ownBackends() throws {
        let site = try Site(route: 5, backend: 1)
        let cell = site.route.backends[0].cell
        cell.pointee.active.add()
        #expect(site.ask().verdict == .wait)
        #expect(site.offer == "own: backend.backends_queue_full upstream, backend.backends_queue_timeout upstream")
        #expect(site.counts == [0, 0, 0])
        cell.pointee.active.remove()
        #expect(site.ask(turn: site.own).verdict == .next)
        // Where it is to wait if the backend is full by the time of the connect.
        #expect(site.counts == [1, 0, 1] && site.offer?.hasPrefix("own: backend.backends_queue_full") == true)
    }

    @Test("a block's limits: the route's place is kept, the block's given back; each is counted once")
    func blockLimits() throws {
        let site = try Site(route: 5, group: 1, backend: 1)
        let cell = site.route.backends[0].cell
        cell.pointee.active.add()
        #expect(site.ask().verdict == .wait)
        #expect(site.offer?.hasPrefix("block: backend.backends_queue_full") == true && site.counts == [1, 0, 1])
        cell.pointee.active.remove()
        let group = site.route.group.pointee.cell.active
        group.pointee.add()
        #expect(site.ask(turn: site.block).verdict == .wait)
        #expect(site.offer?.hasPrefix("block: backend.group_queue_full") == true && site.counts == [1, 1, 1])
        group.pointee.remove()
        #expect(site.ask(turn: site.block).verdict == .next && site.counts == [1, 1, 2])
        var reservations = site.run.lasting.reservations
        reservations.release()
        #expect(site.counts.prefix(2) == [0, 0])
    }

    @Test("a backend that is out, and used all the same because all are, is waited for as any")
    func down() throws {
        let site = try Site(route: 5, backend: 1)
        let cell = site.route.backends[0].cell
        cell.pointee.probe.store(BackendCell.Probe.down.rawValue, ordering: .relaxed)
        cell.pointee.agentPercent.store(0, ordering: .relaxed)
        // Without a `health` block one that is out is used all the same, until it is full.
        #expect(site.ask().verdict == .next)
        site.next()
        cell.pointee.active.add()
        #expect(site.ask().verdict == .wait)
    }

    @Test("R14: idle_timeout of the policy, and off, in place of the stage's")
    func idle() throws {
        for (idle, expected) in [(TimeSpan.seconds(7), 7000 as UInt32), (.zero, 0)] {
            let site = try Site(route: 5, idle: idle)
            #expect(site.ask().verdict == .next)
            #expect(site.run.lasting.idleTimeout == expected)
        }
    }
}

extension Reservations {
    /// How many it has: as many as can't be added any more.
    fileprivate var count: UInt32 {
        let other = UnsafeMutablePointer<ReservationCount>.allocate(capacity: 1)
        other.initialize(to: ReservationCount())
        defer { other.deinitialize(count: 1).deallocate() }
        var (copy, free) = (self, UInt32(0))
        while copy.append(other) { free += 1 }
        return UInt32(Reservations.capacity) - free
    }
}
