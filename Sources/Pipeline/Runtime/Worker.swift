import CLinux
import Pipeline
import Synchronization

/// The sizes of a worker, from the node's settings.
package struct WorkerLimits: Sendable {
    package var connections: Int
    package var blocks: Int
    package var pipes: Int
    /// Upstream sockets that wait for their next connection.
    package var idleSockets: Int
    /// Connections that wait for their first bytes.
    package var unrouted: Int
    /// Blocks for bytes that a sink does not take; the others are for first bytes.
    package var flowBlocks: Int
    /// A network with this many silent routed connections, or this many in queues, makes room when no slot is free.
    package var crowd = 16
    package init(connections: Int, blocks: Int, pipes: Int, idleSockets: Int, unrouted: Int? = nil) {
        flowBlocks = BlockPool.flowBlocks(of: blocks)
        self.unrouted = WorkerLimits.unrouted(unrouted, connections: connections, blocks: blocks)
        self.connections = connections
        self.blocks = blocks
        self.pipes = pipes
        self.idleSockets = idleSockets
    }
    /// Less than the limits of connections and blocks: silent clients never take all.
    static func unrouted(_ wanted: Int?, connections: Int, blocks: Int) -> Int {
        let share = min(connections, blocks) * 3 / 4
        return max(1, min(wanted ?? share, min(connections, blocks) - 1))
    }

    /// Blocks for relayed bytes take a quarter of the node's memory, incomplete first bytes a quarter by default, and
    /// pipes, which no cgroup counts, a quarter. The rest is for the kernel's memory of each connection.
    /// - Parameter memory: in bytes; 0: not known, and nothing changes.
    package mutating func fit(memory: UInt64, workers: Int, unroutedIsSet: Bool) {
        guard memory > 0 else { return }
        let share = Int(clamping: memory / 4) / max(1, workers)
        let blocksOfShare = max(WorkerLimits.leastBlocks, share / BlockPool.stride)
        flowBlocks = min(flowBlocks, blocksOfShare)
        if !unroutedIsSet { unrouted = min(unrouted, blocksOfShare) }
        pipes = min(pipes, max(WorkerLimits.leastPipes, share / PipePool.pipeSize))
    }

    /// The least that a node needs: 4 MiB of blocks, and two bulk streams.
    private static var leastBlocks: Int { 64 }
    private static var leastPipes: Int { 4 }

    package init(_ settings: NodeSettings) {
        self.init(
            // One during the connect, two once it relays.
            connections: settings.maxConnections, blocks: min(2 * settings.maxConnections, 16384),
            pipes: min(settings.maxConnections, 1024),
            idleSockets: min(settings.maxConnections, settings.idleUpstreamSockets),
            unrouted: settings.maxUnrouted)
    }
}

