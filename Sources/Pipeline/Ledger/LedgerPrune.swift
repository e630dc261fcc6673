import FilterEgressAccounting
import Pipeline

/// Removal of old rows: by age, and when the disk is full.
struct LedgerPrune {
    let settings: LedgerSettings
    /// Seconds since 1970.
    let now: Int64
    /// The disk is full: removes the oldest minutes, whatever their age, until there are enough pages.
    let isShort: Bool

    /// Buckets of a level that one batch removes from at most, and rows of a bucket: a day of a million keys goes in
    /// many small steps.
    private static let buckets = 4
    private static let rows: Int64 = 20_000
    /// Pages that a full ledger keeps free for rows to come, 8 MiB.
    private static let sparePages: Int64 = 2048

    func run(_ db: LedgerDatabase) throws {
        let kept = [settings.minutes, settings.hours, settings.days]
        for level in LedgerLevel.allCases {
            let seconds = Int64(clamping: kept[level.rawValue].nanoseconds / 1_000_000_000)
            let oldest = now - seconds - level.seconds
            for _ in 0..<LedgerPrune.buckets {
                let first = try db.integer("SELECT min(at) FROM \(level.table)")
                guard let first, first < oldest else { break }
                try removeSome(db, level, first)
            }
        }
        if isShort { try makeRoom(db) }
    }

    private func makeRoom(_ db: LedgerDatabase) throws {
        let free = try db.integer("PRAGMA freelist_count") ?? 0
        guard free < LedgerPrune.sparePages else { return }
        let first = try db.integer("SELECT min(at) FROM minutes")
        if let first { try removeAll(db, .minutes, first) }
    }

    private func removeSome(_ db: LedgerDatabase, _ level: LedgerLevel, _ at: Int64) throws {
        try db.run(
            """
            DELETE FROM \(level.table) WHERE at = ?1 AND (destination, owner) <= (
                SELECT destination, owner FROM \(level.table) WHERE at = ?1 ORDER BY destination, owner
                LIMIT 1 OFFSET \(LedgerPrune.rows))
            """, [at])
        // It has no more rows than that.
        if db.changes == 0 { try removeAll(db, level, at) }
    }

    private func removeAll(_ db: LedgerDatabase, _ level: LedgerLevel, _ at: Int64) throws {
        try db.run("DELETE FROM \(level.table) WHERE at = ?", [at])
        for rollup in LedgerRollup.allCases {
            try db.run(
                "DELETE FROM sums WHERE level = ? AND what = ? AND at = ?", [level.number, rollup.rawValue, at])
        }
        try db.run("DELETE FROM pairs WHERE level = ? AND at = ?", [level.number, at])
    }
}
