import Pipeline

/// All that control wants a worker to run on from now on: the snapshot for new connections, the listeners to accept
/// them from, and what is to be ended at its time. A later offer takes the place of an earlier one, adopted or not.
///
/// Threading: made by control, read by one worker at the top of its loop. Ownership: control; it may free an offer, its
/// snapshot and its table once ``Mailbox/adoptedGeneration`` is a later one's. The worker keeps no pointer into one that it
/// has adopted, but for the snapshot, until it adopts the next.
///
/// Descriptors: an offer is adopted whole or not at all. A descriptor in it is control's, and names the listener: the
/// worker takes one of its own for it, and closes that when a later offer does not list the listener any more. Control
/// keeps its own open until every worker has adopted an offer without it (``Mailbox/adoptedGeneration``).
package struct WorkerOffer: @unchecked Sendable {
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

/// Something that is gone from desired state: connections on it may go on until the deadline, then they are reset.
///
/// The cell is only compared, never read. It must not be given to another backend or route before an offer without
/// this drain was adopted. Drains reach a worker whatever its connections hold.
package struct Drain: @unchecked Sendable {
    package enum Target: @unchecked Sendable, Equatable {
        case backend(UnsafePointer<BackendCell>)
        case route(UnsafePointer<RouteCell>)
    }
    package let what: Target
    package let deadline: Instant
    /// ``RuntimeReason/instanceDrained`` or ``RuntimeReason/routeRemoved``.
    package let reason: RuntimeReason

    package init(_ what: Target, deadline: Instant, reason: RuntimeReason) {
        self.what = what
        self.deadline = deadline
        self.reason = reason
    }
}

/// A few things that control changes and the worker's loop walks: memory of the worker's own, renewed by each offer.
struct AdoptedList<Item>: ~Copyable {
    private(set) var items: UnsafeMutableBufferPointer<Item>

    init(_ items: some Collection<Item>) {
        self.items = .allocate(capacity: items.count)
        _ = self.items.initialize(from: items)
    }
    deinit {
        items.deinitialize()
        items.deallocate()
    }

    var count: Int { items.count }
    var isEmpty: Bool { items.isEmpty }
    subscript(_ index: Int) -> Item {
        get { items[index] }
        nonmutating set { items[index] = newValue }
    }
}

/// A listener with the worker's own descriptor, by which name it was offered, and whether the kernel tells of it.
struct AdoptedListener {
    var listener: WorkerListener
    let offered: Descriptor
    var isWatched = false
}

extension Worker {
    /// How long a listener that the kernel did not let us watch may wait for the next try.
    static var watchAgainAfter: TimeSpan { .milliseconds(100) }

    /// Takes the newest offer over, if there is one that wasn't. It waits only for a descriptor of a new listener.
    mutating func adoptOffer() {
        let offered = mailbox._withUnsafeGuaranteedRef { $0.offered }
        guard let offered, offered != adoptedOffer || offered.pointee.snapshot.pointee.generation != adoptedGeneration
        else { return }
        let isNew = offered.pointee.snapshot.pointee.generation != adoptedGeneration
        guard let taken = take(offered.pointee.listeners.buffer) else { return }
        runDrains()
        // Who has come to a listener that nothing takes the place of is served as it was.
        takeQueued(offered.pointee.listeners, replaced: false)
        if isNew { adopt(offered.pointee.snapshot) }
        takeQueued(offered.pointee.listeners, replaced: true)
        replaceListeners(taken)
        drains = AdoptedList(offered.pointee.drains.buffer)
        // Those that come too late are due at once.
        nextDrain = offered.pointee.drains.buffer.map(\.deadline).min()
        runDrains()
        adoptedOffer = offered
        let generation = adoptedGeneration
        mailbox._withUnsafeGuaranteedRef { $0.setAdoptedGeneration(generation) }
    }

    /// From here on everything is looked up in its table, and new connections run on its program.
    private mutating func adopt(_ newest: UnsafePointer<Snapshot>) {
        programs.adopt(newest)
        snapshot = newest
        adoptedGeneration = newest.pointee.generation
    }

    // MARK: Listeners

    /// Takes the listeners that the worker was made with. False: not yet.
    mutating func takeFirst(_ offered: [WorkerListener]) -> Bool {
        guard let taken = offered.withUnsafeBufferPointer({ take($0) }) else { return false }
        replaceListeners(taken)
        let generation = adoptedGeneration
        mailbox._withUnsafeGuaranteedRef { $0.setAdoptedGeneration(generation) }
        return true
    }

    /// `wanted` with descriptors of the worker's own: those that it has already, and new ones. Nil, and none is taken, if
    /// one can't be had; then it is tried again.
    private mutating func take(_ wanted: UnsafeBufferPointer<WorkerListener>) -> [AdoptedListener]? {
        // One that ends has closed what it had, and takes nothing any more.
        guard order == .run else { return [] }
        var taken: [AdoptedListener] = []
        taken.reserveCapacity(wanted.count)
        var new: [Descriptor] = []
        for offered in wanted {
            if let same = adopted(offered.descriptor) {
                taken.append(AdoptedListener(listener: offered.with(same), offered: offered.descriptor))
                continue
            }
            var outcome = kernel.take(offered.descriptor)
            // Spares only wait for their next use.
            if outcome.isError, upstreams.closeSpares(&kernel) { outcome = kernel.take(offered.descriptor) }
            guard !outcome.isError else {
                for descriptor in new { kernel.close(descriptor) }
                lacksDescriptors = true
                return nil
            }
            new.append(Descriptor(Int32(truncatingIfNeeded: outcome.value)))
            taken.append(AdoptedListener(listener: offered.with(new[new.count - 1]), offered: offered.descriptor))
        }
        lacksDescriptors = false
        return taken
    }

    /// The worker's descriptor of a listener that control names so.
    private func adopted(_ offered: Descriptor) -> Descriptor? {
        for i in 0..<listeners.count where listeners[i].offered == offered { return listeners[i].listener.descriptor }
        return nil
    }

    /// Accepts what is in the queues of listeners that `wanted` has no more: those in whose place another one stands at
    /// the same endpoint, as that one would, or those that are simply gone.
    private mutating func takeQueued(_ wanted: FrozenArray<WorkerListener>, replaced: Bool) {
        guard order < .stop else { return }
        for i in 0..<listeners.count {
            let old = listeners[i].listener
            let name = listeners[i].offered
            guard !wanted.buffer.contains(where: { $0.descriptor == name }) else { continue }
            let heir = wanted.buffer.first { $0.bound == old.bound }
            guard (heir != nil) == replaced else { continue }
            acceptAll(
                WorkerListener(
                    descriptor: old.descriptor, spec: heir?.spec ?? old.spec, bound: old.bound,
                    index: heir?.index ?? old.index), limit: queueLimit)
        }
    }

    /// The most connections that can be in a listener's queue: Linux lets in one more than it was told.
    var queueLimit: Int { settings.backlog + 1 }

    private mutating func replaceListeners(_ wanted: [AdoptedListener]) {
        for i in 0..<listeners.count where !wanted.contains(where: { $0.offered == listeners[i].offered }) {
            close(listeners[i])
        }
        var next = wanted
        for place in next.indices {
            for i in 0..<listeners.count where listeners[i].offered == next[place].offered {
                // An event names the place in the list: whoever has another one now is watched anew.
                next[place].isWatched = listeners[i].isWatched && i == place
                if listeners[i].isWatched, i != place { kernel.unwatch(next[place].listener.descriptor) }
            }
        }
        listeners = AdoptedList(next)
        if order == .run { watchListeners() } else { drainListeners() }
    }

    /// Watches the listeners that are not, as far as the kernel lets us.
    mutating func watchListeners() {
        unwatched = 0
        for i in 0..<listeners.count where !listeners[i].isWatched {
            let key = EventKey(.listener, index: i, generation: 0)
            listeners[i].isWatched = !kernel.watchLevel(listeners[i].listener.descriptor, key).isError
            if !listeners[i].isWatched { unwatched += 1 }
        }
    }

    /// Takes what is queued already, so that no client that was told "connected" is reset, then stops listening.
    mutating func drainListeners() {
        for i in 0..<listeners.count where order == .drain { acceptAll(listeners[i].listener, limit: queueLimit) }
        closeListeners()
    }

    mutating func closeListeners() {
        for i in 0..<listeners.count { close(listeners[i]) }
        listeners = AdoptedList([])
        unwatched = 0
    }

    private mutating func close(_ adopted: AdoptedListener) {
        if adopted.isWatched { kernel.unwatch(adopted.listener.descriptor) }
        kernel.stopListening(adopted.listener.descriptor)
    }

    // MARK: Drains

    private mutating func findNextDrain() {
        nextDrain = nil
        for i in 0..<drains.count where drains[i].deadline > now {
            nextDrain = min(nextDrain ?? drains[i].deadline, drains[i].deadline)
        }
    }

    /// Ends what is on backends and routes whose time is over: one walk, however many there are.
    mutating func runDrains() {
        guard let due = nextDrain, due <= now else { return }
        for index in 0..<slab.extent where slab.slots[index].phase != .free {
            let slot = slab.slots + index
            let cell = slot.pointee.marks.contains(.atBackend) ? slot.pointee.backend : nil
            if let reason = overdue(backend: cell) ?? overdue(route: slot.pointee.route) {
                finish(index, reason.code, .reset)
            }
        }
        findNextDrain()
    }

    /// The reason to end a connection to that backend; nil: it may be.
    func overdue(backend cell: UnsafePointer<BackendCell>?) -> RuntimeReason? {
        guard !drains.isEmpty, let cell else { return nil }
        return overdue(.backend(cell))
    }

    /// The same for a route.
    func overdue(route cell: UnsafePointer<RouteCell>?) -> RuntimeReason? {
        guard !drains.isEmpty, let cell else { return nil }
        return overdue(.route(cell))
    }

    private func overdue(_ target: Drain.Target) -> RuntimeReason? {
        for i in 0..<drains.count where drains[i].what == target && drains[i].deadline <= now {
            return drains[i].reason
        }
        return nil
    }
}
