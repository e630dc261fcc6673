import Pipeline

/// The third sum (docs/adr/0046): by owner and service, for hours and days. Bounded for each owner and bucket: services
/// without their own row are aggregated in one.
enum LedgerPairs {
    /// Minutes are read from the rows: a range has at most two hours of them.
    static let levels: [LedgerLevel] = [.hours, .days]
    /// The most services of an owner in a bucket with their own row, besides ``isKept(_:)``.
    static let limit = 64

    /// Whose, and when.
    struct Place: Hashable {
        let at: Int64
        let owner: Int64
    }

    /// Ports of interest after a break-in. They always have their own row, so that a port scan can't hide outgoing
    /// mail.
    private static let kept: Set<Int64> = [22, 23, 25, 53, 80, 443, 445, 465, 587, 3389]

    static func isKept(_ service: Int64) -> Bool {
        kept.contains(service >> 8) && (service & 255 == 6 || service & 255 == 17)
    }

    /// Adds one owner's growth in one bucket.
    static func add(_ db: LedgerDatabase, _ level: LedgerLevel, _ place: Place, _ services: [Int64: LedgerSums]) throws
    {
        let named = try named(db, level, place, services)
        let statement = try db.statement(LedgerSchema.addPair)
        var rest: LedgerSums?
        for (service, sums) in services {
            if named.contains(service) {
                try write(statement, level, place, service, sums)
            } else {
                rest = rest ?? LedgerSums()
                rest?.add(sums)
            }
        }
        if let rest { try write(statement, level, place, ReportService.rest.value, rest) }
    }

    /// The services with their own rows: existing ones, and the largest new ones while there is room.
    private static func named(
        _ db: LedgerDatabase, _ level: LedgerLevel, _ place: Place, _ services: [Int64: LedgerSums]
    ) throws -> Set<Int64> {
        var known: Set<Int64> = []
        let statement = try db.statement("SELECT service FROM pairs WHERE level = ? AND at = ? AND owner = ?")
        statement.bind([level.number, place.at, place.owner])
        try statement.each { known.insert($0.integer(0)) }
        let counted = known.count { !isKept($0) && $0 != ReportService.rest.value }
        let new = services.filter { !known.contains($0.key) && !isKept($0.key) }
        let room = max(0, limit - counted)
        let chosen =
            new.count <= room
            ? Set(new.keys)
            : Set(new.sorted { ($0.value.bytes, $1.key) > ($1.value.bytes, $0.key) }.prefix(room).map(\.key))
        return Set(services.keys.filter { isKept($0) || known.contains($0) || chosen.contains($0) })
    }

    private static func write(
        _ statement: LedgerStatement, _ level: LedgerLevel, _ place: Place, _ service: Int64, _ sums: LedgerSums
    ) throws {
        statement.bind([level.number, place.at, place.owner, service])
        LedgerBatch.bind(statement, sums, place.at)
        try statement.run()
    }

    /// Sums the rows of an older format bucket by bucket: SQLite would sort all of them to group them.
    static func fill(_ db: LedgerDatabase, _ level: LedgerLevel) throws {
        let rows = try db.statement(
            """
            SELECT owner, service, connections, bytes_out, bytes_in, first, last FROM \(level.table) WHERE at = ?
            """)
        for at in try LedgerRange.Part(level: level, start: .min + 1, end: .max).buckets(db) {
            var found: [Int64: [Int64: LedgerSums]] = [:]
            rows.bind(1, at)
            try rows.each { row in
                found[row.integer(0), default: [:]][row.integer(1), default: LedgerSums()].add(
                    LedgerSums(row.sums(2, at: at)))
            }
            for owner in found.keys.sorted() { try add(db, level, Place(at: at, owner: owner), found[owner] ?? [:]) }
        }
    }
}
