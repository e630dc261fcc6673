import Pipeline

/// A `ledger` line of the `node` block: where flows are kept, and for how long (R21).
public struct LedgerSettings: Sendable, Equatable {
    public var path: String
    /// How long rows by the minute are kept, and so on; each at least as long as the one before.
    public var minutes = TimeSpan.seconds(2 * 86400)
    public var hours = TimeSpan.seconds(30 * 86400)
    public var days = TimeSpan.seconds(400 * 86400)
    public init(path: String) { self.path = path }
}
