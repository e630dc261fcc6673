import CSQLite

/// An SQLite error with SQLite's message.
struct DatabaseError: Error, CustomStringConvertible {
    /// SQLITE_…, without what the extended codes add.
    let code: Int32
    let message: String
    let sql: String?

    /// - Parameter message: nil: SQLite's text for the code.
    init(_ code: Int32, _ message: String? = nil, sql: String? = nil) {
        self.code = code & 0xFF
        self.message = message ?? String(cString: sqlite3_errstr(code))
        self.sql = sql
    }

    var description: String {
        "SQLite error \(code): \(message)" + (sql.map { " - while executing `\($0)`" } ?? "")
    }

    /// SQLITE_ERROR: what SQLite itself did not say.
    static var unknown: Int32 { SQLITE_ERROR }

    /// Errors that a reader gets only while a writer creates the file or switches it to WAL.
    var isOfMaking: Bool {
        [SQLITE_BUSY, SQLITE_LOCKED, SQLITE_CANTOPEN, SQLITE_READONLY, SQLITE_PROTOCOL].contains(code)
    }
    var isDamage: Bool { code == SQLITE_CORRUPT || code == SQLITE_NOTADB }
    /// No room on the disk, or the disk doesn't write.
    var isFull: Bool { code == SQLITE_FULL || code == SQLITE_IOERR }
}

/// One connection to a database.
///
/// Threading: one thread at a time. Ownership: closed with the last that holds it, or by ``close()``.
final class LedgerDatabase {
    private static let patience: Int32 = 2000

    private(set) var handle: OpaquePointer?
    /// Cached by text, for use by one caller at a time.
    private var statements: [String: LedgerStatement] = [:]

    /// - Parameters:
    ///   - path: or a URI, `file:…`.
    ///   - settings: statements that come before all others.
    init(_ path: String, isReadOnly: Bool = false, isURI: Bool = false, settings: String = "") throws {
        let mode = isReadOnly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
        let code = sqlite3_open_v2(path, &handle, mode | SQLITE_OPEN_NOMUTEX | (isURI ? SQLITE_OPEN_URI : 0), nil)
        guard code == SQLITE_OK else {
            close()
            throw DatabaseError(code)
        }
        sqlite3_busy_timeout(handle, LedgerDatabase.patience)
        try execute(settings)
        // Opening reads nothing, so this read detects a file that is not a database.
        _ = try integer("SELECT * FROM sqlite_master LIMIT 1")
    }

    deinit { close() }

    func close() {
        statements = [:]
        _ = sqlite3_close_v2(handle)
        handle = nil
    }

    // MARK: Statements

    /// Everything in `sql`, one statement after the other.
    func execute(_ sql: String) throws {
        var rest = sql[...]
        while !rest.allSatisfy({ $0.isWhitespace }) {
            let statement = try LedgerStatement(self, String(rest), rest: &rest)
            try statement.run()
        }
    }

    func statement(_ sql: String) throws -> LedgerStatement {
        if let known = statements[sql] {
            known.reset()
            return known
        }
        let made = try LedgerStatement(self, sql)
        statements[sql] = made
        return made
    }

    func run(_ sql: String, _ values: [Int64]) throws {
        let statement = try statement(sql)
        statement.bind(values)
        try statement.run()
    }

    /// The first column of the first row; nil: there is no row, or nothing in it.
    func integer(_ sql: String, _ values: [Int64] = []) throws -> Int64? {
        let statement = try statement(sql)
        statement.bind(values)
        defer { statement.reset() }
        return try statement.step() && !statement.isNull(0) ? statement.integer(0) : nil
    }

    func text(_ sql: String) throws -> String? {
        let statement = try statement(sql)
        defer { statement.reset() }
        return try statement.step() && !statement.isNull(0) ? statement.text(0) : nil
    }

    /// Rows that the last statement changed.
    var changes: Int { Int(sqlite3_changes(handle)) }

    // MARK: Transactions

    /// `body` reads one consistent state.
    func read<Result>(_ body: (LedgerDatabase) throws -> Result) throws -> Result {
        try transaction("BEGIN DEFERRED TRANSACTION", body)
    }

    /// All changes of `body`, or none.
    func write<Result>(_ body: (LedgerDatabase) throws -> Result) throws -> Result {
        try transaction("BEGIN IMMEDIATE TRANSACTION", body)
    }

    private func transaction<Result>(_ begin: String, _ body: (LedgerDatabase) throws -> Result) throws -> Result {
        try run(begin, [])
        do {
            let result = try body(self)
            try run("COMMIT TRANSACTION", [])
            return result
        } catch {
            // SQLite may have done so by itself.
            if sqlite3_get_autocommit(handle) == 0 { try? run("ROLLBACK TRANSACTION", []) }
            throw error
        }
    }

    /// Moves what it can of the log into the file, without waiting for readers.
    func checkpoint() throws {
        let code = sqlite3_wal_checkpoint_v2(handle, "main", SQLITE_CHECKPOINT_PASSIVE, nil, nil)
        guard code == SQLITE_OK else { throw failure(code) }
    }

    /// - Parameter sql: what was being done.
    func failure(_ code: Int32, sql: String? = nil) -> DatabaseError {
        DatabaseError(code, handle.flatMap { sqlite3_errmsg($0) }.map { String(cString: $0) }, sql: sql)
    }
}
