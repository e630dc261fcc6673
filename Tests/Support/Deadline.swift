import Foundation
import Glibc

/// A point in time after which a test gives up. No test sleeps instead of waiting: it waits for an event, or asks by
/// ``awaitUntil(_:_:_:)`` where there is none, and this is how long at most. Generous, since a busy machine is no failure.
/// That something does *not* happen is shown by an event that comes later.
///
/// This is the only file of the tests that sleeps or waits for less than 20 s: `scripts/tidy` looks.
package struct Deadline: Sendable {
    private let end: UInt64

    package static let usual: Double = 60

    package init(seconds: Double = Deadline.usual) {
        end = Deadline.now() &+ UInt64(seconds * 1e9)
    }

    /// For a load, whose clients give up as clients do, and whose loops look now and then whether they are over. What a
    /// test expects never goes by it.
    package init(patience seconds: Double) { self.init(seconds: seconds) }

    package static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// For `poll`: milliseconds left, at least 0.
    package var milliseconds: Int32 {
        let now = Deadline.now()
        return now >= end ? 0 : Int32(clamping: (end - now) / 1_000_000 + 1)
    }
    package var date: Date { Date(timeIntervalSinceNow: Double(milliseconds) / 1000) }
    package var hasPassed: Bool { Deadline.now() >= end }
}

/// What went wrong, for people.
package struct Failure: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
    /// With the text of `errno`.
    package init(call: String, _ error: Int32 = errno) {
        description = "\(call): \(String(cString: strerror(error)))"
    }
}

/// Asks until it is so: for what has no event of its own to wait for, as a count that another thread or process brings
/// up to date in its own time.
package func awaitUntil(
    _ what: @autoclosure () -> String, _ deadline: Deadline = Deadline(), _ isSo: () throws -> Bool
) throws {
    _ = try awaitValue(what(), deadline) { try isSo() ? true : nil }
}

/// The same for what there is then.
package func awaitValue<Value>(
    _ what: @autoclosure () -> String, _ deadline: Deadline = Deadline(), _ find: () throws -> Value?
) throws -> Value {
    var pause: UInt32 = 1000
    while true {
        // The last look is after the deadline: whoever was not run for long still gets one.
        let isLast = deadline.hasPassed
        if let found = try find() { return found }
        guard !isLast else { throw Failure("not in time: \(what())") }
        usleep(pause)
        pause = min(2 * pause, 50_000)
    }
}

/// A load's steady pace. What comes late is followed by the next at once, until the load is where it would have been.
package struct Pace {
    private let step: UInt64
    private var due = Deadline.now()

    package init(perSecond: Int) { step = 1_000_000_000 / UInt64(max(perSecond, 1)) }

    /// Returns when the next one is due; the first is due when the load begins.
    package mutating func wait() {
        pause(until: due)
        due &+= step
    }
}

private func pause(until end: UInt64) {
    var time = timespec(tv_sec: Int(end / 1_000_000_000), tv_nsec: Int(end % 1_000_000_000))
    while clock_nanosleep(CLOCK_MONOTONIC, Int32(TIMER_ABSTIME), &time, nil) == EINTR {}
}
