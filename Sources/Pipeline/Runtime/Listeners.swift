import Pipeline

/// A few things that control changes and the worker's loop walks: memory of the worker's own, renewed by each update.
struct AppliedList<Item>: ~Copyable {
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

/// A listener with the worker's own descriptor, by which name it was published, and whether the kernel tells of it.
struct AppliedListener {
    var listener: WorkerListener
    let published: Descriptor
    var isWatched = false

    /// The same listener, as a later update has it.
    func published(again published: WorkerListener) -> AppliedListener {
        var same = self
        same.listener = published.with(listener.descriptor)
        return same
    }
}

/// The listeners of an update, each at its place: what events name it by, which it keeps for as long as it is there.
struct TakenListeners {
    private(set) var listeners: [AppliedListener?]
    private(set) var count = 0
    private(set) var keptCount = 0
    /// Of the places that there were, those whose listener is still wanted.
    private var kept: [Bool]

    init(places: Int) {
        listeners = Array(repeating: nil, count: places)
        kept = Array(repeating: false, count: places)
    }

    func keeps(_ place: Int) -> Bool { kept[place] }

    mutating func keep(_ listener: AppliedListener, at place: Int) {
        listeners[place] = listener
        kept[place] = true
        keptCount += 1
        count += 1
    }

    /// Gives new ones the places that are free.
    mutating func add(_ new: [AppliedListener]) {
        var place = 0
        for listener in new {
            while place < listeners.count, listeners[place] != nil { place += 1 }
            if place < listeners.count { listeners[place] = listener } else { listeners.append(listener) }
        }
        count += new.count
    }
}

/// A worker's listeners: each by a descriptor of the worker's own, at a place that events name it by; which of them the kernel tells
/// of; and when those that it doesn't are asked again.
struct Listeners: ~Copyable {
    private var items = AppliedList<AppliedListener?>([])
    private(set) var count = 0
    /// Where they listen, for those who would connect to it.
    private(set) var places = OwnPlaces([])
    /// Those to begin with, until they are taken.
    var first: [WorkerListener]?
    /// How many the kernel has not let us watch.
    private(set) var unwatched = 0
    /// The kernel had no room for a descriptor of a new one: what was published is tried again.
    private var lacksDescriptors = false
    /// While nobody can be accepted.
    private var pause = AcceptPause()

    /// How long one that the kernel did not let us watch may wait for the next try.
    static var watchAgainAfter: TimeSpan { .milliseconds(100) }

    init(first: [WorkerListener]) { self.first = first }

    /// Of places.
    var extent: Int { items.count }

    subscript(_ place: Int) -> WorkerListener? { items[place]?.listener }

    /// When they are looked at again without an event; nil: all of them are watched.
    func wait(at now: Instant) -> TimeSpan? {
        guard unwatched > 0 || lacksDescriptors else { return nil }
        let isPaused = !lacksDescriptors && !pause.isOver(at: now)
        let wait = (isPaused ? pause.until?.since(now) : nil) ?? Listeners.watchAgainAfter
        assert(wait <= max(AcceptPause.longest, Listeners.watchAgainAfter), "S34: listeners are left alone")
        return wait
    }

    // MARK: Which there are

    /// `wanted` with descriptors of the worker's own: those that it has already, and new ones. Nil, and none is taken, if
    /// one can't be had; then it is tried again. Linear: a node may have thousands of listeners, and most changes none.
    mutating func take(
        _ wanted: UnsafeBufferPointer<WorkerListener>, _ kernel: inout some Kernel, _ upstreams: inout UpstreamSockets
    ) -> TakenListeners? {
        var taken = TakenListeners(places: items.count)
        var known: [Descriptor: Int] = [:]
        known.reserveCapacity(items.count)
        for place in 0..<items.count {
            if let old = items[place] { known[old.published] = place }
        }
        var new: [AppliedListener] = []
        for published in wanted {
            if let place = known[published.descriptor], let old = items[place] {
                taken.keep(old.published(again: published), at: place)
                continue
            }
            var outcome = kernel.take(published.descriptor)
            // Spares only wait for their next use.
            if outcome.isError, upstreams.closeIdle(&kernel) { outcome = kernel.take(published.descriptor) }
            guard !outcome.isError else {
                for listener in new { kernel.close(listener.listener.descriptor) }
                lacksDescriptors = true
                return nil
            }
            let own = Descriptor(Int32(truncatingIfNeeded: outcome.value))
            new.append(AppliedListener(listener: published.with(own), published: published.descriptor))
        }
        lacksDescriptors = false
        taken.add(new)
        return taken
    }

    /// Ends those that are not among them.
    mutating func replace(_ taken: TakenListeners, _ kernel: inout some Kernel) {
        for place in 0..<items.count where !taken.keeps(place) {
            if let old = items[place] { Listeners.close(old, &kernel) }
        }
        items = AppliedList(taken.listeners)
        count = taken.count
        places = OwnPlaces(taken.listeners.lazy.compactMap { $0?.listener.bound })
    }

    mutating func close(_ kernel: inout some Kernel) {
        for place in 0..<items.count {
            if let applied = items[place] { Listeners.close(applied, &kernel) }
        }
        items = AppliedList([])
        count = 0
        places = OwnPlaces([])
        unwatched = 0
    }

    private static func close(_ applied: AppliedListener, _ kernel: inout some Kernel) {
        if applied.isWatched { kernel.unwatch(applied.listener.descriptor) }
        kernel.stopListening(applied.listener.descriptor)
    }

    // MARK: Which are watched

    /// Watches those that are not, as far as the kernel lets us.
    mutating func watch(_ kernel: inout some Kernel) {
        unwatched = 0
        for place in 0..<items.count {
            guard var applied = items[place], !applied.isWatched else { continue }
            let key = EventKey(.listener, index: place, generation: 0)
            applied.isWatched = !kernel.watchLevel(applied.listener.descriptor, key).isError
            items[place] = applied
            if !applied.isWatched { unwatched += 1 }
        }
    }

    /// The same, once a pause is over.
    mutating func watchAgain(at now: Instant, _ kernel: inout some Kernel) {
        if unwatched > 0, pause.isOver(at: now) { watch(&kernel) }
    }

    /// Stops watching one whose queue can't be taken: it would be told of again and again. Its connections wait in the
    /// queue, and so do those of others that meet the same until the pause is over.
    /// - Returns: whether a pause begins.
    mutating func pauseAccepting(_ place: Int, at now: Instant, _ kernel: inout some Kernel) -> Bool {
        guard var paused = items[place], paused.isWatched else { return false }
        kernel.unwatch(paused.listener.descriptor)
        paused.isWatched = false
        items[place] = paused
        unwatched += 1
        return pause.begin(at: now)
    }

    /// Somebody was accepted.
    mutating func endPause() { pause.end() }
}
