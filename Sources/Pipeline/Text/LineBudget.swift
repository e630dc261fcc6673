import Pipeline

/// A rate limit for log lines about one subject (R27): a burst after a pause, and a long-run rate a second.
package struct LineBudget {
    static let burst = 100
    static let perSecond = 20

    private var bucket = TokenBucket(
        cost: 1_000_000_000 / UInt64(LineBudget.perSecond),
        burst: 1_000_000_000 / UInt64(LineBudget.perSecond) * UInt64(LineBudget.burst))
    private var suppressed = 0

    package init() {}

    /// How many lines were left out since the last one; nil: this one is, too.
    package mutating func take(_ now: Instant) -> Int? {
        guard bucket.take(now) else {
            suppressed += 1
            return nil
        }
        defer { suppressed = 0 }
        return suppressed
    }
}
