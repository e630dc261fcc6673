import Pipeline

/// Waiting for a place of a limit (`queue N for T`), in place of a refusal (docs/adr/0070).
///
/// A place is owned by whoever has counted itself in the limit, and by nobody else: what is here decides who tries next, and
/// when. So a place is never lost with a connection that gives up, nor had by two.
extension Worker {
    /// The connection is to wait in the queue that its stage has named. It keeps its turn if it waits there already. It may
    /// have ended after this.
    mutating func awaitPlace(_ index: Int) {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        let chain = chain(of: index)
        guard let offer = pending.pointee.facts.queue, let stage = chain.pointee.selecting else {
            finish(index, RuntimeReason.internalError.code, .reset)
            return
        }
        let isUndecided = pending.pointee.stage < chain.pointee.stages.count
        if isUndecided { slot.pointee.marks.insert(.stageWaits) }
        pending.pointee.waitOver = stage.pointee.code(offer.ifOver)
        guard lines.queue(of: index) != offer.rule.queue else {
            slot.pointee.enter(.queued)
            wheel.arm(slab.slots, index, at: slot.pointee.deadline)
            return
        }
        leaveQueue(index, served: false)
        // Its first bytes stay here, and count for its env and its network.
        guard keepWhileConnecting(index) else { return }
        guard offer.rule.queue.pointee.waiting.tryAdd(limit: offer.rule.limit) else {
            finish(index, stage.pointee.code(offer.ifFull), .reset)
            return
        }
        lines.enter(index, offer.rule.queue, of: slot.pointee.lasting.client.endpoint.address, at: now)
        waiting.enter(index, of: slot.pointee.lasting.client.endpoint.address)
        // Somebody may have left between the look at the limit and this.
        lines.isRung = true
        slot.pointee.enter(.queued)
        stopPeeking(index)
        noteMute(index)
        wheel.arm(slab.slots, index, at: now + offer.rule.patience)
        watchClient(index)
        if slot.pointee.phase == .queued { checkQueued(index) }
    }

    /// The connection waits in no queue any more.
    /// - Parameter served: it was its turn.
    mutating func leaveQueue(_ index: Int, served: Bool) {
        guard let queue = lines.queue(of: index) else { return }
        waiting.leave(index)
        slab.slots[index].lasting.queued &+= lines.leave(index, at: now, served: served)
        queue.pointee.waiting.remove()
    }

    // MARK: While it waits

    /// An event of its client's socket. What the client sends stays in the socket.
    mutating func checkQueued(_ index: Int) {
        let slot = slab.slots + index
        let up = slot.pointee.up.state
        if up.contains(.hangupUnasked), kernel.pendingError(slot.pointee.client) != 0 {
            finish(index, RuntimeReason.queueAbandoned.code, .reset)
            return
        }
        // A TLS client that sends no more can't complete a handshake. A raw one may be reading, or have asked all it wanted.
        if slot.pointee.lasting.hint == .tlsPassthrough, !up.isDisjoint(with: [.finReceived, .eof]) {
            finish(index, RuntimeReason.queueAbandoned.code, .reset)
        }
    }

    mutating func queueDeadline(_ index: Int) {
        finish(index, blocks.pending(slab.slots[index].pending).pointee.waitOver, .reset)
    }

    // MARK: When a place may be free

    /// A connection of that route has ended, or has left its backend.
    mutating func placeFreed(_ policy: UnsafePointer<RoutePolicy>) {
        if let queue = policy.pointee.queue?.queue { ringNext(queue) }
        if let queue = policy.pointee.groupQueue?.queue, queue != policy.pointee.queue?.queue { ringNext(queue) }
    }

    private mutating func ringNext(_ queue: UnsafePointer<WaitQueue>) {
        guard queue.pointee.waiting.current > 0, let next = queue.pointee.next else { return }
        ring(next)
    }

    private mutating func ring(_ turn: WaitQueue.Turn) {
        if turn.isOf(worker: Int(index)) { noteRing() } else { kernel.wake(workersAt: turn.place) }
    }

    /// Another worker has rung, or control has something new.
    mutating func noteRing() { if lines.count > 0 { lines.isRung = true } }

    /// The most connections that are asked about again in an iteration.
    private static var queueBatch: Int { 64 }

    /// Has those whose turn it is try again, if a place may be free.
    mutating func serveQueues() {
        guard lines.count > 0 else {
            lines.isRung = false
            return
        }
        let isTick = lines.tick <= now
        if isTick { lines.ticked(at: now) }
        guard isTick || lines.isRung else { return }
        lines.isRung = false
        // Each is the first one in turn.
        _ = lines.nextLine()
        var left = Self.queueBatch
        for _ in 0..<lines.lineCount {
            let line = lines.nextLine()
            guard line != 0 else { break }
            serve(line, isTick, &left)
            if left == 0 { lines.isRung = true }
        }
    }

