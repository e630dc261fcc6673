import FilterEgressAccounting
import GRDB
import Pipeline

/// What goes from a ledger, and when: by age, and where the disk is full.
struct LedgerPrune {
    let settings: LedgerSettings
    /// Seconds since 1970.
    let now: Int64
    /// The disk is full: the oldest minute goes whatever its age, until there are pages enough.
    let isShort: Bool

    /// Buckets of a level that one batch removes from at most, and rows of a bucket: a day of a million keys goes in
    /// many small steps.
    private static let buckets = 4
    private static let rows: Int64 = 20_000
    /// Pages that a full ledger keeps free for rows to come, 8 MiB.
    private static let sparePages = 2048

    func run(_ db: Database) throws {
        let kept = [settings.minutes, settings.hours, settings.days]
        for level in LedgerLevel.allCases {
            let seconds = Int64(clamping: kept[level.rawValue].nanoseconds / 1_000_000_000)
            let oldest = now - seconds - level.seconds
            for _ in 0..<LedgerPrune.buckets {
                let first = try Int64.fetchOne(db.cachedStatement(sql: "SELECT min(at) FROM \(level.table)"))
                guard let first, first < oldest else { break }
                try removeSome(db, level, first)
            }
        }
        if isShort { try makeRoom(db) }
    }

    private func makeRoom(_ db: Database) throws {
        let free = try Int.fetchOne(db, sql: "PRAGMA freelist_count") ?? 0
        guard free < LedgerPrune.sparePages else { return }
        let first = try Int64.fetchOne(db.cachedStatement(sql: "SELECT min(at) FROM minutes"))
        if let first { try removeAll(db, .minutes, first) }
    }

    private func removeSome(_ db: Database, _ level: LedgerLevel, _ at: Int64) throws {
        let last = try Row.fetchOne(
            db.cachedStatement(
                sql: """
                    SELECT destination, owner FROM \(level.table) WHERE at = ? ORDER BY destination, owner
                    LIMIT 1 OFFSET \(LedgerPrune.rows)
                    """), arguments: [at])
        guard let last else { return try removeAll(db, level, at) }
        try db.cachedStatement(
            sql: "DELETE FROM \(level.table) WHERE at = ? AND (destination, owner) <= (?, ?)"
        ).execute(arguments: [at, last[0] as DatabaseValue, last[1] as DatabaseValue])
    }

    private func removeAll(_ db: Database, _ level: LedgerLevel, _ at: Int64) throws {
        try db.cachedStatement(sql: "DELETE FROM \(level.table) WHERE at = ?").execute(arguments: [at])
        for rollup in LedgerRollup.allCases {
            try db.cachedStatement(sql: "DELETE FROM sums WHERE level = ? AND what = ? AND at = ?")
                .execute(arguments: [level.rawValue, rollup.rawValue, at])
        }
        try db.cachedStatement(sql: "DELETE FROM pairs WHERE level = ? AND at = ?")
            .execute(arguments: [level.rawValue, at])
    }
}
