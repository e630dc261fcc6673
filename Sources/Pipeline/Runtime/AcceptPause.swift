import Pipeline

/// The pause of accepting while the system has no free descriptor, not even the reserve, or no memory.
package struct AcceptPause {
    package static let shortest = TimeSpan.milliseconds(100)
    package static let longest = TimeSpan.seconds(1)

    /// When it tries again; nil: nothing holds it up.
    package private(set) var until: Instant?
    private var length = TimeSpan.zero

    package init() {}

    package func isOver(at now: Instant) -> Bool { until.map { $0 <= now } ?? true }

    /// False if it is on already: all listeners share it.
    package mutating func begin(at now: Instant) -> Bool {
        guard isOver(at: now) else { return false }
        length =
            length == .zero
            ? Self.shortest : TimeSpan(nanoseconds: min(2 * length.nanoseconds, Self.longest.nanoseconds))
        until = now + length
        return true
    }

    /// A connection was accepted.
    package mutating func end() {
        guard until != nil else { return }
        self = AcceptPause()
    }
}