    private mutating func serve(_ line: WaitingLines.Name, _ isTick: Bool, _ left: inout Int) {
        while left > 0, let head = lines.head(of: line) {
            if let other = lines.earlier(than: line, isTick: isTick) { return ring(other) }
            left -= 1
            let queue = lines.queue(of: line)
            retry(head, turn: queue)
            check(head)
            // It waits on: so do those behind it.
            guard lines.queue(of: head) == queue else { continue }
            if isTick { claimPlace(head, queue) }
            return
        }
    }

    // MARK: Other queues

    /// Whether the next place of a backend is not another queue's. If so, that is told of it.
    mutating func mayClaim(_ cell: UnsafePointer<BackendCell>, _ queue: UnsafePointer<WaitQueue>) -> Bool {
        guard let other = cell.pointee.claimant(at: now) else { return true }
        guard other == queue else {
            ringNext(other)
            return false
        }
        cell.pointee.endClaim(of: queue)
        return true
    }

    /// A connection has found its backends full, and its queue claims the next place of one of them.
    private func claimPlace(_ index: Int, _ queue: UnsafePointer<WaitQueue>) {
        guard let route = blocks.pending(slab.slots[index].pending).pointee.facts.route, !isStale(index) else { return }
        let backends = route.backends
        guard !backends.isEmpty else { return }
        // Another one each time.
        let backend = backends.pointer(Int(now.nanoseconds >> 20 & 0xFFFF) % backends.count)
        let (cell, limit) = (backend.pointee.cell, backend.pointee.maxConnections)
        if limit > 0, cell.pointee.active.current >= limit { cell.pointee.claim(for: queue, at: now) }
    }

    /// Asks again about a connection that waits.
    /// - Parameter turn: where the next place is its own; nil: it is not its turn anywhere.
    private mutating func retry(_ index: Int, turn: UnsafePointer<WaitQueue>?) {
        let slot = slab.slots + index
        guard isStillRouted(index) else {
            finish(index, RuntimeReason.routeChanged.code, .reset)
            return
        }
        let block = slot.pointee.pending
        blocks.pending(block).pointee.facts.turn = turn
        // It is armed again if the connection waits on; a stage or a connect has a deadline of its own.
        wheel.disarm(slab.slots, index)
        if slot.pointee.marks.contains(.stageWaits) {
            slot.pointee.marks.remove(.stageWaits)
            slot.pointee.enter(.peeking)
            advance(index)
        } else if chooseAgain(index, after: nil) {
            connectNext(index)
        }
        guard slot.pointee.phase != .free else { return }
        if slot.pointee.pending == block { blocks.pending(block).pointee.facts.turn = nil }
        if slot.pointee.phase != .queued { leaveQueue(index, served: turn != nil) }
    }

    /// Whether its route is there by the newest table, as it was when it came to wait. If so, the stage that is asked next
    /// looks it up itself.
    private func isStillRouted(_ index: Int) -> Bool {
        guard isStale(index) else { return true }
        guard routeAgain(index) != nil else { return false }
        if slab.slots[index].marks.contains(.stageWaits) {
            blocks.pending(slab.slots[index].pending).pointee.generation = appliedGeneration
        }
        return true
    }

    // MARK: A new table

    /// Connections whose route is gone, or waits elsewhere now, are told within a few iterations; the others when their
    /// turn comes.
    mutating func reviewQueues() {
        guard lines.count > 0 else { return }
        lines.isRung = true
        lines.walk = 0
    }

    mutating func runQueueReview() {
        guard let start = lines.walk else { return }
        let end = min(start + Self.progressBatch, slab.extent)
        for index in min(start, end)..<end where slab.slots[index].phase == .queued {
            review(index)
            check(index)
        }
        lines.walk = end < slab.extent && lines.count > 0 ? end : nil
    }

    private mutating func review(_ index: Int) {
        guard isStale(index) else { return }
        guard let route = routeAgain(index) else {
            finish(index, RuntimeReason.routeChanged.code, .reset)
            return
        }
        let policy = route.group.pointee.policy
        slab.slots[index].policy = policy
        let queue = lines.queue(of: index)
        if queue != policy?.pointee.queue?.queue, queue != policy?.pointee.groupQueue?.queue { retry(index, turn: nil) }
    }
}
