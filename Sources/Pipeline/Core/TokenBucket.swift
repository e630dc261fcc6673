/// So many at once after a pause, and in the long run one in a while: a token bucket, kept as the time by which all that
/// was taken is refilled (GCRA). Times are nanoseconds on one clock.
@frozen public struct TokenBucket: Sendable {
    @usableFromInline let cost: UInt64
    @usableFromInline let burst: UInt64
    @usableFromInline var refilledAt: UInt64 = 0

    /// - Parameters:
    ///   - cost: what one takes of the time.
    ///   - burst: how far what was taken may run ahead of the clock; less than `cost`: nothing may ever be taken.
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

    /// When all is refilled once one more is taken at `now`; nil: it may not be. For whoever keeps that time elsewhere.
    @inlinable @inline(__always) public static func after(
        _ refilledAt: UInt64, _ now: UInt64, cost: UInt64, burst: UInt64
    ) -> UInt64? {
        let next = max(refilledAt, now) &+ cost
        return next > now &+ burst ? nil : next
    }
}
