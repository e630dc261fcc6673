import Pipeline

/// An update for a worker: the snapshot for new connections, the listeners to accept from, and the drains. A later
/// update replaces an earlier one, applied or not.
///
/// Threading: made by control, read by one worker at the top of its loop. Ownership: control; it may free an update, its
/// snapshot and its table once ``Mailbox/appliedGeneration`` is a later one's. The worker keeps no pointer into one that it
/// has applied, but for the snapshot, until it applies the next.
///
/// Descriptors: an update is applied whole or not at all. A descriptor in it is control's, and names the listener: the
/// worker takes one of its own for it, and closes that when a later update does not list the listener any more. Control
/// keeps its own open until every worker has applied an update without it (``Mailbox/appliedGeneration``).
package struct WorkerUpdate: @unchecked Sendable {
    package let snapshot: UnsafePointer<Snapshot>
    package let listeners: FrozenArray<WorkerListener>
    /// All pending drains, not only the new ones.
    package let drains: FrozenArray<Drain>
    /// Those that some worker has not carried out.
    package let resets: FrozenArray<BackendReset>

    package init(
        snapshot: UnsafePointer<Snapshot>, listeners: FrozenArray<WorkerListener>,
        drains: FrozenArray<Drain> = FrozenArray([]), resets: FrozenArray<BackendReset> = FrozenArray([])
    ) {
        self.snapshot = snapshot
        self.listeners = listeners
        self.drains = drains
        self.resets = resets
    }

    /// Frees the arrays.
    package func deallocate() {
        listeners.deallocate()
        drains.deallocate()
        resets.deallocate()
    }
}

extension Worker {
    /// Applies the newest update, unless it is applied already. It waits only for descriptors of new listeners.
    mutating func applyUpdate() {
        let published = mailbox._withUnsafeGuaranteedRef { $0.published }
        guard let published,
            published != appliedUpdate || published.pointee.snapshot.pointee.generation != appliedGeneration
        else { return }
        let isNew = published.pointee.snapshot.pointee.generation != appliedGeneration
        guard let taken = take(published.pointee.listeners.buffer) else { return }
        runDrains()
        // Queued connections of a removed listener are served as before.
        takeQueued(taken, published.pointee.listeners, replaced: false)
        if isNew { apply(published.pointee.snapshot) }
        takeQueued(taken, published.pointee.listeners, replaced: true)
        replaceListeners(taken)
        // Late ones are due at once.
        drains = Drains(published.pointee.drains.buffer)
        runDrains()
        runResets(published.pointee.resets.buffer)
        appliedUpdate = published
        let generation = appliedGeneration
        mailbox._withUnsafeGuaranteedRef { $0.setAppliedGeneration(generation) }
    }

    /// From here on lookups use its table, and new connections run on its program.
    private mutating func apply(_ newest: UnsafePointer<Snapshot>) {
        programs.apply(newest)
        snapshot = newest
        appliedGeneration = newest.pointee.generation
        reviewQueues()
    }

    // MARK: Listeners

    /// Takes the listeners that the worker was made with. False: not yet.
    mutating func takeFirst() -> Bool {
        guard let published = listeners.first else { return true }
        guard let taken = published.withUnsafeBufferPointer({ take($0) }) else { return false }
        listeners.first = nil
        replaceListeners(taken)
        let generation = appliedGeneration
        mailbox._withUnsafeGuaranteedRef { $0.setAppliedGeneration(generation) }
        return true
    }

    /// A worker that ends has closed its listeners, and takes no new ones.
    private mutating func take(_ wanted: UnsafeBufferPointer<WorkerListener>) -> TakenListeners? {
        listeners.take(order == .run ? wanted : UnsafeBufferPointer(rebasing: wanted[..<0]), &kernel, &upstreams)
    }

    /// Accepts the queued connections of listeners that are no longer in `taken`: under the new listener at the same
    /// endpoint, or under the removed one.
    private mutating func takeQueued(_ taken: TakenListeners, _ wanted: FrozenArray<WorkerListener>, replaced: Bool) {
        guard order < .stop, taken.keptCount < listeners.count else { return }
        let heirs = ListenerHeirs(wanted.buffer)
        for place in 0..<listeners.extent where !taken.keeps(place) {
            guard let old = listeners[place] else { continue }
            let heir = heirs.heir(of: old)
            guard (heir != nil) == replaced else { continue }
            acceptAll(old.queue(for: heir), limit: queueLimit(old))
        }
    }

    /// The most connections in a listener's queue: Linux admits one more than the backlog.
    func queueLimit(_ listener: WorkerListener) -> Int { max(listener.backlog ?? 0, settings.backlog) + 1 }

    private mutating func replaceListeners(_ taken: TakenListeners) {
        listeners.replace(taken, &kernel)
        if order == .run { listeners.watch(&kernel) } else { drainListeners() }
    }

    /// Accepts what is queued, so that no established client is reset, then lets go of the listeners. Who comes after that
    /// waits for the next process, if one has them or will have them, else is refused.
    mutating func drainListeners() {
        for place in 0..<listeners.extent where order == .drain {
            if let listener = listeners[place] { acceptAll(listener, limit: queueLimit(listener)) }
        }
        listeners.letGo(&kernel)
    }

    // MARK: Drains

    /// Resets connections of due drains: one walk for all of them.
    mutating func runDrains() {
        guard drains.isDue(at: now) else { return }
        for index in 0..<slab.extent where slab.slots[index].phase != .free {
            let slot = slab.slots + index
            if let reason = drains.overdue(backend: slot.pointee.backend, at: now)
                ?? drains.overdue(route: slot.pointee.route, at: now) ?? suspension(of: index)
            {
                finish(index, reason.code, .reset)
            }
        }
        drains.done(at: now)
    }

    /// R30: of its route's env or its instance's. One that has no route yet may have come to an env's own address (R9).
    func suspension(of index: Int) -> RuntimeReason? {
        guard drains.hasTenants else { return nil }
        let slot = slab.slots + index
        if let reason = drains.overdue(tenant: slot.pointee.owner?.pointee.tenant, at: now)
            ?? drains.overdue(tenant: slot.pointee.lasting.identity?.pointee.tenant, at: now)
        {
            return reason
        }
        guard slot.pointee.phase == .peeking, slot.pointee.route == nil else { return nil }
        return snapshot.pointee.routes.isSuspended(at: slot.pointee.lasting.destination) ? .suspended : nil
    }
}
