import Pipeline
import PipelineRuntime

/// Connections that wait for a place (`queue N for T`): the only limit here is that of the candidates.
final class SharedQueue {
    let queue = UnsafeMutablePointer<WaitQueue>.allocate(capacity: 1)
    let policy = UnsafeMutablePointer<RoutePolicy>.allocate(capacity: 1)

    init(_ spec: QueueSpec, hasRival: Bool) {
        queue.initialize(to: WaitQueue())
        let rule = QueueRule(queue, limit: spec.limit, patience: spec.patience)
        policy.initialize(to: RoutePolicy(idleTimeout: nil, queue: nil, groupQueue: rule))
        // Of a worker that is longer there and never takes its turn.
        if hasRival { queue.pointee.setTurn(of: 7, since: Instant(nanoseconds: 1)) }
    }

    deinit {
        policy.deinitialize(count: 1).deallocate()
        queue.deinitialize(count: 1).deallocate()
    }
}

extension Scenario {
    /// Some seeds have a queue, and so few places that it is needed.
    mutating func drawQueue(_ random: inout SeededRandom) {
        guard random.chance(30) else { return }
        queue = QueueSpec(
            limit: random.pick([1, 2, 6]), patience: random.pick([.milliseconds(20), .seconds(2), .seconds(200)]))
        hasRival = random.chance(30)
        for i in backendLimits.indices { backendLimits[i] = random.pick([1, 1, 1, 2]) }
        for i in connections.indices where random.chance(80) {
            connections[i].candidates = [random.pick([.atOnce, .later(random.below(5_000_000))])]
        }
        // So few slots that those who wait have all of them.
        if random.chance(40) {
            limits.connections = min(limits.connections, random.pick(2...3))
            limits.unrouted = max(1, min(limits.unrouted, limits.connections - 1))
            limits.crowd = random.pick([1, 2])
        }
    }
}

extension World {
    /// Where connections of that route wait; nil: nowhere, by this table.
    func queueRule(_ route: FoundRoute) -> QueueRule? {
        route.group.pointee.policy?.pointee.groupQueue
    }

    /// A stage is asked for backends. Nil: there is one with room, or nobody may wait.
    func wait(
        _ connection: Connection, _ rule: QueueRule?, _ candidates: BackendCandidates, _ view: ConnectionView,
        _ effects: Effects, isNew: Bool
    ) -> Verdict? {
        guard let rule else {
            effects.setQueue(nil)
            return nil
        }
        effects.setQueue(QueueOffer(rule, ifFull: 1, ifOver: 2))
        guard candidates.count > 0 else {
            effects.setQueue(nil)
            return nil
        }
        let others = rule.queue.pointee.waiting.current > 0 && view.facts.turn != rule.queue
        guard (isNew && others) || connection.choice.allSatisfy(isFull) else { return nil }
        return .wait
    }

    func isFull(_ candidate: Int) -> Bool {
        let limit = scenario.backendLimits[candidate]
        return limit > 0 && (backendCells.baseAddress.unsafelyUnwrapped + candidate).pointee.active.current >= limit
    }

    /// Whether it waits for a place, as far as can be told from outside.
    func isQueued(_ connection: Connection) -> Bool {
        guard scenario.queue != nil, connection.isLive, connection.attempts == 0, connection.upstream == nil else {
            return false
        }
        return connection.queuedAt != nil || connection.isThrough
    }

    /// [S33] A network with so many connections that wait for a place that it is to make room; nil: none.
    func queuedCrowd() -> Int? {
        let queued = connections.filter { $0.queuedAt != nil && isQueued($0) }
        return (0..<2 * Connection.networks).first { network in
            queued.count { $0.network == network } >= scenario.limits.crowd
        }
    }

    /// [S37] Whenever the worker waits: nobody waits longer than may be, nor more than may.
    func checkQueue() {
        guard let queue = control.library.queue, let spec = scenario.queue else { return }
        let waiting = connections.filter(isQueued)
        let counted = queue.queue.pointee.waiting.current
        if counted > spec.limit { fail("S37: \(counted) wait, and \(spec.limit) may") }
        if Int(counted) != waiting.count { fail("S37: \(waiting.count) wait, and \(counted) are counted") }
        for connection in waiting {
            guard let since = connection.queuedAt else { continue }
            if since + spec.patience.nanoseconds + (2 << 23) < max(clock, min(wakes, .max - 1)) {
                fail("S37: #\(connection.index) may wait for a place past the time of its queue")
            }
        }
    }

    /// [S37] The worker sleeps: whoever waits for a place does so for good cause, or is about to be asked about.
    func checkQueuedSleep(_ connection: Connection) {
        let client = connection.client
        if client.isDead || (client.finArrived && !client.hasEdge) {
            return fail("S37: #\(connection.index) is gone, and waits for a place")
        }
        // Two ticks: one may have been left to somebody else.
        if wakes > clock + 51_000_000 { fail("S37: #\(connection.index) waits for a place, and nobody looks after it") }
    }
}
