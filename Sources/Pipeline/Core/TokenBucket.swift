/// A token bucket with a burst and a long-run rate, kept as the time at which it is full again (GCRA). Times are
/// nanoseconds on one clock.
@frozen public struct TokenBucket: Sendable {
    @usableFromInline let cost: UInt64
    @usableFromInline let burst: UInt64
    @usableFromInline var refilledAt: UInt64 = 0

    /// - Parameters:
    ///   - cost: the time that one token takes to refill.
    ///   - burst: how far taken tokens may run ahead of the clock; less than `cost`: nothing is ever available.
    @inlinable public init(cost: UInt64, burst: UInt64) {
        self.cost = cost
        self.burst = burst
    }

    /// When the next may be taken.
    @inlinable public var next: Instant {
        Instant(nanoseconds: refilledAt &+ cost > burst ? refilledAt &+ cost &- burst : 0)
    }

    /// True, and taken, if one may be taken now.
    @inlinable public mutating func take(_ now: Instant) -> Bool {
        guard let after = TokenBucket.after(refilledAt, now.nanoseconds, cost: cost, burst: burst) else { return false }
        refilledAt = after
        return true
    }

    /// When the bucket is full again after taking one at `now`; nil: none is available. For callers that store the time
    /// elsewhere.
    @inlinable @inline(__always) public static func after(
        _ refilledAt: UInt64, _ now: UInt64, cost: UInt64, burst: UInt64
    ) -> UInt64? {
        let next = max(refilledAt, now) &+ cost
        return next > now &+ burst ? nil : next
    }
}
