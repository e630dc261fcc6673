import Pipeline

/// Route lookup: in the newest table once its inputs are known, and again before each attempt (R1). Between two events
/// a connection keeps no pointer into a table, only pinned objects (R26).
extension Worker {
    /// A stage has just been asked: the route that it found is kept for longer than the table may live. What the facts have of it
    /// is the table's, and gone with it; the slot has what is pinned.
    func keepRoute(_ index: Int, by stage: Int, of chain: UnsafePointer<Chain>) {
        let pending = blocks.pending(slab.slots[index].pending)
        guard stage == chain.pointee.selector, let route = pending.pointee.facts.route else { return }
        pin(route, index)
        pending.pointee.generation = appliedGeneration
        pending.pointee.group = route.group.pointee.number
    }

    private func pin(_ route: FoundRoute, _ index: Int) {
        let slot = slab.slots + index
        guard slot.pointee.route == nil else { return }
        route.pointee.nameCell()
        route.pointee.cell.pointee.users.add()
        route.pointee.owner.pointee.users.add()
        slot.pointee.route = route.pointee.cell
        slot.pointee.owner = route.pointee.owner
        slot.pointee.routeFlags = route.pointee.flags
        slot.pointee.policy = route.group.pointee.policy
    }

    /// Once nothing reads any more what the connection has of its route.
    func unpin(_ index: Int) {
        let slot = slab.slots + index
        slot.pointee.route?.pointee.users.remove()
        slot.pointee.owner?.pointee.users.remove()
    }

    // MARK: Again

    /// Whether the table has changed since the route was looked up.
    func isStale(_ index: Int) -> Bool {
        let slot = slab.slots + index
        return slot.pointee.route != nil && blocks.pending(slot.pointee.pending).pointee.generation != appliedGeneration
    }

    /// The connection's route in the newest table. Nil: it has none there, or not the one that limits, header and TLVs were
    /// made for.
    func routeAgain(_ index: Int) -> FoundRoute? {
        let slot = slab.slots + index
        let chain = chain(of: index)
        guard let stage = chain.pointee.selecting else { return nil }
        let found = withView(index, budget: chain.pointee.peekBytes) { view, _ in
            stage.pointee.filter.lookUpErased(stage.pointee.settings, view)
        }
        guard let found, found.pointee.cell == slot.pointee.route, found.pointee.owner == slot.pointee.owner,
            found.pointee.flags == slot.pointee.routeFlags
        else { return nil }
        return found
    }

    /// Chooses again in the newest table, without backends that failed this connection. False if the connection has
    /// ended: its route changed its owner or is gone, or no backend is left.
    /// - Parameter failure: the failure of the last attempt; nil: there was none.
    mutating func chooseAgain(_ index: Int, after failure: RuntimeReason?) -> Bool {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        let chain = chain(of: index)
        guard let stage = chain.pointee.selecting, let route = routeAgain(index) else {
            finish(index, RuntimeReason.routeChanged.code, .reset)
            return false
        }
        let hadMore = Int(slot.pointee.attempt) + 1 < Int(pending.pointee.facts.candidates.count)
        let states = programs[slot.pointee.program].pointee.states
        let verdict = withView(index, budget: chain.pointee.peekBytes) { view, effects in
            stage.pointee.filter.reselectErased(
                stage.pointee.settings, states[stage.pointee.stateIndex], route, view, effects)
        }
        pending.pointee.facts.route = route
        pending.pointee.generation = appliedGeneration
        if slot.pointee.tried == 0 { pending.pointee.group = route.group.pointee.number }
        slot.pointee.attempt = 0
        let reason: UInt8
        switch verdict {
        case .refuse(let code): reason = code
        case .wait where slot.pointee.tried == 0:
            // Stages that have not passed it come first.
            guard slot.pointee.phase != .peeking else { return true }
            awaitPlace(index)
            return false
        // After a failure nobody waits for another backend.
        case .wait: reason = 0
        case .next, .needBytes, .inspect: return true
        }
        let isOtherSet = route.group.pointee.number != pending.pointee.group
        if slot.pointee.tried == 0 {
            finish(index, stage.pointee.code(reason), .reset)
        } else {
            finish(index, (isOtherSet && hadMore ? .routeChanged : failure ?? .routeChanged).code, .reset)
        }
        return false
    }

    /// Whether the connected backend is still one of the route's: the table may have changed during the connect.
    /// Nothing was written yet.
    func isStillChosen(_ index: Int) -> Bool {
        guard isStale(index) else { return true }
        let slot = slab.slots + index
        guard let route = routeAgain(index), let cell = slot.pointee.backend else { return false }
        let pending = blocks.pending(slot.pointee.pending)
        let group = route.group
        guard group.pointee.number == pending.pointee.group || group.pointee.has(cell) else { return false }
        pending.pointee.facts.route = route
        pending.pointee.generation = appliedGeneration
        return true
    }
}
