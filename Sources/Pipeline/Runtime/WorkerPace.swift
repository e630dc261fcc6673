import Pipeline

/// Byte rates (R20): a flow that has pacers reads only while each of them is paid off, a bounded piece at a time, and
/// otherwise waits without a turn of its own until its time has come.
///
/// Rates are exact in the long run although nobody wakes on time: what a flow reads late is charged from when it was
/// entitled to read, so that lateness is made up for (docs/adr/0007). Flows that share a rate have even shares of it, whichever
/// workers they are on: after each piece a flow leaves the rate alone for as long as it takes each of the others to read one.
extension Worker {
    /// Flows that wait are looked after at most so often: the finest that `epoll_wait` can sleep.
    static var shortestPause: TimeSpan { .milliseconds(1) }
    /// What is late by more than this is lost: a machine that was suspended doesn't come back with a flood.
    static var longestCredit: UInt64 { 100_000_000 }

    /// The bytes that a paced flow may read at once.
    func quantum(_ index: Int, _ source: Side) -> Int {
        guard !slab.slots[index].pacers.isEmpty else { return Self.bufferSize }
        let pacers = slab.slots[index].pacers
        var least = Self.bufferSize
        for i in 0..<Int(pacers.count) {
            guard let pacer = pacers[i] else { continue }
            least = min(least, source == .client ? pacer.pointee.up.piece(now) : pacer.pointee.down.piece(now))
        }
        return least
    }

    /// True if the flow must wait for its rate, or for its share of it: then it is woken when its time has come.
    mutating func park(_ index: Int, _ source: Side) -> Bool {
        let slot = slab.slots + index
        let flow = slab.flow(index, source)
        let pacers = slot.pointee.pacers
        var until: Instant?
        var isCrowded = false
        for i in 0..<Int(pacers.count) {
            guard let pacer = pacers[i] else { continue }
            let ready = source == .client ? pacer.pointee.up.readyAt(now) : pacer.pointee.down.readyAt(now)
            if let ready { until = max(until ?? ready, ready) }
            if source == .client ? pacer.pointee.up.isCrowded(now) : pacer.pointee.down.isCrowded(now) {
                isCrowded = true
            }
        }
        if isCrowded, flow.pointee.entitled > now { until = max(until ?? now, flow.pointee.entitled) }
        guard let until else { return false }
        if flow.pointee.entitled.nanoseconds == 0 { joinLine(index, source) }
        flow.pointee.entitled = until
        paces.wake(slab.slots, index, at: max(until, now + Self.shortestPause))
        return true
    }

    /// The flow is one of those that wait for the rate: as long as it is ``Flow/entitled`` to something.
    private func joinLine(_ index: Int, _ source: Side) {
        let pacers = slab.slots[index].pacers
        for i in 0..<Int(pacers.count) {
            if source == .client { pacers[i]?.pointee.up.join() } else { pacers[i]?.pointee.down.join() }
        }
    }

    /// The flow has nothing to read, or nobody to write to: others needn't wait for it.
    func leaveLine(_ index: Int, _ source: Side) {
        let flow = slab.flow(index, source)
        guard flow.pointee.entitled.nanoseconds != 0 else { return }
        flow.pointee.entitled = Instant(nanoseconds: 0)
        let pacers = slab.slots[index].pacers
        for i in 0..<Int(pacers.count) {
            if source == .client { pacers[i]?.pointee.up.leave() } else { pacers[i]?.pointee.down.leave() }
        }
    }

    /// Charges what was read, once, to each pacer.
    func charge(_ index: Int, _ source: Side, _ bytes: Int) {
        let slot = slab.slots + index
        guard bytes > 0, !slot.pointee.pacers.isEmpty else { return }
        let flow = slab.flow(index, source)
        let entitled = flow.pointee.entitled.nanoseconds
        let earliest = now.nanoseconds > Self.longestCredit ? now.nanoseconds - Self.longestCredit : 0
        let at = entitled == 0 ? now : Instant(nanoseconds: min(max(entitled, earliest), now.nanoseconds))
        let pacers = slot.pointee.pacers
        var turn = TimeSpan.zero
        for i in 0..<Int(pacers.count) {
            guard let pacer = pacers[i] else { continue }
            // As the rate stood when it was read: what was free then has no turn.
            if source == .client {
                turn = max(turn, pacer.pointee.up.turn(bytes, now))
                pacer.pointee.up.charge(bytes, at: at)
            } else {
                turn = max(turn, pacer.pointee.down.turn(bytes, now))
                pacer.pointee.down.charge(bytes, at: at)
            }
        }
        if entitled != 0 { flow.pointee.entitled = at + turn }
        // Whoever has had its turn goes to the end of the line.
        slot.pointee.paceOrder = 0
    }
}

