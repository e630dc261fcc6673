import Pipeline

/// A read-only ledger for reports, also while a node writes to it. Threading: one thread at a time.
///
/// Reports by owner and service read the writer's sums, reports by destination the rows. Numbers are aggregated here:
/// SQLite would sort a million rows to group them.
package final class LedgerReader {
    private let path: String
    private var database: LedgerDatabase
    private var rest: LedgerRest

    package init(_ path: String) throws(LedgerProblem) {
        self.path = path
        (rest, database) = try LedgerReader.open(path)
    }

    private static func open(_ path: String) throws(LedgerProblem) -> (LedgerRest, LedgerDatabase) {
        var tries = 3
        while true {
            tries -= 1
            let rest = LedgerRest(path)
            do {
                return (rest, try LedgerFile.open(path, isReadOnly: true, isAtRest: rest.wasAtRest))
            } catch let problem as LedgerProblem {
                throw problem
            } catch {
                // Made, or begun with, while it was opened.
                if !rest.held, tries > 0 { continue }
                throw LedgerProblem("can't read the ledger \(path): \(error)")
            }
        }
    }

    /// A ledger's answer, of the ranges that it has.
    package func report(_ question: ReportQuestion) throws(LedgerProblem) -> Report {
        try read { try LedgerReader.report($0, question) }
    }

    private static func report(_ db: LedgerDatabase, _ question: ReportQuestion) throws -> Report {
        let range = try range(db, question.from, question.to, question.now)
        let query = try LedgerQuery(db, question)
        let tally = try LedgerTally(query, range)
        if let fault = query.fault(tally.seen) { throw fault }
        return Report(
            question, from: range.start, to: question.to >= question.now ? question.now : range.end,
            rows: tally.rows.map { query.row($0.key, $0.sums) }, others: tally.count - tally.rows.count,
            total: tally.total)
    }

    /// Volume over time: of the largest `top` groups, and the rest together.
    package func series(_ question: ReportQuestion, top: Int = 8) throws(LedgerProblem) -> ReportSeries {
        var question = question
        question.top = top
        let asked = question
        return try read { db in
            let level = try LedgerReader.step(db, asked.from, asked.to)
            let part = LedgerRange.Part(
                level: level, start: level.start(of: asked.from), end: level.ceiling(min(asked.to, asked.now + 1)))
            return try LedgerQuery(db, asked).series(part)
        }
    }

    package static let rest = "(others)"

    /// Reads again if a node opened the ledger meanwhile.
    private func read<Result>(_ body: (LedgerDatabase) throws -> Result) throws(LedgerProblem) -> Result {
        for _ in 0..<3 {
            let result: Swift.Result<Result, any Error> = .init { try database.read(body) }
            guard rest.held else {
                (rest, database) = try LedgerReader.open(path)
                continue
            }
            do { return try result.get() } catch let problem as LedgerProblem { throw problem } catch {
                throw LedgerProblem("can't read the ledger \(path): \(error)")
            }
        }
        throw LedgerProblem("the ledger \(path) keeps changing: is a node restarting in a loop?")
    }
}

// MARK: Which rows

extension LedgerReader {
    private static func oldest(_ db: LedgerDatabase) throws -> [LedgerLevel: Int64] {
        var oldest: [LedgerLevel: Int64] = [:]
        for level in LedgerLevel.allCases {
            let first = try db.integer("SELECT min(at) FROM \(level.table)")
            // The file may contain anything, and times are used in arithmetic.
            oldest[level] = first.map { min(max(0, $0), 1 << 52) }
        }
        return oldest
    }

    private struct Gap {
        let level: Int64
        let start: Int64
        let stop: Int64
    }

    private static func range(_ db: LedgerDatabase, _ from: Int64, _ to: Int64, _ now: Int64) throws -> LedgerRange {
        let oldest = try oldest(db)
        var gaps: [Gap] = []
        try db.statement("SELECT level, start, stop FROM gaps").each {
            gaps.append(Gap(level: $0.integer(0), start: $0.integer(1), stop: $0.integer(2)))
        }
        return LedgerRange(
            from: from, to: to, now: now,
            oldest: { level in
                // Where even days begin later, there is nothing before it to lose.
                guard let first = oldest[level] else { return nil }
                guard level < .days, let day = oldest[.days], first - level.seconds < day + LedgerLevel.days.seconds
                else { return first }
                return .min
            },
            isWhole: { level, start, end in
                !gaps.contains { $0.level == level.rawValue && $0.start < end && $0.stop > start }
            })
    }

    /// The steps of a picture.
    private static func step(_ db: LedgerDatabase, _ from: Int64, _ to: Int64) throws -> LedgerLevel {
        let length = to - from
        let oldest = try oldest(db)
        var level: LedgerLevel = length <= 6 * 3600 ? .minutes : length <= 14 * 86400 ? .hours : .days
        while level < .days, (oldest[level] ?? .max) > level.start(of: from),
            oldest[.days] ?? .max < level.start(of: from), let coarser = LedgerLevel(rawValue: level.rawValue + 1)
        {
            level = coarser
        }
        return level
    }
}
