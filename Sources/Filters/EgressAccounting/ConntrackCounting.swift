import Pipeline

/// A `conntrack` line of the `node` block: counts traffic that passes no worker, from the kernel's conntrack table
/// (R21).
public struct ConntrackCounting: Sendable, Equatable {
    /// How often the whole table is read, which bounds what a crash loses of open connections.
    public var interval: TimeSpan
    /// The most connections tracked at once (R27).
    public var tableLimit: Int
    public init(interval: TimeSpan, tableLimit: Int = 1 << 20) {
        self.interval = interval
        self.tableLimit = tableLimit
    }
}
