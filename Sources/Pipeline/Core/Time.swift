/// A point on the monotonic clock, in nanoseconds. Clock steps don't touch it.
@frozen public struct Instant: Hashable, Comparable, Sendable {
    public let nanoseconds: UInt64
    @inlinable public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    @inlinable public static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }
    /// Saturates instead of overflowing.
    @inlinable public static func + (a: Instant, b: TimeSpan) -> Instant {
        let (sum, overflow) = a.nanoseconds.addingReportingOverflow(b.nanoseconds)
        return Instant(nanoseconds: overflow ? .max : sum)
    }
    /// Zero if `earlier` is later.
    @inlinable public func since(_ earlier: Instant) -> TimeSpan {
        TimeSpan(nanoseconds: nanoseconds > earlier.nanoseconds ? nanoseconds - earlier.nanoseconds : 0)
    }
}

/// A length of time, in nanoseconds.
@frozen public struct TimeSpan: Hashable, Comparable, Sendable {
    public let nanoseconds: UInt64
    @inlinable public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }
    @inlinable public static func < (a: TimeSpan, b: TimeSpan) -> Bool { a.nanoseconds < b.nanoseconds }

    public static let zero = TimeSpan(nanoseconds: 0)
    @inlinable public static func milliseconds(_ n: UInt32) -> TimeSpan {
        TimeSpan(nanoseconds: UInt64(n) &* 1_000_000)
    }
    @inlinable public static func seconds(_ n: UInt32) -> TimeSpan {
        TimeSpan(nanoseconds: UInt64(n) &* 1_000_000_000)
    }
    @inlinable public var milliseconds: UInt64 { nanoseconds / 1_000_000 }
}