/// Connections that wait for their rate, the first to be woken first; among equals the one that waits longest. A heap in
/// memory of its own, beside the wheel: its deadlines are many, short, and finer than the wheel's tick.
struct PaceQueue: ~Copyable {
    private struct Entry {
        var deadline: UInt64
        var order: UInt32
        var index: Int32
        static func < (a: Entry, b: Entry) -> Bool {
            // The order may wrap: it only has to be right among those who wait at the same time.
            a.deadline != b.deadline ? a.deadline < b.deadline : Int32(bitPattern: a.order &- b.order) < 0
        }
        func note(_ place: Int, _ slots: UnsafeMutablePointer<Slot>) { slots[Int(index)].pacePlace = Int32(place) }
    }

    private let heap: UnsafeMutableBufferPointer<Entry>
    private(set) var count = 0
    private var lastOrder: UInt32 = 0

    init(capacity: Int) { heap = .allocate(capacity: capacity) }
    deinit { heap.deallocate() }

    /// When somebody is to be woken; nil: nobody waits.
    var next: Instant? { count > 0 ? Instant(nanoseconds: heap[0].deadline) : nil }

    /// Has `index` woken at `deadline`, or earlier if it is to be woken earlier already.
    mutating func wake(_ slots: UnsafeMutablePointer<Slot>, _ index: Int, at deadline: Instant) {
        if slots[index].paceOrder == 0 {
            lastOrder = lastOrder == .max ? 1 : lastOrder + 1
            slots[index].paceOrder = lastOrder
        }
        let place = Int(slots[index].pacePlace)
        guard place < 0 else {
            guard deadline.nanoseconds < heap[place].deadline else { return }
            heap[place].deadline = deadline.nanoseconds
            rise(slots, place)
            return
        }
        assert(count < heap.count, "S21: somebody waits for a rate, and is not woken")
        guard count < heap.count else { return }
        heap.initializeElement(
            at: count,
            to: Entry(deadline: deadline.nanoseconds, order: slots[index].paceOrder, index: Int32(index)))
        count += 1
        rise(slots, count - 1)
    }

    /// The next whose time has come, taken out; nil: nobody's has.
    mutating func popDue(_ slots: UnsafeMutablePointer<Slot>, now: Instant) -> Int? {
        guard count > 0, heap[0].deadline <= now.nanoseconds else { return nil }
        let index = Int(heap[0].index)
        remove(slots, index)
        return index
    }

    mutating func remove(_ slots: UnsafeMutablePointer<Slot>, _ index: Int) {
        let place = Int(slots[index].pacePlace)
        guard place >= 0 else { return }
        slots[index].pacePlace = Flow.none
        count -= 1
        guard place < count else { return }
        heap[place] = heap[count]
        slots[Int(heap[place].index)].pacePlace = Int32(place)
        rise(slots, place)
        sink(slots, Int(slots[Int(heap[place].index)].pacePlace))
    }

    private func rise(_ slots: UnsafeMutablePointer<Slot>, _ place: Int) {
        BinaryHeap.rise(waiting, from: place, precedes: { $0 < $1 }, moved: { $0.note($1, slots) })
    }

    private func sink(_ slots: UnsafeMutablePointer<Slot>, _ place: Int) {
        BinaryHeap.sink(waiting, from: place, precedes: { $0 < $1 }, moved: { $0.note($1, slots) })
    }

    private var waiting: UnsafeMutableBufferPointer<Entry> { UnsafeMutableBufferPointer(rebasing: heap[..<count]) }
}
