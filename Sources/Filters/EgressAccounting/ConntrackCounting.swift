import Pipeline

/// A `conntrack` line of the `node` block: what passes no worker is counted by the kernel, and read from there (R21).
public struct ConntrackCounting: Sendable, Equatable {
    /// How often the whole table is read: what a crash may lose of connections that live.
    public var interval: TimeSpan
    /// Connections that are followed at once (R27).
    public var tableLimit: Int
    public init(interval: TimeSpan, tableLimit: Int = 1 << 20) {
        self.interval = interval
        self.tableLimit = tableLimit
    }
}
