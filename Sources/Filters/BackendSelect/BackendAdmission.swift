import Pipeline

/// The limits of a route and of its group: a connection counts in them, or waits until it can (`queue N for T`).
extension BackendFilter {
    /// A limit that connections may wait for, and what they end with.
    struct Limit {
        /// In place of waiting, where there is no queue.
        let full: Refusal
        let queueFull: Refusal
        let queueTimeout: Refusal

        static let route = Limit(full: .routeFull, queueFull: .routeQueueFull, queueTimeout: .routeQueueTimeout)
        static let group = Limit(full: .groupFull, queueFull: .groupQueueFull, queueTimeout: .groupQueueTimeout)
        static let backends = Limit(
            full: .backendsFull, queueFull: .backendsQueueFull, queueTimeout: .backendsQueueTimeout)
    }

    /// Counts the connection in its route and in its group, where these have limits, and chooses its backends. The runtime
    /// takes the counts back at the end.
    ///
    /// A connection that waits counts in nothing that it waits for: places are taken together or not at all, so that none
    /// lies idle with somebody who can't use it.
    static func admit(
        _ route: FoundRoute, _ settings: Settings, _ state: inout WorkerState, _ view: ConnectionView,
        _ effects: Effects
    ) -> Verdict {
        let group = route.group
        let (own, shared) = (group.pointee.policy?.pointee.queue, group.pointee.policy?.pointee.groupQueue)
        if own != nil || shared != nil { effects.setQueue(nil) }
        let (limit, groupLimit) = (route.pointee.maxConnections, group.pointee.maxConnections)
        if limit > 0, let refusal = count(route.pointee.cell.active, limit, .route, own, view, effects) {
            return refuse(refusal, .route, own, route, effects)
        }
        if groupLimit > 0, let refusal = count(group.pointee.cell.active, groupLimit, .group, shared, view, effects) {
            return refuse(refusal, .group, shared, route, effects)
        }
        guard mayEnter(shared, view) else {
            giveBack(route, own, shared, effects)
            return refuse(.backendsFull, .backends, shared, route, effects)
        }
        let choice = choose(route, settings, &state, view)
        guard choice.candidates.count == 0 else {
            effects.setRoute(route, candidates: choice.candidates)
            if let shared { effects.setQueue(offer(shared, .backends)) }
            return .next
        }
        if choice.refusal == .backendsFull, shared != nil { giveBack(route, own, shared, effects) }
        return refuse(choice.refusal, .backends, shared, route, effects)
    }

    /// Before it waits for backends.
    private static func giveBack(
        _ route: FoundRoute, _ own: QueueRule?, _ shared: QueueRule?, _ effects: Effects
    ) {
        let group = route.group
        if group.pointee.maxConnections > 0 { effects.unreserve(group.pointee.cell.active) }
        if route.pointee.maxConnections > 0, own?.queue == shared?.queue {
            effects.unreserve(route.pointee.cell.active)
        }
    }

    /// What a full limit means: a wait if there is a queue for it. Anything else is refused.
    static func refuse(
        _ refusal: Refusal, _ limit: Limit, _ queue: QueueRule?, _ route: FoundRoute, _ effects: Effects
    ) -> Verdict {
        effects.setRoute(route, candidates: BackendCandidates())
        guard refusal == limit.full, let queue else { return .refuse(refusal.rawValue) }
        effects.setQueue(offer(queue, limit))
        return .wait
    }

    private static func offer(_ queue: QueueRule, _ limit: Limit) -> QueueOffer {
        QueueOffer(queue, ifFull: limit.queueFull.rawValue, ifOver: limit.queueTimeout.rawValue)
    }

    /// Nobody else waits, or it is this connection's turn.
    private static func mayEnter(_ queue: QueueRule?, _ view: ConnectionView) -> Bool {
        guard let queue = queue?.queue else { return true }
        return queue.pointee.waiting.current == 0 || view.facts.turn == queue
    }

    /// Nil: it is counted, or was before it waited for something else.
    private static func count(
        _ active: UnsafePointer<ReservationCount>, _ most: UInt32, _ limit: Limit, _ queue: QueueRule?,
        _ view: ConnectionView, _ effects: Effects
    ) -> Refusal? {
        if queue != nil, view.facts.isReserved(active) { return nil }
        guard mayEnter(queue, view) else { return limit.full }
        if view.isDryRun { return active.pointee.current < most ? nil : limit.full }
        guard active.pointee.tryAdd(limit: most) else { return limit.full }
        guard effects.reserve(active) else {
            active.pointee.remove()
            return .tooManyReservations
        }
        return nil
    }
}
