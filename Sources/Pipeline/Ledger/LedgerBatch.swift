import Pipeline
import PipelineFlows

/// A row's key but for its level.
struct LedgerKey: Hashable {
    let at: Int64
    let owner: Int64
    let destination: IPAddress
    /// Port × 256 + protocol.
    let service: Int64
}

/// What is added to a row.
struct LedgerSums {
    var connections: Int64 = 0
    var bytesOut: Int64 = 0
    var bytesIn: Int64 = 0
    /// Seconds since 1970.
    var first = Int64.max
    var last: Int64 = 0

    mutating func add(_ record: FlowRecord) {
        connections = LedgerSums.sum(connections, UInt64(record.connections))
        bytesOut = LedgerSums.sum(bytesOut, record.bytesOut)
        bytesIn = LedgerSums.sum(bytesIn, record.bytesIn)
        first = min(first, Int64(record.firstSeen / 1_000_000_000))
        last = max(last, Int64(record.lastSeen / 1_000_000_000))
    }

    var bytes: Int64 { LedgerSums.capped(bytesOut, bytesIn) }

    init() {}

    /// What is in a database already.
    init(_ sums: ReportSums) {
        (connections, bytesOut, bytesIn) = (sums.connections, sums.bytesOut, sums.bytesIn)
        (first, last) = (sums.first, sums.last)
    }

    mutating func add(_ other: LedgerSums) {
        connections = LedgerSums.sum(connections, UInt64(clamping: other.connections))
        bytesOut = LedgerSums.sum(bytesOut, UInt64(clamping: other.bytesOut))
        bytesIn = LedgerSums.sum(bytesIn, UInt64(clamping: other.bytesIn))
        first = min(first, other.first)
        last = max(last, other.last)
    }

    /// The most that one batch adds to a number, so that SQLite's sums stay integers for any record.
    private static let most = Int64(1) << 52
    /// A saturating sum.
    static func capped(_ a: Int64, _ b: Int64) -> Int64 {
        let (sum, overflow) = a.addingReportingOverflow(b)
        return overflow ? .max : sum
    }
    private static func sum(_ value: Int64, _ more: UInt64) -> Int64 {
        min(most, value + Int64(clamping: min(more, UInt64(most))))
    }
}

/// Records aggregated by row: a row is written once a batch.
struct LedgerBatch {
    /// In the order of the tables' keys, so that neighbours are written one after the other.
    private let rows: [(key: LedgerKey, sums: LedgerSums)]
    /// The highest sequence of each origin.
    private(set) var marks: [UInt16: UInt64] = [:]

    /// The minutes of its rows; nil: none.
    var minutes: (first: Int64, last: Int64)? {
        guard let first = rows.first, let last = rows.last else { return nil }
        return (first.key.at, last.key.at)
    }

    /// By the minute. Records that were written before, by `marks`, are skipped.
    init(
        _ records: some Sequence<FlowRecord>, after marks: [UInt16: UInt64], owner: (FlowRecord) throws -> Int64
    ) rethrows {
        var rows: [LedgerKey: LedgerSums] = [:]
        for record in records where record.sequence > marks[record.origin] ?? 0 {
            let second = Int64(record.lastSeen / 1_000_000_000)
            let key = LedgerKey(
                at: LedgerLevel.minutes.start(of: second), owner: try owner(record),
                destination: record.key.destination, service: Int64(record.key.port) << 8 | Int64(record.key.proto))
            rows[key, default: LedgerSums()].add(record)
            self.marks[record.origin] = max(self.marks[record.origin] ?? 0, record.sequence)
        }
        self.rows = rows.map { ($0.key, $0.value) }.sorted { a, b in
            let (a, b) = (a.key, b.key)
            if a.at != b.at { return a.at < b.at }
            if a.destination != b.destination { return a.destination < b.destination }
            if a.owner != b.owner { return a.owner < b.owner }
            return a.service < b.service
        }
    }

    func write(_ db: LedgerDatabase, _ level: LedgerLevel) throws {
        let statement = try db.statement(LedgerSchema.addRow(level))
        for (key, sums) in rows {
            let at = level.start(of: key.at)
            statement.bind(1, at)
            statement.bind(2, key.destination)
            statement.bind(3, key.owner)
            statement.bind(4, key.service)
            LedgerBatch.bind(statement, sums, at)
            try statement.run()
        }
        try writeSums(db, level, .owner) { $0.owner }
        try writeSums(db, level, .service) { $0.service }
        if LedgerPairs.levels.contains(level) { try writePairs(db, level) }
    }

    private func writePairs(_ db: LedgerDatabase, _ level: LedgerLevel) throws {
        var found: [LedgerPairs.Place: [Int64: LedgerSums]] = [:]
        for (key, sums) in rows {
            let place = LedgerPairs.Place(at: level.start(of: key.at), owner: key.owner)
            found[place, default: [:]][key.service, default: LedgerSums()].add(sums)
        }
        for (place, services) in found { try LedgerPairs.add(db, level, place, services) }
    }

    private struct SumKey: Hashable {
        let at: Int64
        let key: Int64
    }

    private func writeSums(
        _ db: LedgerDatabase, _ level: LedgerLevel, _ rollup: LedgerRollup, _ part: (LedgerKey) -> Int64
    ) throws {
        var found: [SumKey: LedgerSums] = [:]
        for (key, sums) in rows {
            found[SumKey(at: level.start(of: key.at), key: part(key)), default: LedgerSums()].add(sums)
        }
        let statement = try db.statement(LedgerSchema.addSum)
        for (key, sums) in found {
            statement.bind(1, level.number)
            statement.bind(2, rollup.rawValue)
            statement.bind(3, key.at)
            statement.bind(4, key.key)
            LedgerBatch.bind(statement, sums, key.at)
            try statement.run()
        }
    }

    static func bind(_ statement: LedgerStatement, _ sums: LedgerSums, _ at: Int64) {
        statement.bind(5, sums.connections)
        statement.bind(6, sums.bytesOut)
        statement.bind(7, sums.bytesIn)
        // Of an older format's rows, which are added up, `at` may be any number.
        statement.bind(8, capped(sums.first, minus: at))
        statement.bind(9, capped(sums.last, minus: at))
    }

    private static func capped(_ time: Int64, minus at: Int64) -> Int64 {
        let (seconds, overflow) = time.subtractingReportingOverflow(at)
        return overflow ? .max : seconds
    }

    func writeMarks(_ db: LedgerDatabase, run: Int64) throws {
        let statement = try db.statement("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)")
        for (origin, sequence) in marks {
            statement.bind(1, run)
            statement.bind(2, Int64(origin))
            statement.bind(3, Int64(clamping: sequence))
            try statement.run()
        }
    }
}
