import Pipeline

/// A `ledger` line of the `node` block: where flows are stored, and for how long (R21).
public struct LedgerSettings: Sendable, Equatable {
    public var path: String
    /// Retention of minutes, hours and days; each at least as long as the one before.
    public var minutes = TimeSpan.seconds(2 * 86400)
    public var hours = TimeSpan.seconds(30 * 86400)
    public var days = TimeSpan.seconds(400 * 86400)
    public init(path: String) { self.path = path }
}
