import Pipeline
import PipelineHost

/// How full the kernel's table of tracked connections is, in the network namespace of the thread that reads: when it is full the
/// kernel drops the first packet of every new connection, the relay's own among them.
package struct ConntrackRoom: Sendable {
    package struct Reading: Equatable, Sendable {
        var count: UInt64 = 0
        var most: UInt64 = 0
        /// Packets that conntrack has dropped so far, for want of room or because they made no sense.
        var dropped: UInt64 = 0

        func isAbove(percent: UInt64) -> Bool {
            most > 0 && count >= most / 100 &* percent &+ most % 100 &* percent / 100
        }
    }

    /// Where `/proc` is: tests have their own.
    private let root: String

    init(root: String = "") { self.root = root }

    /// Nil: there is no conntrack, or it has no limit.
    func read() -> Reading? {
        guard let count = number("nf_conntrack_count"), let most = number("nf_conntrack_max"), most > 0 else {
            return nil
        }
        return Reading(count: count, most: most, dropped: dropped())
    }

    private func number(_ name: String) -> UInt64? {
        lines("/proc/sys/net/netfilter/" + name).first.flatMap { UInt64($0) }
    }

    /// A line of names, and one of hexadecimal numbers for each processor.
    private func dropped() -> UInt64 {
        let lines = lines("/proc/thread-self/net/stat/nf_conntrack").map { $0.split(separator: " ") }
        guard let place = lines.first?.firstIndex(of: "drop") else { return 0 }
        return lines.dropFirst().reduce(0) { sum, words in
            sum &+ (place < words.count ? UInt64(words[place], radix: 16) ?? 0 : 0)
        }
    }

    private func lines(_ path: String) -> [Substring] { Files.lines(root + path) }
}

/// Tracks when the table is nearly full, and when there is room again.
struct ConntrackFullness {
    private(set) var isFull = false

    /// - Returns: true if ``isFull`` has changed.
    mutating func look(_ reading: ConntrackRoom.Reading) -> Bool {
        let before = isFull
        // With hysteresis between the two thresholds.
        isFull = reading.isAbove(percent: before ? 80 : 90)
        return isFull != before
    }
}

/// Whether connects may have failed because this host's own table was full, so that they prove nothing about their
/// destination (ADR 0049).
package struct ConntrackShortage: Sendable {
    private let room: ConntrackRoom
    private let calm: TimeSpan
    private var until = Instant(nanoseconds: 0)

    /// - Parameter calm: what failed for so long after may have begun before: a minute is the longest usual `connect_timeout`.
    package init(_ room: ConntrackRoom = ConntrackRoom(), calm: TimeSpan = .seconds(60)) {
        self.room = room
        self.calm = calm
    }

    /// To be asked every second or so: what was full in between is not seen.
    package mutating func isShort(_ now: Instant) -> Bool {
        guard room.read()?.isAbove(percent: 95) == true else { return now < until }
        until = now + calm
        return true
    }
}
