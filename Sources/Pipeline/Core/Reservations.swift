import Synchronization

/// The number of connections that hold a route, a backend, or an entry of a limit's table. A stage that adds one hands
/// it to the runtime, which releases it at the connection's end (``Effects/reserve(_:)``).
///
/// Threading: any; atomic. Ownership: the owner of the counted object keeps it for as long as a connection can hold it.
public struct ReservationCount: ~Copyable, Sendable {
    private let value = Atomic<UInt32>(0)
    public init() {}

    /// A reader of zero sees all writes of the last holder (acquire/release).
    public var current: UInt32 { value.load(ordering: .acquiring) }

    /// Counts one more, unless there are `limit` already. Exact whichever workers ask at once.
    public func tryAdd(limit: UInt32) -> Bool {
        var seen = value.load(ordering: .relaxed)
        while seen < limit {
            let (done, now) = value.weakCompareExchange(expected: seen, desired: seen &+ 1, ordering: .relaxed)
            if done { return true }
            seen = now
        }
        return false
    }
    public func add() { value.wrappingAdd(1, ordering: .relaxed) }
    /// Takes one back; a count of zero stays zero.
    public func remove() {
        var seen = value.load(ordering: .relaxed)
        while seen > 0 {
            let (done, now) = value.weakCompareExchange(expected: seen, desired: seen &- 1, ordering: .releasing)
            if done { return }
            seen = now
        }
    }
}

/// The reservations of one connection, released at its end: trivially copyable, a handful.
@frozen public struct Reservations: @unchecked Sendable {
    public static let capacity = 4
    private var items: InlineArray<4, UnsafePointer<ReservationCount>?>

    public init() { items = InlineArray(repeating: nil) }

    /// False if there is no room: the caller must release its count, and refuse.
    public mutating func append(_ count: UnsafePointer<ReservationCount>) -> Bool {
        for i in 0..<Reservations.capacity where items[i] == nil {
            items[i] = count
            return true
        }
        return false
    }
    public func contains(_ count: UnsafePointer<ReservationCount>) -> Bool {
        for i in 0..<Reservations.capacity where items[i] == count { return true }
        return false
    }
    /// Releases one of them, if it is there.
    public mutating func remove(_ count: UnsafePointer<ReservationCount>) {
        for i in 0..<Reservations.capacity where items[i] == count {
            count.pointee.remove()
            items[i] = nil
            return
        }
    }
    /// Releases every count, once.
    public mutating func release() {
        for i in 0..<Reservations.capacity {
            items[i]?.pointee.remove()
            items[i] = nil
        }
    }
}

/// A token bucket of bytes, shared by connections and workers: bytes are charged after they were moved, and reads pause
/// until the charge is refilled. Exact in the long run; each connection overshoots a burst by one read at most.
///
/// Threading: any; relaxed atomics. Ownership: as ``ReservationCount``.
public struct ByteBucket: ~Copyable {
    /// Nanoseconds a byte costs, times 2^20; 0: unlimited.
    private let cost: UInt64
    /// How far the charge may run ahead of the clock, in nanoseconds.
    private let burst: UInt64
    /// The most bytes of one read while no other flow waits, 1,460...65,536: about 50 ms of the rate, so that a slow
    /// rate flows evenly.
    private let quantum: Int
    /// Flows that wait for their share, on any worker.
    private let line = Atomic<UInt32>(0)
    /// When all that was charged is refilled: nanoseconds on the monotonic clock.
    private let refilledAt = Atomic<UInt64>(0)

    /// - Parameters:
    ///   - bytesPerSecond: 0: unlimited.
    ///   - burst: bytes that may pass at once after a pause.
    public init(bytesPerSecond: UInt64, burst: UInt64) {
        cost = bytesPerSecond == 0 ? 0 : max(1, UInt64(1_000_000_000 << 20) / bytesPerSecond)
        let (product, overflow) = burst.multipliedReportingOverflow(by: cost)
        self.burst = overflow ? .max >> 1 : product >> 20
        quantum = bytesPerSecond == 0 ? 65536 : Int(min(65536, max(1460, bytesPerSecond / 20)))
    }

    public var isUnlimited: Bool { cost == 0 }

    // MARK: Shares

    /// Adds a waiting flow, until it leaves.
    public func join() { line.wrappingAdd(1, ordering: .relaxed) }
    public func leave() { line.wrappingSubtract(1, ordering: .relaxed) }
    /// How many wait; at least 1.
    private var waiting: UInt64 { UInt64(max(1, line.load(ordering: .relaxed))) }

