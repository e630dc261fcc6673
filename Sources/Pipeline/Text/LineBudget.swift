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

/// Log lines of one thread, under a ``LineBudget``: the line behind some that were left out says how many.
package struct BudgetedLog {
    private let write: @Sendable ([UInt8]) -> Void
    private let wallClock: @Sendable () -> UInt64
    private var budget = LineBudget()

    /// - Parameters:
    ///   - wallClock: nanoseconds since 1970.
    ///   - write: takes whole lines.
    package init(wallClock: @escaping @Sendable () -> UInt64, write: @escaping @Sendable ([UInt8]) -> Void) {
        self.write = write
        self.wallClock = wallClock
    }

    package mutating func say(
        _ event: String, _ message: String?, _ now: Instant, _ fields: (inout JSONLine) -> Void
    ) {
        guard let omitted = budget.take(now) else { return }
        write(
            ControlLog.line(event, message, time: wallClock()) { line in
                fields(&line)
                if omitted > 0 { line.field("suppressed", omitted) }
            })
    }
}
