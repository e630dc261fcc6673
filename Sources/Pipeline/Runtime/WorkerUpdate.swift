import Pipeline

/// All that control wants a worker to run on from now on: the snapshot for new connections, the listeners to accept
/// them from, and what is to be ended at its time. A later update takes the place of an earlier one, applied or not.
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
    /// All that are still to come, and not only the new ones.
    package let drains: FrozenArray<Drain>

    package init(
        snapshot: UnsafePointer<Snapshot>, listeners: FrozenArray<WorkerListener>,
        drains: FrozenArray<Drain> = FrozenArray([])
    ) {
        self.snapshot = snapshot
        self.listeners = listeners
        self.drains = drains
    }

    /// Frees the arrays.
    package func deallocate() {
        listeners.deallocate()
        drains.deallocate()
    }
}

extension Worker {
    /// Takes the newest update over, if there is one that wasn't. It waits only for a descriptor of a new listener.
    mutating func applyUpdate() {
        let published = mailbox._withUnsafeGuaranteedRef { $0.published }
        guard let published,
            published != appliedUpdate || published.pointee.snapshot.pointee.generation != appliedGeneration
        else { return }
        let isNew = published.pointee.snapshot.pointee.generation != appliedGeneration
        guard let taken = take(published.pointee.listeners.buffer) else { return }
        runDrains()
        // Who has come to a listener that nothing takes the place of is served as it was.
        takeQueued(taken, published.pointee.listeners, replaced: false)
        if isNew { apply(published.pointee.snapshot) }
        takeQueued(taken, published.pointee.listeners, replaced: true)
        replaceListeners(taken)
        // Those that come too late are due at once.
        drains = Drains(published.pointee.drains.buffer)
        runDrains()
        appliedUpdate = published
        let generation = appliedGeneration
        mailbox._withUnsafeGuaranteedRef { $0.setAppliedGeneration(generation) }
    }

    /// From here on everything is looked up in its table, and new connections run on its program.
    private mutating func apply(_ newest: UnsafePointer<Snapshot>) {
        programs.apply(newest)
        snapshot = newest
        appliedGeneration = newest.pointee.generation
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

    /// One that ends has closed what it had, and takes nothing any more.
    private mutating func take(_ wanted: UnsafeBufferPointer<WorkerListener>) -> TakenListeners? {
        listeners.take(order == .run ? wanted : UnsafeBufferPointer(rebasing: wanted[..<0]), &kernel, &upstreams)
    }

    /// Accepts what is in the queues of listeners that are not `taken` any more: those in whose place another one stands at
    /// the same endpoint, as that one would, or those that are simply gone.
    private mutating func takeQueued(_ taken: TakenListeners, _ wanted: FrozenArray<WorkerListener>, replaced: Bool) {
        guard order < .stop, taken.keptCount < listeners.count else { return }
        let heirs = Dictionary(wanted.buffer.map { ($0.bound, $0) }, uniquingKeysWith: { first, _ in first })
        for place in 0..<listeners.extent where !taken.keeps(place) {
            guard let old = listeners[place] else { continue }
            let heir = heirs[old.bound]
            guard (heir != nil) == replaced else { continue }
            acceptAll(
                WorkerListener(
                    descriptor: old.descriptor, spec: heir?.spec ?? old.spec, bound: old.bound,
                    index: heir?.index ?? old.index), limit: queueLimit)
        }
    }

    /// The most connections that can be in a listener's queue: Linux lets in one more than it was told.
    var queueLimit: Int { settings.backlog + 1 }

    private mutating func replaceListeners(_ taken: TakenListeners) {
        listeners.replace(taken, &kernel)
        if order == .run { listeners.watch(&kernel) } else { drainListeners() }
    }

    /// Takes what is queued already, so that no client that was told "connected" is reset, then stops listening.
    mutating func drainListeners() {
        for place in 0..<listeners.extent where order == .drain {
            if let listener = listeners[place] { acceptAll(listener, limit: queueLimit) }
        }
        listeners.close(&kernel)
    }

    // MARK: Drains

    /// Ends what is on backends and routes whose time is over: one walk, however many there are.
    mutating func runDrains() {
        guard drains.isDue(at: now) else { return }
        for index in 0..<slab.extent where slab.slots[index].phase != .free {
            let slot = slab.slots + index
            if let reason = drains.overdue(backend: slot.pointee.backend, at: now)
                ?? drains.overdue(route: slot.pointee.route, at: now)
            {
                finish(index, reason.code, .reset)
            }
        }
        drains.done(at: now)
    }
}
