import Synchronization

/// How many connections hold something now: a route, a backend, an entry of a limit's table. Whoever adds one has the
/// runtime take it back at the connection's end (``Effects/reserve(_:)``).
///
/// Threading: any; atomic. Ownership: whoever owns the thing that is counted keeps it for as long as a connection can
/// hold it.
public struct ReservationCount: ~Copyable, Sendable {
    private let value = Atomic<UInt32>(0)
    public init() {}

    /// Who reads zero sees all that the last holder did before it let go.
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

/// What one connection holds, to be given back at its end: trivially copyable, a handful.
@frozen public struct Reservations: @unchecked Sendable {
    public static let capacity = 4
    private var items: InlineArray<4, UnsafePointer<ReservationCount>?>

    public init() { items = InlineArray(repeating: nil) }

    /// False if there is no room: the caller must take its count back, and refuse.
    public mutating func append(_ count: UnsafePointer<ReservationCount>) -> Bool {
        for i in 0..<Reservations.capacity where items[i] == nil {
            items[i] = count
            return true
        }
        return false
    }
    /// Takes every count back, once.
    public mutating func release() {
        for i in 0..<Reservations.capacity {
            items[i]?.pointee.remove()
            items[i] = nil
        }
    }
}

/// A rate of bytes shared by connections and workers: bytes are charged after they were moved, and nobody reads on while
/// the charge is not refilled by time. Exact in the long run; a burst is overshot by one read a connection at most.
///
/// Threading: any; relaxed atomics. Ownership: as ``ReservationCount``.
public struct ByteBucket: ~Copyable {
    /// Nanoseconds a byte costs, times 2^20; 0: unlimited.
    private let cost: UInt64
    /// How far the charge may run ahead of the clock, in nanoseconds.
    private let burst: UInt64
    /// What one read of a connection may take while no other waits, 1,460...65,536 bytes: about what passes in 50 ms, so
    /// that a slow rate is a trickle and no row of lumps.
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

    /// A flow waits for its share from now on, until it leaves.
    public func join() { line.wrappingAdd(1, ordering: .relaxed) }
    public func leave() { line.wrappingSubtract(1, ordering: .relaxed) }
    /// How many wait; at least 1.
    private var waiting: UInt64 { UInt64(max(1, line.load(ordering: .relaxed))) }

    /// The most bytes that one read may take: fewer, the more wait, so that the line is not longer for it.
    public func piece(_ now: Instant) -> Int {
        isCrowded(now) ? max(ByteBucket.leastPiece, quantum / Int(waiting)) : quantum
    }
    private static var leastPiece: Int { 256 }

    /// How long a flow that has read so many bytes leaves the rate to the others that wait.
    public func delay(_ bytes: Int, _ now: Instant) -> TimeSpan {
        guard isCrowded(now) else { return .zero }
        let (product, overflow) = price(bytes).multipliedReportingOverflow(by: waiting)
        return TimeSpan(nanoseconds: overflow ? .max >> 2 : product)
    }

    /// Several wait, and what they wait for is used up: each reads in its turn only. Where something is left over it is
    /// whoever comes first's.
    public func isCrowded(_ now: Instant) -> Bool {
        guard cost > 0, line.load(ordering: .relaxed) > 1 else { return false }
        let (soon, overflow) = refilledAt.load(ordering: .relaxed).addingReportingOverflow(ByteBucket.leftOver)
        return overflow || soon > now.nanoseconds + burst
    }
    /// What passes in this time may be left over: nanoseconds.
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

    /// True if nothing is owed: the whole burst is there.
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

    /// True if nothing is owed either way.
    public func isRefilled(_ now: Instant) -> Bool { up.isRefilled(now) && down.isRefilled(now) }
}

/// The byte rates that one connection obeys. Each bucket's owner must be held (``Effects/reserve(_:)``) by the same
/// connection, so that it outlives it.
@frozen public struct ConnectionBuckets: @unchecked Sendable {
    public static let capacity = 4
    private var items: InlineArray<4, UnsafePointer<ByteBuckets>?>
    public private(set) var count: UInt8 = 0

    public init() { items = InlineArray(repeating: nil) }

    @inlinable public var isEmpty: Bool { count == 0 }
    /// False if there is no room.
    public mutating func append(_ bucket: UnsafePointer<ByteBuckets>) -> Bool {
        guard Int(count) < ConnectionBuckets.capacity else { return false }
        items[Int(count)] = bucket
        count += 1
        return true
    }
    public subscript(_ index: Int) -> UnsafePointer<ByteBuckets>? {
        index >= 0 && index < Int(count) ? items[index] : nil
    }
}
