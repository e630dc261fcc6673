/// A `ledger` line of the `node` block: where flows are kept, and for how long (R21).
package struct LedgerSettings: Sendable, Equatable {
    package var path: String
    /// How long rows by the minute are kept, and so on; each at least as long as the one before.
    package var minutes = TimeSpan.seconds(2 * 86400)
    package var hours = TimeSpan.seconds(30 * 86400)
    package var days = TimeSpan.seconds(400 * 86400)
    package init(path: String) { self.path = path }
}