    /// The most bytes of one read: fewer the more flows wait, so that the queue's total time stays the same.
    public func piece(_ now: Instant) -> Int {
        isCrowded(now) ? max(ByteBucket.leastPiece, quantum / Int(waiting)) : quantum
    }
    private static var leastPiece: Int { 256 }

    /// How long a flow that has read `bytes` pauses for the other waiting flows.
    public func delay(_ bytes: Int, _ now: Instant) -> TimeSpan {
        guard isCrowded(now) else { return .zero }
        let (product, overflow) = price(bytes).multipliedReportingOverflow(by: waiting)
        return TimeSpan(nanoseconds: overflow ? .max >> 2 : product)
    }

    /// True if several flows wait and the bucket is empty: each reads only in its turn. Unused capacity goes to the
    /// first flow that reads.
    public func isCrowded(_ now: Instant) -> Bool {
        guard cost > 0, line.load(ordering: .relaxed) > 1 else { return false }
        let (soon, overflow) = refilledAt.load(ordering: .relaxed).addingReportingOverflow(ByteBucket.leftOver)
        return overflow || soon > now.nanoseconds + burst
    }
    /// The tolerance for unused capacity, in nanoseconds.
    private static var leftOver: UInt64 { 100_000_000 }

    private func price(_ bytes: Int) -> UInt64 {
        let (product, overflow) = UInt64(max(0, bytes)).multipliedReportingOverflow(by: cost)
        return overflow ? .max >> 2 : product >> 20
    }

    // MARK: The rate

    /// Charges `bytes` that were moved at `now`.
    public func charge(_ bytes: Int, at now: Instant) {
        guard cost > 0, bytes > 0 else { return }
        let price = price(bytes)
        var seen = refilledAt.load(ordering: .relaxed)
        while true {
            let (sum, tooLarge) = max(seen, now.nanoseconds).addingReportingOverflow(price)
            let (done, current) = refilledAt.weakCompareExchange(
                expected: seen, desired: tooLarge ? .max : sum, ordering: .relaxed)
            if done { return }
            seen = current
        }
    }

    /// True if the bucket is full.
    public func isRefilled(_ now: Instant) -> Bool { refilledAt.load(ordering: .relaxed) <= now.nanoseconds }

    /// When the next byte may be read; nil: now.
    public func readyAt(_ now: Instant) -> Instant? {
        guard cost > 0 else { return nil }
        let refilledAt = refilledAt.load(ordering: .relaxed)
        guard refilledAt > now.nanoseconds, refilledAt - now.nanoseconds > burst else { return nil }
        return Instant(nanoseconds: refilledAt - burst)
    }
}

/// Byte rates of both directions of whatever key they belong to.
public struct ByteBuckets: ~Copyable {
    /// Client to upstream.
    public let up: ByteBucket
    /// Upstream to client.
    public let down: ByteBucket
    public init(up: consuming ByteBucket, down: consuming ByteBucket) {
        self.up = up
        self.down = down
    }

    /// True if both buckets are full.
    public func isRefilled(_ now: Instant) -> Bool { up.isRefilled(now) && down.isRefilled(now) }
}

/// The token buckets of one connection. The same connection must reserve each bucket's owner (``Effects/reserve(_:)``),
/// which keeps the bucket alive.
@frozen public struct ConnectionBuckets: @unchecked Sendable {
    public static let capacity = 4
    /// Those that there are come first. A count beside them would cost each slot eight bytes.
    @usableFromInline var items: InlineArray<4, UnsafePointer<ByteBuckets>?>

    public init() { items = InlineArray(repeating: nil) }

    @inlinable public var isEmpty: Bool { items[0] == nil }
    public var count: Int {
        var count = 0
        while count < ConnectionBuckets.capacity, items[count] != nil { count += 1 }
        return count
    }
    /// False if there is no room.
    public mutating func append(_ bucket: UnsafePointer<ByteBuckets>) -> Bool {
        let place = count
        guard place < ConnectionBuckets.capacity else { return false }
        items[place] = bucket
        return true
    }
    public subscript(_ index: Int) -> UnsafePointer<ByteBuckets>? {
        index >= 0 && index < ConnectionBuckets.capacity ? items[index] : nil
    }
}
