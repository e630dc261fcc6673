import Pipeline
import Synchronization

/// The word of a slot that everything turns on: in which phase it is, and a number that only grows. See docs/adr/0009.
///
/// A live slot's number is GCRA's theoretical arrival time: when its burst is whole again, in nanoseconds on the
/// monotonic clock. The other phases carry the number that the slot had before, so that a delayed thread can't mistake
/// a new word for an old one.
enum LimitWord {
    private static let notLive: UInt64 = 1 << 63
    private static let phaseMask: UInt64 = 7 << 61
    private static let claimedPhase: UInt64 = 4 << 61
    private static let tentativePhase: UInt64 = 5 << 61
    private static let deadPhase: UInt64 = 6 << 61
    /// The slot was never used.
    static let virgin: UInt64 = 0
    /// Numbers stay below: 36 years of nanoseconds, with room above for what is added.
    static let timeLimit: UInt64 = 1 << 60

    /// Never 0, which marks an unused slot.
    static func time(_ now: Instant) -> UInt64 { max(1, min(now.nanoseconds, timeLimit)) }
    static func isLive(_ word: UInt64) -> Bool { word & notLive == 0 && word != virgin }
    static func isTentative(_ word: UInt64) -> Bool { word & phaseMask == tentativePhase }
    static func isDead(_ word: UInt64) -> Bool { word & phaseMask == deadPhase }
    static func number(_ word: UInt64) -> UInt64 { word & ~phaseMask }

    /// Claimed by one thread, which writes its key.
    static func claimed(_ number: UInt64) -> UInt64 { claimedPhase | number }
    /// Has its key, and any thread may decide whether another slot has the same.
    static func tentative(_ number: UInt64) -> UInt64 { tentativePhase | number }
    /// Free again. Its number is one more than before, so that later words are new.
    static func dead(after number: UInt64) -> UInt64 { deadPhase | (number &+ 1) }
}

/// One of a table's slots: trivially copyable, valid as long as the table. What it keeps of a key has 32 bytes; a table
/// with byte rates has a ``ByteBuckets`` behind each (48 more).
struct LimitSlot {
    static let bytes = 32

    let index: Int
    /// Part of the key's hash; 0: never used. All tags of a bucket share a cache line, so that a key that isn't there
    /// costs one.
    let tag: UnsafePointer<Atomic<UInt64>>
    let entry: UnsafeRawPointer

    @inline(__always) private func field(_ index: Int) -> UnsafePointer<Atomic<UInt64>> {
        entry.assumingMemoryBound(to: Atomic<UInt64>.self) + index
    }
    @inline(__always) var reservations: UnsafePointer<ReservationCount> {
        (entry + 24).assumingMemoryBound(to: ReservationCount.self)
    }
    /// Only of tables with byte rates.
    @inline(__always) var bucket: UnsafePointer<ByteBuckets> {
        (entry + LimitSlot.bytes).assumingMemoryBound(to: ByteBuckets.self)
    }

    @inline(__always) func holdsKey(_ key: LimitKeyBits) -> Bool {
        field(0).pointee.load(ordering: .relaxed) == key.high && field(1).pointee.load(ordering: .relaxed) == key.low
    }
    /// Only by the thread that has claimed the slot.
    func setKey(_ key: LimitKeyBits) {
        field(0).pointee.store(key.high, ordering: .relaxed)
        field(1).pointee.store(key.low, ordering: .relaxed)
    }

    /// See ``LimitWord``.
    @inline(__always) var word: UInt64 { field(2).pointee.load(ordering: .sequentiallyConsistent) }
    @inline(__always) func exchange(_ expected: UInt64, _ desired: UInt64) -> (done: Bool, now: UInt64) {
        let (done, now) = field(2).pointee.compareExchange(
            expected: expected, desired: desired, ordering: .sequentiallyConsistent)
        return (done, now)
    }
    /// Only by the thread that has claimed the slot.
    func publish(tag: UInt64, word: UInt64) {
        self.tag.pointee.store(tag, ordering: .sequentiallyConsistent)
        field(2).pointee.store(word, ordering: .sequentiallyConsistent)
    }
}

/// A key as a table stores it, whole: two keys never share an entry.
public struct LimitKeyBits: Sendable, Hashable {
    let high: UInt64
    let low: UInt64
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
}

/// Where a key may be: two buckets, and the tag that it has there.
struct LimitPlace {
    let first: Int
    let second: Int
    let tag: UInt64
}
