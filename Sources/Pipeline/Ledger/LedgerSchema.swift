import Pipeline

/// Sums that ``LedgerSchema`` keeps besides the rows, so that reports need not read all rows.
enum LedgerRollup: Int64, CaseIterable {
    case owner, service

    /// The column that rows are aggregated by.
    var column: String {
        switch self {
        case .owner: "owner"
        case .service: "service"
        }
    }
}

/// The tables of a ledger (docs/adr/0026).
///
/// `first` and `last` are seconds after the bucket's beginning, `at`: a byte or two instead of four. A `service` is
/// port × 256 + protocol.
enum LedgerSchema {
    static let version = 4

    private static let numbers = """
        connections INTEGER NOT NULL, bytes_out INTEGER NOT NULL, bytes_in INTEGER NOT NULL,
        first INTEGER NOT NULL, last INTEGER NOT NULL
        """

    static func create(_ db: LedgerDatabase) throws {
        try db.execute(
            """
            CREATE TABLE owners(
                id INTEGER PRIMARY KEY, instance TEXT NOT NULL, env TEXT NOT NULL, app TEXT NOT NULL,
                org TEXT NOT NULL, UNIQUE(instance, env, app, org));
            CREATE TABLE marks(
                run INTEGER NOT NULL, origin INTEGER NOT NULL, sequence INTEGER NOT NULL,
                PRIMARY KEY(run, origin)) WITHOUT ROWID;
            """)
        for level in LedgerLevel.allCases { try createRows(db, level) }
        try createSecond(db)
        try createFourth(db)
    }

    /// What came with format 4 (docs/adr/0046).
    private static func createFourth(_ db: LedgerDatabase) throws {
        try db.execute(
            """
            CREATE TABLE pairs(
                level INTEGER NOT NULL, at INTEGER NOT NULL, owner INTEGER NOT NULL, service INTEGER NOT NULL,
                \(numbers), PRIMARY KEY(level, at, owner, service)) WITHOUT ROWID
            """)
    }

    /// The key begins with time, then destination, which is the order of reports that read rows. Addresses have 4 or 16
    /// bytes.
    private static func createRows(_ db: LedgerDatabase, _ level: LedgerLevel) throws {
        try db.execute(
            """
            CREATE TABLE \(level.table)(
                at INTEGER NOT NULL, destination BLOB NOT NULL, owner INTEGER NOT NULL, service INTEGER NOT NULL,
                \(numbers), PRIMARY KEY(at, destination, owner, service)) WITHOUT ROWID
            """)
    }

    /// What came with format 2.
    private static func createSecond(_ db: LedgerDatabase) throws {
        try db.execute(
            """
            CREATE TABLE sums(
                level INTEGER NOT NULL, what INTEGER NOT NULL, at INTEGER NOT NULL, key INTEGER NOT NULL,
                \(numbers), PRIMARY KEY(level, what, at, key)) WITHOUT ROWID;
            CREATE TABLE gaps(
                level INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
                PRIMARY KEY(level, start)) WITHOUT ROWID;
            """)
    }

    /// Migrates a ledger of an older format, in the caller's transaction.
    static func migrate(_ db: LedgerDatabase, from format: Int) throws {
        if format < 3 { try bringToThird(db, format) }
        try createFourth(db)
        for level in LedgerPairs.levels { try LedgerPairs.fill(db, level) }
        try db.execute("PRAGMA user_version = \(version)")
    }

    private static func bringToThird(_ db: LedgerDatabase, _ format: Int) throws {
        if format == 1 { try createSecond(db) }
        for level in LedgerLevel.allCases {
            try db.execute("ALTER TABLE \(level.table) RENAME TO older")
            try createRows(db, level)
            // Format 2 had rows by owner first, format 1 other columns too.
            let rest =
                format == 1
                ? "port << 8 | proto, connections, bytes_out, bytes_in, first - at, last - at"
                : "service, connections, bytes_out, bytes_in, first, last"
            try db.execute(
                """
                INSERT INTO \(level.table)
                    SELECT at, destination, owner, \(rest) FROM older ORDER BY 1, 2, 3, 4;
                DROP TABLE older;
                """)
            if format == 1 { try addUp(db, level) }
        }
    }

    private static func addUp(_ db: LedgerDatabase, _ level: LedgerLevel) throws {
        for rollup in LedgerRollup.allCases {
            try db.execute(
                """
                INSERT INTO sums
                    SELECT \(level.rawValue), \(rollup.rawValue), at, \(rollup.column), sum(connections),
                        sum(bytes_out), sum(bytes_in), min(first), max(last)
                    FROM \(level.table) GROUP BY at, \(rollup.column)
                """)
        }
    }

    // MARK: Statements

    private static let add = """
        ON CONFLICT DO UPDATE SET
            connections = connections + excluded.connections, bytes_out = bytes_out + excluded.bytes_out,
            bytes_in = bytes_in + excluded.bytes_in, first = min(first, excluded.first),
            last = max(last, excluded.last)
        """

    /// Adds to a row: `at`, destination, owner, service, then the five numbers.
    static func addRow(_ level: LedgerLevel) -> String {
        "INSERT INTO \(level.table) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \(add)"
    }

    /// Adds to a sum: level, what, `at`, key, then the five numbers.
    static let addSum = "INSERT INTO sums VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \(add)"

    /// Adds to a sum of an owner and a service: level, `at`, owner, service, then the five numbers.
    static let addPair = "INSERT INTO pairs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \(add)"
}
