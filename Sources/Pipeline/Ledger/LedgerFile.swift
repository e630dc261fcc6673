import CLinux
import GRDB
import Glibc
import Pipeline

/// A ledger's database file: opened, made, or set aside if it is damaged.
enum LedgerFile {
    /// `pldg`, so that nobody's other database is taken for one.
    private static let applicationID: Int32 = 0x706C_6467
    private static let version = 1

    /// - Throws: ``LedgerProblem`` for what must not be touched, `DatabaseError` for the rest.
    static func open(_ path: String, isReadOnly: Bool = false) throws -> DatabaseQueue {
        var configuration = Configuration()
        configuration.readonly = isReadOnly
        configuration.busyMode = .timeout(2)
        configuration.label = "ledger"
        if !isReadOnly { configuration.journalMode = .wal }
        configuration.prepareDatabase { db in
            try db.execute(sql: "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY")
        }
        let queue = try DatabaseQueue(path: path, configuration: configuration)
        if isReadOnly { try queue.read { try check($0, path) } } else { try queue.write { try prepare($0, path) } }
        return queue
    }

    private static func check(_ db: Database, _ path: String) throws {
        let id = try Int32.fetchOne(db, sql: "PRAGMA application_id") ?? 0
        let found = try Int.fetchOne(db, sql: "PRAGMA user_version") ?? 0
        guard id == applicationID else { throw LedgerProblem("\(path) is no ledger of pipelined") }
        guard found <= version else {
            throw LedgerProblem(
                "\(path) was written by a newer pipelined (format \(found), this one knows \(version))")
        }
    }

    private static func prepare(_ db: Database, _ path: String) throws {
        let tables = try Int.fetchOne(db, sql: "SELECT count(*) FROM sqlite_master") ?? 0
        guard tables == 0 else { return try check(db, path) }
        try db.execute(sql: "PRAGMA application_id = \(applicationID); PRAGMA user_version = \(version)")
        try db.execute(
            sql: """
                CREATE TABLE owners(
                    id INTEGER PRIMARY KEY, instance TEXT NOT NULL, env TEXT NOT NULL, app TEXT NOT NULL,
                    org TEXT NOT NULL, UNIQUE(instance, env, app, org));
                CREATE TABLE marks(
                    run INTEGER NOT NULL, origin INTEGER NOT NULL, sequence INTEGER NOT NULL,
                    PRIMARY KEY(run, origin)) WITHOUT ROWID;
                """)
        for level in LedgerLevel.allCases {
            // The key begins with what reports go by: time, then whose it is. Addresses have 4 or 16 bytes.
            try db.execute(
                sql: """
                    CREATE TABLE \(level.table)(
                        at INTEGER NOT NULL, owner INTEGER NOT NULL, destination BLOB NOT NULL, port INTEGER NOT NULL,
                        proto INTEGER NOT NULL, connections INTEGER NOT NULL, bytes_out INTEGER NOT NULL,
                        bytes_in INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
                        PRIMARY KEY(at, owner, destination, port, proto)) WITHOUT ROWID
                    """)
        }
    }

    /// Renames a damaged database and what belongs to it.
    /// - Returns: the new name; nil if it could not be renamed.
    static func setAside(_ path: String) -> String? {
        let name = "\(path).damaged-\(cl_wall_clock() / 1_000_000_000)"
        guard rename(path, name) == 0 else { return nil }
        for suffix in ["-wal", "-shm"] { _ = rename(path + suffix, name + suffix) }
        return name
    }
}

extension DatabaseError {
    var isDamage: Bool { [.SQLITE_CORRUPT, .SQLITE_NOTADB].contains(resultCode) }
    /// No room on the disk, or the disk doesn't write.
    var isFull: Bool { [.SQLITE_FULL, .SQLITE_IOERR].contains(resultCode) }
}
