import Pipeline

/// When connections are looked after that no event tells of: those that wait for their rate (R20), and those that have a bulk
/// stream coalesce in its source's socket (docs/adr/0031).
struct PaceSchedule: ~Copyable {
    private var queue: PaceQueue
    /// How long a bulk stream may coalesce; zero: not at all.
    private let coalesce: TimeSpan
    /// How many streams do.
    private(set) var coalescing = 0

    init(connections: Int, coalesce: TimeSpan) {
        queue = PaceQueue(capacity: connections)
        self.coalesce = coalesce
    }

    /// When somebody is to be woken; nil: nobody waits.
    var next: Instant? { queue.next }

    /// Has `index` woken at `deadline`, or earlier if it is to be woken earlier already.
    mutating func wake(_ slots: UnsafeMutablePointer<Slot>, _ index: Int, at deadline: Instant) {
        queue.wake(slots, index, at: deadline)
    }

    /// The next whose time has come, taken out; nil: nobody's has.
    mutating func popDue(_ slots: UnsafeMutablePointer<Slot>, now: Instant) -> Int? { queue.popDue(slots, now: now) }

    mutating func remove(_ slots: UnsafeMutablePointer<Slot>, _ index: Int) { queue.remove(slots, index) }

    // MARK: Coalescing

    /// Whether a stream that comes in large pieces is to begin.
    func mayBegin(_ flow: UnsafeMutablePointer<Flow>) -> Bool {
        coalesce > .zero && !flow.pointee.state.contains(.coalescing)
    }

    /// - Parameter burst: what its sink is handed at once while others coalesce too.
    mutating func begin(_ flow: UnsafeMutablePointer<Flow>, burst: UInt32) {
        flow.pointee.state.insert(.coalescing)
        flow.pointee.burst = burst
        coalescing += 1
    }

    /// False: it did not.
    @discardableResult
    mutating func leave(_ flow: UnsafeMutablePointer<Flow>) -> Bool {
        guard flow.pointee.state.contains(.coalescing) else { return false }
        flow.pointee.state.remove(.coalescing)
        coalescing -= 1
        return true
    }

    /// The source's socket is empty, or has less than is told of. False: the stream pauses, and is to be told of at once again.
    mutating func awaitMore(
        _ slots: UnsafeMutablePointer<Slot>, _ index: Int, _ flow: UnsafeMutablePointer<Flow>, _ now: Instant
    ) -> Bool {
        guard flow.pointee.state.contains(.coalescing) else { return true }
        guard flow.pointee.state.contains(.moved) else { return false }
        queue.wake(slots, index, at: now + coalesce)
        return true
    }

    /// The time of a connection has come. A stream that has moved since the last time goes on; one that has not is read to what
    /// it has.
    mutating func due(_ slots: UnsafeMutablePointer<Slot>, _ index: Int, _ now: Instant) {
        let upGoesOn = PaceSchedule.goOn(&slots[index].up)
        let downGoesOn = PaceSchedule.goOn(&slots[index].down)
        if upGoesOn || downGoesOn { queue.wake(slots, index, at: now + coalesce) }
    }

    private static func goOn(_ flow: inout Flow) -> Bool {
        guard flow.state.contains(.coalescing) else { return false }
        if flow.state.contains(.moved) {
            flow.state.remove(.moved)
            return true
        }
        flow.state.insert(.readable)
        return false
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
