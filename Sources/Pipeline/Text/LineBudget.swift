import Pipeline

/// No more lines about one matter than someone can read (R27): so many at once after a pause, and a second in the long run.
package struct LineBudget {
    static let burst = 100
    static let perSecond = 20

    private var tokens = Double(LineBudget.burst)
    private var filled = Instant(nanoseconds: 0)
    private var suppressed = 0

    package init() {}

    /// How many lines were left out since the last one; nil: this one is, too.
    package mutating func take(_ now: Instant) -> Int? {
        let seconds = Double(now.since(filled).nanoseconds) / 1e9
        filled = max(filled, now)
        tokens = min(Double(LineBudget.burst), tokens + seconds * Double(LineBudget.perSecond))
        guard tokens >= 1 else {
            suppressed += 1
            return nil
        }
        tokens -= 1
        defer { suppressed = 0 }
        return suppressed
    }
}
