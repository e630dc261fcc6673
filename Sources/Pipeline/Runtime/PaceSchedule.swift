import Pipeline

/// Timers of connections without events: those that wait for their rate (R20), and those whose bulk stream coalesces in
/// its source's socket (docs/adr/0031).
struct PaceSchedule: ~Copyable {
    private var queue: PaceQueue
    /// How long a bulk stream may coalesce; zero: not at all.
    private let coalesce: TimeSpan
    /// How many streams coalesce now.
    private(set) var coalescing = 0

    init(connections: Int, coalesce: TimeSpan) {
        queue = PaceQueue(capacity: connections)
        self.coalesce = coalesce
    }

    /// The earliest deadline; nil: no connection waits.
    var next: Instant? { queue.next }

    /// Wakes `index` at `deadline`; an earlier deadline of it stays.
    mutating func wake(_ slots: UnsafeMutablePointer<Slot>, _ index: Int, at deadline: Instant) {
        queue.wake(slots, index, at: deadline)
    }

    /// Removes and returns the next one that is due; nil: none.
    mutating func popDue(_ slots: UnsafeMutablePointer<Slot>, now: Instant) -> Int? { queue.popDue(slots, now: now) }

    mutating func remove(_ slots: UnsafeMutablePointer<Slot>, _ index: Int) { queue.remove(slots, index) }

    // MARK: Coalescing

    /// Whether a stream of large reads starts to coalesce.
    func mayBegin(_ flow: UnsafeMutablePointer<Flow>) -> Bool {
        coalesce > .zero && !flow.pointee.state.contains(.coalescing)
    }

    /// - Parameter burst: the most bytes for its sink at once while other streams coalesce too.
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

    /// The source's socket has less than its low-water mark. False: the stream pauses, and its mark is reset.
    mutating func awaitMore(
        _ slots: UnsafeMutablePointer<Slot>, _ index: Int, _ flow: UnsafeMutablePointer<Flow>, _ now: Instant
    ) -> Bool {
        guard flow.pointee.state.contains(.coalescing) else { return true }
        guard flow.pointee.state.contains(.splicedLately) else { return false }
        queue.wake(slots, index, at: now + coalesce)
        return true
    }

    /// A connection is due. A stream that moved since the last time continues to coalesce; otherwise what it has is
    /// read now.
    mutating func due(_ slots: UnsafeMutablePointer<Slot>, _ index: Int, _ now: Instant) {
        let upGoesOn = PaceSchedule.goOn(&slots[index].up)
        let downGoesOn = PaceSchedule.goOn(&slots[index].down)
        if upGoesOn || downGoesOn { queue.wake(slots, index, at: now + coalesce) }
    }

    private static func goOn(_ flow: inout Flow) -> Bool {
        guard flow.state.contains(.coalescing) else { return false }
        if flow.state.contains(.splicedLately) {
            flow.state.remove(.splicedLately)
            return true
        }
        flow.state.insert(.readable)
        return false
    }
}

/// Connections that wait for their rate, by deadline; among equals the longest waiting first. A separate heap: its
/// deadlines are many, short, and finer than the timer wheel's tick.
struct PaceQueue: ~Copyable {
    private struct Entry {
        var deadline: UInt64
        var order: UInt32
        var index: Int32
        static func < (a: Entry, b: Entry) -> Bool {
            // The counter may wrap: only the order among current entries matters.
            a.deadline != b.deadline ? a.deadline < b.deadline : Int32(bitPattern: a.order &- b.order) < 0
        }
        func note(_ place: Int, _ slots: UnsafeMutablePointer<Slot>) { slots[Int(index)].pacePlace = Int32(place) }
    }

    private let heap: UnsafeMutableBufferPointer<Entry>
    private(set) var count = 0
    private var lastOrder: UInt32 = 0

    init(capacity: Int) { heap = .allocate(capacity: capacity) }
    deinit { heap.deallocate() }

    /// The earliest deadline; nil: no connection waits.
    var next: Instant? { count > 0 ? Instant(nanoseconds: heap[0].deadline) : nil }

    /// Wakes `index` at `deadline`; an earlier deadline of it stays.
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
        assert(count < heap.count, "S21: no room for a connection that waits for its rate")
        guard count < heap.count else { return }
        heap.initializeElement(
            at: count,
            to: Entry(deadline: deadline.nanoseconds, order: slots[index].paceOrder, index: Int32(index)))
        count += 1
        rise(slots, count - 1)
    }

    /// Removes and returns the next one that is due; nil: none.
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