/// One worker: a loop over one epoll, its connections, and nothing shared but counters and the log ring.
///
/// Threading: every method on the worker's own thread. Ownership: it closes its listeners and every descriptor that it
/// accepted or opened. Counters, ring and mailbox outlive it; a snapshot stays valid until the next one is applied.
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
    var upstreams: UpstreamSockets
    var wheel: TimerWheel
    var paces: PaceSchedule
    /// Connections that wait for their first bytes.
    var unrouted: UnroutedTable
    let unroutedLimit: Int
    /// Routed connections whose clients have sent nothing.
    var mute: UnroutedTable
    let crowd: Int
    /// Connections that wait for a place of a limit: in the order of their turns, and by network.
    var lines: WaitingLines
    var waiting: UnroutedTable
    var shares: BlockShares
    let stash: InspectionStash
    /// The newest; valid until the next is applied.
    var snapshot: UnsafePointer<Snapshot>
    var programs: ProgramTable
    var queue: RunQueue
    /// Bytes that were moved in this iteration.
    var iterationBytes = 0
    /// The number of events in this iteration.
    var iterationEvents = 0
    var now: Instant
    var serial: UInt64 = 0
    var order = WorkerOrder.run
    /// Whether the last write right after `connect` succeeded: on fast links it does, and saves a wakeup.
    var eager = EagerSend()
    /// The one large buffer that copies go through.
    let buffer: UnsafeMutableRawBufferPointer

    var listeners: Listeners
    var drains = Drains([])
    /// This network's own NAT64 prefixes.
    let nat64: FrozenArray<Prefix>
    private let events: UnsafeMutableBufferPointer<Event>
    /// Only compared, never dereferenced: it may be freed.
    var appliedUpdate: UnsafePointer<WorkerUpdate>?
    /// The number of the last ``BackendReset`` that was carried out.
    var resetThrough: UInt64 = 0
    var appliedGeneration: UInt64
    var progress = ProgressWalk()
    var memory = MemoryShortage()
    var lifeWatch: LifeWatch
    /// Nothing reads it. A value with an atomic in it has an address; without, each call of a method that does not mutate got
    /// a copy of the whole worker, 1.6 KB, some 25 of them for a short connection (ADR 0048).
    private let addressed = Atomic<Bool>(true)

    static var bufferSize: Int { 65536 }
    static var acceptBatch: Int { 32 }

    /// - Parameter services: what the node lends to stages.
    /// - Returns: nil if memory for the limits can't be had.
    package init?(
        kernel: consuming K, settings: NodeSettings, limits: WorkerLimits, index: UInt16,
        listeners: [WorkerListener], snapshot: UnsafePointer<Snapshot>, services: Services = .none,
        counters: UnsafePointer<WorkerCounters>, ring: RecordRing, mailbox: Mailbox
    ) {
        guard let slab = Slab(capacity: limits.connections),
            let blocks = BlockPool(capacity: limits.blocks, forFlows: limits.flowBlocks),
            let upstreams = UpstreamSockets(connections: limits.connections, idleSockets: limits.idleSockets),
            let unrouted = UnroutedTable(capacity: limits.connections),
            let mute = UnroutedTable(capacity: limits.connections),
            let waiting = UnroutedTable(capacity: limits.connections),
            let lines = WaitingLines(capacity: limits.connections, worker: Int(index)),
            let shares = BlockShares(blocks: limits.blocks), let stash = InspectionStash(capacity: limits.connections)
        else { return nil }
        self.kernel = kernel
        self.settings = settings
        self.index = index
        self.counters = counters
        self.ring = .passUnretained(ring)
        self.mailbox = .passUnretained(mailbox)
        self.logs = snapshot.pointee.program.takeUnretainedValue().recordsConnections
        self.connectTimeout = settings.connectTimeout
        self.halfCloseTimeout = settings.halfCloseTimeout
        nat64 = FrozenArray(settings.nat64)
        lifeWatch = LifeWatch(timeout: settings.userTimeout)
        self.slab = slab
        self.blocks = blocks
        self.upstreams = upstreams
        self.unrouted = unrouted
        unroutedLimit = limits.unrouted
        self.mute = mute
        self.waiting = waiting
        crowd = limits.crowd
        self.lines = lines
        self.shares = shares
        self.stash = stash
        pipes = PipePool(capacity: limits.pipes)
        now = self.kernel.now()
        wheel = TimerWheel(now: now)
        paces = PaceSchedule(connections: limits.connections, coalesce: settings.coalesce)
        self.snapshot = snapshot
        programs = ProgramTable(first: snapshot, StageContext(worker: Int(index), services: services))
        appliedGeneration = snapshot.pointee.generation
        queue = RunQueue(capacity: limits.connections)
        buffer = .allocate(byteCount: Self.bufferSize, alignment: 4096)
        self.listeners = Listeners(first: listeners)
        events = .allocate(capacity: 256)
        if mailbox.wakeDescriptor.isOpen {
            _ = self.kernel.watchLevel(mailbox.wakeDescriptor, EventKey(.control, index: 0, generation: 0))
        }
    }

    deinit {
        buffer.deallocate()
        events.deallocate()
        nat64.deallocate()
    }

    /// One iteration: orders, events, the run queue, deadlines. False once the worker was told to end and has nothing
    /// left to do.
    package mutating func iterate() -> Bool {
        obeyMailbox()
        armProgress()
        if order != .run, slab.inUse == 0 {
            listeners.letGo(&kernel)
            endProgress()
            publish()
            checkOver()
            return false
        }
        upstreams.iteration &+= 1
        iterationEvents = kernel.wait(events, timeout: sleep())
        iterationBytes = 0
        now = kernel.now()
        for i in 0..<iterationEvents { handle(events[i]) }
        runQueue()
        while let index = wheel.expired(slab.slots, now: now) { deadlinePassed(index) }
        while let index = paces.popDue(slab.slots, now: now) { paceDue(index) }
        runDrains()
        runQueueReview()
        serveQueues()
        upstreams.closeOld(at: now, &kernel)
        runProgress()
        capBuffers()
        runLifeWatch()
        publish()
        return true
    }

    /// The timeout for the next wait; nil: none.
    private func sleep() -> TimeSpan? {
        guard queue.isEmpty, !progress.isWalking, !memory.isWalking, !lifeWatch.isWalking, !lines.isRung,
            lines.walk == nil
        else { return .zero }
        var sleep = wheel.sleep(now: now)
        if let next = drains.next { sleep = min(sleep ?? next.since(now), next.since(now)) }
        if let next = paces.next { sleep = min(sleep ?? next.since(now), next.since(now)) }
        if let next = progress.next { sleep = min(sleep ?? next.since(now), next.since(now)) }
        if let next = lifeWatch.next { sleep = min(sleep ?? next.since(now), next.since(now)) }
        if lines.count > 0 { sleep = min(sleep ?? lines.tick.since(now), lines.tick.since(now)) }
        if let again = listeners.wait(at: now) { sleep = min(sleep ?? again, again) }
        return sleep
    }

    /// Runs until told to end, then closes everything. The caller shuts the kernel down.
    package mutating func run() {
        while iterate() {}
        pipes.closeAll(&kernel)
        _ = upstreams.closeIdle(&kernel)
        mailbox._withUnsafeGuaranteedRef { $0.setEnded() }
    }

    /// How many streams coalesce.
    package var coalescing: Int { paces.coalescing }

    /// The kernel, once ``iterate()`` has answered false.
    package mutating func withKernel<Result>(_ body: (inout K) -> Result) -> Result { body(&kernel) }

    private mutating func publish() {
        counters.pointee.add(.wakeups)
        counters.pointee.set(.active, UInt64(slab.inUse))
        counters.pointee.set(.sniffing, UInt64(unrouted.count))
        counters.pointee.set(.queued, UInt64(lines.count))
        counters.pointee.set(.onOlderPrograms, UInt64(max(0, programs.undecidedOnOlder)))
        counters.pointee.set(.buffersInUse, UInt64(blocks.inUse))
        counters.pointee.set(.pipesInUse, UInt64(pipes.inUse))
    }

    private mutating func handle(_ event: Event) {
        switch event.key.kind {
        case .client:
            if let index = slab.find(event.key) {
                clientEvent(index, event.readiness)
                check(index)
            }
        case .upstream:
            if let index = upstreams.owner(event.key) {
                upstreamEvent(index, event.readiness)
                check(index)
            }
        case .listener:
            listenerEvent(event.key.index)
        case .control:
            mailbox._withUnsafeGuaranteedRef { _ = cl_eventfd_clear($0.wakeDescriptor.number) }
            noteRing()
        }
    }

    private mutating func listenerEvent(_ place: Int) {
        guard place < listeners.extent, let listener = listeners[place], !acceptAll(listener) else { return }
        if listeners.pauseAccepting(place, at: now, &kernel) { counters.pointee.add(.acceptPauses) }
    }

    /// Runs queued connections in turn. Once the iteration has moved its share, new events are handled before the next
    /// stream.
    private mutating func runQueue() {
        var rounds = queue.count
        while rounds > 0, let index = queue.pop() {
            rounds -= 1
            guard slab.slots[index].phase != .free, slab.slots[index].marks.contains(.inRunQueue) else { continue }
            slab.slots[index].marks.remove(.inRunQueue)
            if slab.slots[index].phase.isRelaying { pumpBoth(index) }
            check(index)
            // At least one has its turn, however much events alone have moved.
            if iterationBytes >= Self.iterationShare { return }
        }
    }

    /// Asks for another iteration for a connection that has used up its share of this one.
    mutating func enqueue(_ index: Int) {
        guard !slab.slots[index].marks.contains(.inRunQueue) else { return }
        if queue.push(index) { slab.slots[index].marks.insert(.inRunQueue) }
    }

    // MARK: Orders

    private mutating func obeyMailbox() {
        if takeFirst() { applyUpdate() }
        noteMemory()
        let wanted = mailbox._withUnsafeGuaranteedRef { $0.order }
        listeners.watchAgain(at: now, &kernel)
        guard wanted > order else { return }
        order = wanted
        drainListeners()
        if order >= .stop { endAll(order == .kill ? RuntimeReason.killed : RuntimeReason.drainDeadline) }
    }

    private mutating func endAll(_ reason: RuntimeReason) {
        for index in 0..<slab.extent where slab.slots[index].phase != .free {
            finish(index, reason.code, .reset)
        }
    }
}

/// Indices of slots with work that needs no new event. At most one entry per slot, plus one stale entry per slot that
/// was reused within an iteration.
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

/// Decides whether to write right after `connect` without waiting for the event: yes while it works, and occasionally
/// to test whether it works again.
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
