import Pipeline

/// Deadlines of slots: a hashed wheel whose lists run through the slots themselves, one deadline a slot. Arming and
/// disarming are O(1) and allocate nothing; a deadline further away than one turn stays in its bucket for another lap.
struct TimerWheel: ~Copyable {
    /// About 8 ms: finer than any deadline that an operator can set matters.
    static let tickShift: UInt64 = 23
    static let buckets = 4096

    private let heads: UnsafeMutableBufferPointer<Int32>
    private let occupied: UnsafeMutableBufferPointer<UInt64>
    private var tick: UInt64
    private(set) var armed = 0

    init(now: Instant) {
        heads = .allocate(capacity: TimerWheel.buckets)
        heads.initialize(repeating: Flow.none)
        occupied = .allocate(capacity: TimerWheel.buckets / 64)
        occupied.initialize(repeating: 0)
        tick = now.nanoseconds >> TimerWheel.tickShift
    }

    deinit {
        heads.deallocate()
        occupied.deallocate()
    }

    private static func bucket(_ tick: UInt64) -> Int { Int(tick & UInt64(buckets - 1)) }

    /// Sets or moves the deadline of `index`.
    mutating func arm(_ slots: UnsafeMutablePointer<Slot>, _ index: Int, at deadline: Instant) {
        disarm(slots, index)
        // One tick later than the deadline's own, so that a bucket that is due holds only deadlines that have passed.
        let due = max((deadline.nanoseconds >> TimerWheel.tickShift) &+ 1, tick &+ 1)
        let bucket = TimerWheel.bucket(due)
        let head = heads[bucket]
        slots[index].deadline = deadline
        slots[index].timerBucket = Int32(bucket)
        slots[index].timerNext = head
        slots[index].timerPrevious = Flow.none
        if head != Flow.none { slots[Int(head)].timerPrevious = Int32(index) }
        heads[bucket] = Int32(index)
        occupied[bucket / 64] |= 1 << UInt64(bucket % 64)
        armed += 1
    }

    mutating func disarm(_ slots: UnsafeMutablePointer<Slot>, _ index: Int) {
        let bucket = Int(slots[index].timerBucket)
        guard bucket >= 0 else { return }
        let next = slots[index].timerNext
        let previous = slots[index].timerPrevious
        if previous == Flow.none { heads[bucket] = next } else { slots[Int(previous)].timerNext = next }
        if next != Flow.none { slots[Int(next)].timerPrevious = previous }
        if heads[bucket] == Flow.none { occupied[bucket / 64] &= ~(1 << UInt64(bucket % 64)) }
        slots[index].timerBucket = Flow.none
        armed -= 1
    }

    /// The next slot whose deadline has passed, disarmed; nil when there is none left. Call until nil.
    mutating func expired(_ slots: UnsafeMutablePointer<Slot>, now: Instant) -> Int? {
        let target = now.nanoseconds >> TimerWheel.tickShift
        if armed == 0 {
            tick = max(tick, target)
            return nil
        }
        // After a long sleep one lap is enough to meet every bucket.
        if target > tick, target - tick > UInt64(TimerWheel.buckets) { tick = target - UInt64(TimerWheel.buckets) }
        while true {
            if let found = firstDue(slots, bucket: TimerWheel.bucket(tick), now: now) {
                disarm(slots, found)
                return found
            }
            guard tick < target else { return nil }
            tick += 1
        }
    }

    private func firstDue(_ slots: UnsafeMutablePointer<Slot>, bucket: Int, now: Instant) -> Int? {
        var index = heads[bucket]
        while index != Flow.none {
            if slots[Int(index)].deadline <= now { return Int(index) }
            index = slots[Int(index)].timerNext
        }
        return nil
    }

    /// How long a worker may sleep before ``expired(_:now:)`` could have something; nil: no deadline is armed.
    func sleep(now: Instant) -> TimeSpan? {
        guard armed > 0 else { return nil }
        let first = TimerWheel.bucket(tick &+ 1)
        let words = TimerWheel.buckets / 64
        // The first word is met twice: its high bits first, its low bits after a whole turn.
        for step in 0...words {
            let word = (first / 64 + step) % words
            var bits = occupied[word]
            if step == 0 { bits &= ~0 << UInt64(first % 64) }
            guard bits != 0 else { continue }
            let bucket = word * 64 + bits.trailingZeroBitCount
            let distance = (bucket - first + TimerWheel.buckets) % TimerWheel.buckets + 1
            return Instant(nanoseconds: (tick &+ UInt64(distance)) << TimerWheel.tickShift).since(now)
        }
        return .zero
    }
}
