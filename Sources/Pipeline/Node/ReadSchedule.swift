import Pipeline
import PipelineHost

/// When a watched file is read: once it seems whole, and never so often that others wait for the control thread.
struct ReadSchedule {
    /// How long nobody has written to a file that was not closed, before it counts as whole.
    static let settle = TimeSpan.milliseconds(500)
    /// Between two reads there is this much time for others, for each of those that a read and its change took.
    static let timesForOthers: UInt64 = 2
    static let leastPause = TimeSpan.milliseconds(5)

    private var due: Instant?
    private var notBefore = Instant(nanoseconds: 0)

    /// When the next read may begin; nil: nothing has changed.
    var start: Instant? { due.map { max($0, notBefore) } }

    mutating func note(_ standing: FileNews.Standing, _ now: Instant) {
        switch standing {
        case .unchanged: break
        case .whole: due = now
        case .unfinished: due = now + ReadSchedule.settle
        }
    }

    mutating func retry(at moment: Instant) { due = min(due ?? moment, moment) }

    mutating func begin() { due = nil }

    mutating func ended(began: Instant, _ now: Instant) {
        let took = now.since(began).nanoseconds
        let pause = TimeSpan(
            nanoseconds: took.multipliedReportingOverflow(by: ReadSchedule.timesForOthers).partialValue)
        notBefore = now + max(pause, ReadSchedule.leastPause)
    }
}
