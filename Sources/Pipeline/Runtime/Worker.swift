import CLinux
import Pipeline

/// A listener as one worker holds it.
package struct WorkerListener: Sendable {
    package let descriptor: Descriptor
    package let spec: ListenerSpec
    /// Where it is bound, which differs from the spec's port 0.
    package let bound: Endpoint
    /// Index into ``Program/listeners``, for facts and logs.
    package let index: UInt16
    package init(descriptor: Descriptor, spec: ListenerSpec, bound: Endpoint, index: UInt16) {
        self.descriptor = descriptor
        self.spec = spec
        self.bound = bound
        self.index = index
    }
}

/// The sizes of a worker, from the node's settings.
package struct WorkerLimits: Sendable {
    package var connections: Int
    package var blocks: Int
    package var pipes: Int
    package init(connections: Int, blocks: Int, pipes: Int) {
        self.connections = connections
        self.blocks = blocks
        self.pipes = pipes
    }
    package init(_ settings: NodeSettings) {
        self.init(
            connections: settings.maxConnections, blocks: min(settings.maxConnections, 16384),
            pipes: min(settings.maxConnections, 1024))
    }
}

/// One worker: a loop over one epoll, its connections, and nothing shared but counters and the log ring.
///
/// Threading: every method on the worker's own thread. Ownership: it closes its listeners and every descriptor that it
/// accepted or opened; counters, ring, mailbox and snapshots outlive it.
package struct Worker<K: Kernel>: ~Copyable {
    var kernel: K
    let settings: NodeSettings
    let index: UInt16
    let counters: UnsafePointer<WorkerCounters>
    let ring: Unmanaged<RecordRing>
    let mailbox: Unmanaged<Mailbox>
    let logs: Bool
    let connectTimeout: TimeSpan
    let halfCloseTimeout: TimeSpan

    var slab: Slab
    var blocks: BlockPool
    var pipes: PipePool
    var wheel: TimerWheel
    var snapshots: SnapshotTable
    var queue: RunQueue
    var now: Instant
    var serial: UInt64 = 0
    var order = WorkerOrder.run
    /// Whether a write right after `connect` went through the last time: on fast links it does, and saves a wakeup.
    var eager = EagerSend()
    /// The one large buffer that copies go through.
    let buffer: UnsafeMutableRawBufferPointer

    private let listeners: UnsafeMutableBufferPointer<WorkerListener>
    private var listenersOpen = true
    private var listenerCount = 0
    private let events: UnsafeMutableBufferPointer<Event>
    private var adopted: UnsafePointer<Snapshot>

    static var bufferSize: Int { 65536 }
    static var acceptBatch: Int { 32 }

    /// - Returns: nil if memory for the limits can't be had.
    package init?(
        kernel: consuming K, settings: NodeSettings, limits: WorkerLimits, index: UInt16,
        listeners: [WorkerListener], snapshot: UnsafePointer<Snapshot>, counters: UnsafePointer<WorkerCounters>,
        ring: RecordRing, mailbox: Mailbox
    ) {
        guard let slab = Slab(capacity: limits.connections), let blocks = BlockPool(capacity: limits.blocks) else {
            return nil
        }
        self.kernel = kernel
        self.settings = settings
        self.index = index
        self.counters = counters
        self.ring = .passUnretained(ring)
        self.mailbox = .passUnretained(mailbox)
        self.logs = settings.logConnections
        self.connectTimeout = settings.connectTimeout
        self.halfCloseTimeout = settings.halfCloseTimeout
        self.slab = slab
        self.blocks = blocks
        pipes = PipePool(capacity: limits.pipes)
        now = self.kernel.now()
        wheel = TimerWheel(now: now)
        snapshots = SnapshotTable(first: snapshot)
        adopted = snapshot
        queue = RunQueue(capacity: limits.connections)
        buffer = .allocate(byteCount: Self.bufferSize, alignment: 4096)
        self.listeners = .allocate(capacity: 65536)
        self.listeners.initialize(
            repeating: WorkerListener(
                descriptor: .none,
                spec: ListenerSpec(endpoint: Endpoint(.unspecified, 0), hint: .tcpRaw, chain: 0, line: 0),
                bound: Endpoint(.unspecified, 0), index: 0))
        for (i, listener) in listeners.enumerated() { self.listeners[i] = listener }
        listenerCount = listeners.count
        events = .allocate(capacity: 256)
        watchAll(wakeDescriptor: mailbox.wakeDescriptor)
    }

    deinit {
        buffer.deallocate()
        listeners.deinitialize()
        listeners.deallocate()
        events.deallocate()
    }

    private mutating func watchAll(wakeDescriptor: Descriptor) {
        for (i, listener) in listeners[..<listenerCount].enumerated() {
            _ = kernel.watchLevel(listener.descriptor, EventKey(.listener, index: i, generation: 0))
        }
        if wakeDescriptor.isOpen {
            _ = kernel.watchLevel(wakeDescriptor, EventKey(.control, index: 0, generation: 0))
        }
    }

    /// One pass: orders, events, what was left over, deadlines. False when the worker has nothing left to do and was
    /// told to end.
    package mutating func turn() -> Bool {
        obeyMailbox()
        if order != .run, slab.inUse == 0 {
            closeListeners()
            publish()
            return false
        }
        let timeout = queue.isEmpty ? wheel.sleep(now: now) : .zero
        let count = kernel.wait(events, timeout: timeout)
        now = kernel.now()
        for i in 0..<count { handle(events[i]) }
        runQueue()
        while let index = wheel.expired(slab.slots, now: now) { deadlinePassed(index) }
        publish()
        return true
    }

    /// Runs until told to end, then closes everything. The kernel is left to the caller to shut down.
    package mutating func run() {
        while turn() {}
        pipes.closeAll(&kernel)
        mailbox._withUnsafeGuaranteedRef { $0.setEnded() }
    }

    /// The kernel, once ``turn()`` has answered false.
    package mutating func withKernel<Result>(_ body: (inout K) -> Result) -> Result { body(&kernel) }

    private mutating func publish() {
        counters.pointee.add(.wakeups)
        counters.pointee.set(.active, UInt64(slab.inUse))
        counters.pointee.set(.buffersInUse, UInt64(blocks.inUse))
        counters.pointee.set(.pipesInUse, UInt64(pipes.inUse))
    }

    private mutating func handle(_ event: Event) {
        switch event.key.kind {
        case .client:
            if let index = slab.find(event.key) { clientEvent(index, event.readiness) }
        case .upstream:
            if let index = slab.find(event.key) { upstreamEvent(index, event.readiness) }
        case .listener:
            acceptAll(listeners[event.key.index])
        case .control:
            mailbox._withUnsafeGuaranteedRef { _ = cl_eventfd_clear($0.wakeDescriptor.number) }
        }
    }

    private mutating func runQueue() {
        var rounds = queue.count
        while rounds > 0, let index = queue.pop() {
            rounds -= 1
            guard slab.slots[index].phase != .free, slab.slots[index].marks.contains(.queued) else { continue }
            slab.slots[index].marks.remove(.queued)
            if slab.slots[index].phase == .relaying { pumpBoth(index) }
        }
    }

    /// Asks for another turn for a connection that has used up its share of this one.
    mutating func enqueue(_ index: Int) {
        guard !slab.slots[index].marks.contains(.queued) else { return }
        if queue.push(index) { slab.slots[index].marks.insert(.queued) }
    }

    // MARK: Orders

    private mutating func obeyMailbox() {
        let (wanted, offered) = mailbox._withUnsafeGuaranteedRef { ($0.order, $0.offered) }
        if let offered, offered != adopted, snapshots.adopt(offered) { adopted = offered }
        if let offer = mailbox._withUnsafeGuaranteedRef({ $0.workerOffer }), offer.pointee.snapshot != adopted,
            snapshots.adopt(offer.pointee.snapshot)
        {
            adopted = offer.pointee.snapshot
            if listenersOpen { syncListeners(offer.pointee.listeners) }
        }
        let generation = adopted.pointee.generation
        mailbox._withUnsafeGuaranteedRef { $0.setAdoptedGeneration(generation) }
        let oldest = snapshots.oldestGeneration
        mailbox._withUnsafeGuaranteedRef { $0.setOldestGeneration(oldest) }
        guard wanted > order else { return }
        order = wanted
        drainListeners()
        if order == .stop { endAll(RuntimeReason.drainDeadline) }
    }

    /// Takes what is queued already, so that no client that was told "connected" is reset, then stops listening.
    private mutating func drainListeners() {
        guard listenersOpen else { return }
        for listener in listeners[..<listenerCount] where listener.descriptor.isOpen {
            if order == .drain { acceptAll(listener, limit: settings.backlog) }
        }
        closeListeners()
    }

    private mutating func syncListeners(_ wanted: FrozenArray<WorkerListener>) {
        for i in 0..<listenerCount {
            let old = listeners[i]
            if let same = wanted.buffer.first(where: { $0.descriptor == old.descriptor }) {
                listeners[i] = same
            } else if old.descriptor.isOpen {
                acceptAll(old, limit: settings.backlog)
                kernel.unwatch(old.descriptor)
                kernel.close(old.descriptor)
                listeners[i] = WorkerListener(descriptor: .none, spec: old.spec, bound: old.bound, index: old.index)
            }
        }
        for new in wanted.buffer where !listeners[..<listenerCount].contains(where: { $0.descriptor == new.descriptor })
        {
            listeners[listenerCount] = new
            _ = kernel.watchLevel(new.descriptor, EventKey(.listener, index: listenerCount, generation: 0))
            listenerCount += 1
        }
    }

    private mutating func closeListeners() {
        guard listenersOpen else { return }
        listenersOpen = false
        for listener in listeners[..<listenerCount] where listener.descriptor.isOpen {
            kernel.unwatch(listener.descriptor)
            kernel.close(listener.descriptor)
        }
    }

    private mutating func endAll(_ reason: RuntimeReason) {
        for index in 0..<slab.extent where slab.slots[index].phase != .free {
            finish(index, reason.code, .reset)
        }
    }
}

/// Indices of slots that have more to do without a new event. One entry per slot at most, and one stale one per slot
/// that was reused within a turn.
struct RunQueue: ~Copyable {
    private let items: UnsafeMutableBufferPointer<Int32>
    private var head = 0
    private(set) var count = 0

    init(capacity: Int) { items = .allocate(capacity: capacity * 2 + 1024) }
    deinit { items.deallocate() }

    var isEmpty: Bool { count == 0 }

    mutating func push(_ index: Int) -> Bool {
        guard count < items.count else { return false }
        items.initializeElement(at: (head + count) % items.count, to: Int32(index))
        count += 1
        return true
    }

    mutating func pop() -> Int? {
        guard count > 0 else { return nil }
        let item = items[head]
        head = (head + 1) % items.count
        count -= 1
        return Int(item)
    }
}

/// Decides whether to write right after `connect` without waiting for the event: yes while it works, and now and then
/// to find out whether it works again.
struct EagerSend {
    private var works = true
    private var skipped: UInt8 = 0

    mutating func shouldTry() -> Bool {
        if works { return true }
        skipped &+= 1
        return skipped % 64 == 0
    }
    mutating func learn(_ worked: Bool) { works = worked }
}
