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

        /// To find it by.
        var key: UInt {
            switch self {
            case .backend(let cell): UInt(bitPattern: cell)
            case .route(let cell): UInt(bitPattern: cell)
            }
        }
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

    /// The same listener, as a later offer has it.
    func offered(again offered: WorkerListener) -> AdoptedListener {
        var same = self
        same.listener = offered.with(listener.descriptor)
        return same
    }
}

/// The listeners of an offer, each at its place: what events name it by, which it keeps for as long as it is there.
struct TakenListeners {
    private(set) var listeners: [AdoptedListener?]
    private(set) var count = 0
    private(set) var keptCount = 0
    /// Of the places that there were, those whose listener is still wanted.
    private var kept: [Bool]

    init(places: Int) {
        listeners = Array(repeating: nil, count: places)
        kept = Array(repeating: false, count: places)
    }

    func keeps(_ place: Int) -> Bool { kept[place] }

    mutating func keep(_ listener: AdoptedListener, at place: Int) {
        listeners[place] = listener
        kept[place] = true
        keptCount += 1
        count += 1
    }

    /// Gives new ones the places that are free.
    mutating func add(_ new: [AdoptedListener]) {
        var place = 0
        for listener in new {
            while place < listeners.count, listeners[place] != nil { place += 1 }
            if place < listeners.count { listeners[place] = listener } else { listeners.append(listener) }
        }
        count += new.count
    }
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
        takeQueued(taken, offered.pointee.listeners, replaced: false)
        if isNew { adopt(offered.pointee.snapshot) }
        takeQueued(taken, offered.pointee.listeners, replaced: true)
        replaceListeners(taken)
        drains = AdoptedList(offered.pointee.drains.buffer.sorted { $0.what.key < $1.what.key })
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
    /// one can't be had; then it is tried again. Linear: a node may have thousands of listeners, and most changes none.
    private mutating func take(_ wanted: UnsafeBufferPointer<WorkerListener>) -> TakenListeners? {
        var taken = TakenListeners(places: listeners.count)
        // One that ends has closed what it had, and takes nothing any more.
        guard order == .run else { return taken }
        var known: [Descriptor: Int] = [:]
        known.reserveCapacity(listeners.count)
        for place in 0..<listeners.count {
            if let old = listeners[place] { known[old.offered] = place }
        }
        var new: [AdoptedListener] = []
        for offered in wanted {
            if let place = known[offered.descriptor], let old = listeners[place] {
                taken.keep(old.offered(again: offered), at: place)
                continue
            }
            var outcome = kernel.take(offered.descriptor)
            // Spares only wait for their next use.
            if outcome.isError, upstreams.closeSpares(&kernel) { outcome = kernel.take(offered.descriptor) }
            guard !outcome.isError else {
                for listener in new { kernel.close(listener.listener.descriptor) }
                lacksDescriptors = true
                return nil
            }
            let own = Descriptor(Int32(truncatingIfNeeded: outcome.value))
            new.append(AdoptedListener(listener: offered.with(own), offered: offered.descriptor))
        }
        lacksDescriptors = false
        taken.add(new)
        return taken
    }

    /// Accepts what is in the queues of listeners that are not `taken` any more: those in whose place another one stands at
    /// the same endpoint, as that one would, or those that are simply gone.
    private mutating func takeQueued(_ taken: TakenListeners, _ wanted: FrozenArray<WorkerListener>, replaced: Bool) {
        guard order < .stop, taken.keptCount < listenerCount else { return }
        let heirs = Dictionary(wanted.buffer.map { ($0.bound, $0) }, uniquingKeysWith: { first, _ in first })
        for place in 0..<listeners.count {
            guard let old = listeners[place]?.listener, !taken.keeps(place) else { continue }
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
        for place in 0..<listeners.count where !taken.keeps(place) {
            if let old = listeners[place] { close(old) }
        }
        listeners = AdoptedList(taken.listeners)
        listenerCount = taken.count
        ownPlaces = OwnPlaces(taken.listeners.lazy.compactMap { $0?.listener.bound })
        if order == .run { watchListeners() } else { drainListeners() }
    }

    /// Watches the listeners that are not, as far as the kernel lets us.
    mutating func watchListeners() {
        unwatched = 0
        for place in 0..<listeners.count {
            guard var adopted = listeners[place], !adopted.isWatched else { continue }
            let key = EventKey(.listener, index: place, generation: 0)
            adopted.isWatched = !kernel.watchLevel(adopted.listener.descriptor, key).isError
            listeners[place] = adopted
            if !adopted.isWatched { unwatched += 1 }
        }
    }

    /// Takes what is queued already, so that no client that was told "connected" is reset, then stops listening.
    mutating func drainListeners() {
        for place in 0..<listeners.count where order == .drain {
            if let adopted = listeners[place] { acceptAll(adopted.listener, limit: queueLimit) }
        }
        closeListeners()
    }

    mutating func closeListeners() {
        for place in 0..<listeners.count {
            if let adopted = listeners[place] { close(adopted) }
        }
        listeners = AdoptedList([])
        listenerCount = 0
        ownPlaces = OwnPlaces([])
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
        assert(nextDrain.map { $0 > now } ?? true, "S23: a drain's deadline has passed, and nobody looks after it")
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
        var (low, high) = (0, drains.count)
        while low < high {
            let middle = (low + high) / 2
            if drains[middle].what.key < target.key { low = middle + 1 } else { high = middle }
        }
        while low < drains.count, drains[low].what.key == target.key {
            if drains[low].what == target, drains[low].deadline <= now { return drains[low].reason }
            low += 1
        }
        return nil
    }
}
