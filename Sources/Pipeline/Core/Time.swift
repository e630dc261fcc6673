/// A point on the monotonic clock, in nanoseconds. Clock steps don't touch it.
@frozen package struct Instant: Hashable, Comparable, Sendable {
    package let nanoseconds: UInt64
    @inlinable package init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    @inlinable package static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }
    /// Saturates instead of overflowing.
    @inlinable package static func + (a: Instant, b: TimeSpan) -> Instant {
        let (sum, overflow) = a.nanoseconds.addingReportingOverflow(b.nanoseconds)
        return Instant(nanoseconds: overflow ? .max : sum)
    }
    /// Zero if `earlier` is later.
    @inlinable package func since(_ earlier: Instant) -> TimeSpan {
        TimeSpan(nanoseconds: nanoseconds > earlier.nanoseconds ? nanoseconds - earlier.nanoseconds : 0)
    }
}

/// A length of time, in nanoseconds.
@frozen package struct TimeSpan: Hashable, Comparable, Sendable {
    package let nanoseconds: UInt64
    @inlinable package init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }
    @inlinable package static func < (a: TimeSpan, b: TimeSpan) -> Bool { a.nanoseconds < b.nanoseconds }

    package static let zero = TimeSpan(nanoseconds: 0)
    @inlinable package static func milliseconds(_ n: UInt32) -> TimeSpan {
        TimeSpan(nanoseconds: UInt64(n) &* 1_000_000)
    }
    @inlinable package static func seconds(_ n: UInt32) -> TimeSpan {
        TimeSpan(nanoseconds: UInt64(n) &* 1_000_000_000)
    }
    @inlinable package var milliseconds: UInt64 { nanoseconds / 1_000_000 }
}
