import Pipeline

/// The time resolution of rows. All growth is counted in one row of each level.
package enum LedgerLevel: Int, CaseIterable, Sendable, Comparable {
    case minutes, hours, days

    package static func < (a: LedgerLevel, b: LedgerLevel) -> Bool { a.rawValue < b.rawValue }

    /// As the database has it.
    var number: Int64 { Int64(rawValue) }

    /// Seconds of a bucket.
    package var seconds: Int64 {
        switch self {
        case .minutes: 60
        case .hours: 3600
        case .days: 86400
        }
    }

    var table: String {
        switch self {
        case .minutes: "minutes"
        case .hours: "hours"
        case .days: "days"
        }
    }

    /// The remaining detail from this level on, for messages.
    var words: String {
        switch self {
        case .minutes: "by minute, hour and day"
        case .hours: "by hour and day"
        case .days: "by day"
        }
    }

    /// The beginning of the bucket that holds a time; seconds since 1970, UTC.
    package func start(of time: Int64) -> Int64 { time - (time % seconds + seconds) % seconds }
    /// The first beginning of a bucket at or after a time.
    package func ceiling(_ time: Int64) -> Int64 {
        let start = start(of: time)
        return start == time ? time : start + seconds
    }
}

/// An event of the ledger for the log.
package struct LedgerEvent: Sendable, Equatable {
    /// `ledger_degraded`, `ledger_recovered`, `ledger_set_aside`, `ledger_failed`, `ledger_migrating`, `ledger_migrated`, `ledger_changed`.
    package let event: String
    package let message: String
}

/// A ledger that can't be used.
package struct LedgerProblem: Error, Sendable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
