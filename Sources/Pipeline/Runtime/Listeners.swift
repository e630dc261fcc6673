import Pipeline

/// A short array that control replaces and the worker iterates: worker memory, rebuilt by each update.
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

/// A listener with the worker's own descriptor, its published name, and whether epoll watches it.
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

/// The listeners of an update, each at a fixed index that events refer to.
struct TakenListeners {
    private(set) var listeners: [AppliedListener?]
    private(set) var count = 0
    private(set) var keptCount = 0
    /// The existing places whose listener is still wanted.
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

    /// Assigns free places to new listeners.
    mutating func add(_ new: [AppliedListener]) {
        var place = 0
        for listener in new {
            while place < listeners.count, listeners[place] != nil { place += 1 }
            if place < listeners.count { listeners[place] = listener } else { listeners.append(listener) }
        }
        count += new.count
    }
}

/// A worker's listeners: each with the worker's own descriptor, at an index that events refer to. Tracks which ones
/// epoll watches, and when the others are retried.
struct Listeners: ~Copyable {
    private var items = AppliedList<AppliedListener?>([])
    private(set) var count = 0
    /// Their endpoints, to detect connects to this worker itself.
    private(set) var places = OwnPlaces([])
    /// The initial listeners, until they are taken.
    var first: [WorkerListener]?
    /// How many could not be registered with epoll.
    private(set) var unwatched = 0
    /// A descriptor of a new listener could not be duplicated: the update is tried again.
    private var lacksDescriptors = false
    /// The pause while no connection can be accepted.
    private var pause = AcceptPause()

    /// The retry interval of a listener that could not be registered.
    static var watchAgainAfter: TimeSpan { .milliseconds(100) }

    init(first: [WorkerListener]) { self.first = first }

    /// Of places.
    var extent: Int { items.count }

    subscript(_ place: Int) -> WorkerListener? { items[place]?.listener }

    /// When unwatched listeners are retried; nil: all are watched.
    func wait(at now: Instant) -> TimeSpan? {
        guard unwatched > 0 || lacksDescriptors else { return nil }
        let isPaused = !lacksDescriptors && !pause.isOver(at: now)
        let wait = (isPaused ? pause.until?.since(now) : nil) ?? Listeners.watchAgainAfter
        assert(
            wait <= max(AcceptPause.longest, Listeners.watchAgainAfter),
            "S34: a listener is retried too late")
        return wait
    }

    // MARK: The set of listeners

    /// `wanted` with the worker's own descriptors: existing and new ones. Nil if one can't be duplicated: then nothing
    /// changes, and the update is tried again. Linear: a node may have thousands of listeners, and most updates change
    /// none.
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
            // Idle upstream sockets can be given up.
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

    /// Ends those that are not among them, for whoever has them open: newcomers are refused at once.
    mutating func replace(_ taken: TakenListeners, _ kernel: inout some Kernel) {
        for place in 0..<items.count where !taken.keeps(place) {
            guard let old = items[place] else { continue }
            if old.isWatched { kernel.unwatch(old.listener.descriptor) }
            kernel.stopListening(old.listener.descriptor)
        }
        items = AppliedList(taken.listeners)
        count = taken.count
        places = OwnPlaces(taken.listeners.lazy.compactMap { $0?.listener.bound })
    }

    /// Closes the worker's descriptors. A listener that another process or a store of descriptors has open as well stays,
    /// with its queue.
    mutating func letGo(_ kernel: inout some Kernel) {
        for place in 0..<items.count {
            guard let applied = items[place] else { continue }
            if applied.isWatched { kernel.unwatch(applied.listener.descriptor) }
            kernel.letGo(applied.listener.descriptor)
        }
        items = AppliedList([])
        count = 0
        places = OwnPlaces([])
        unwatched = 0
    }

    // MARK: Watching

    /// Registers unwatched listeners, as far as the kernel allows.
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

    /// Stops watching a listener that can't be accepted from, which would otherwise be reported in every iteration. Its
    /// connections wait in the queue, as do those of other such listeners, until the pause is over.
    /// - Returns: whether a pause begins.
    mutating func pauseAccepting(_ place: Int, at now: Instant, _ kernel: inout some Kernel) -> Bool {
        guard var paused = items[place], paused.isWatched else { return false }
        kernel.unwatch(paused.listener.descriptor)
        paused.isWatched = false
        items[place] = paused
        unwatched += 1
        return pause.begin(at: now)
    }

    /// A connection was accepted.
    mutating func endPause() { pause.end() }
}
