import CLinux
import Glibc
import Pipeline

/// A ledger's database file: opened, created, migrated, or set aside if damaged.
enum LedgerFile {
    /// `pldg`, so that no other database is mistaken for a ledger.
    private static let applicationID: Int64 = 0x706C_6467

    /// - Parameters:
    ///   - isAtRest: to read a file that ``LedgerRest`` found at rest.
    ///   - say: gets migration events. - Throws: ``LedgerProblem`` for a file that must not be touched, `DatabaseError`
    ///     for the rest.
    static func open(
        _ path: String, isReadOnly: Bool = false, isAtRest: Bool = false, say: (LedgerEvent) -> Void = { _ in }
    ) throws
        -> LedgerDatabase
    {
        try checkKind(path)
        if isReadOnly { return try openToRead(path, isAtRest) }
        makeFolder(path)
        keepFromOthers(path)
        let database = try LedgerDatabase(path, settings: settings)
        guard try database.text("PRAGMA journal_mode = WAL") == "wal" else {
            throw DatabaseError(DatabaseError.unknown, "could not activate WAL Mode at path: \(path)")
        }
        try database.write { try prepare($0, path, say) }
        return database
    }

    private static let settings =
        "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY"

    /// SQLite would block on a pipe, and read nothing from a device.
    private static func checkKind(_ path: String) throws {
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG else { return }
        throw LedgerProblem("\(path) is not a ledger of pipelined: it is not a regular file")
    }

    /// Creates the last part of its directory if missing, accessible to the node and its group only.
    private static func makeFolder(_ path: String) {
        guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return }
        mkdir(String(path[..<slash]), 0o750)
    }

    /// Accessible to the node and its group only, since it shows who talks to whom. SQLite copies the mode to its other
    /// files. Before any connection, because closing a descriptor of the file would release SQLite's locks.
    private static func keepFromOthers(_ path: String) {
        let made = Glibc.open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0o640)
        if made >= 0 { close(made) }
        for file in [path, path + "-wal", path + "-shm"] {
            var status = stat()
            guard stat(file, &status) == 0, status.st_mode & 0o007 != 0 else { continue }
            chmod(file, status.st_mode & 0o770)
        }
    }

    /// A node creates its ledger while it already serves: a reader may find no file, or one without tables.
    private static func openToRead(_ path: String, _ isAtRest: Bool) throws -> LedgerDatabase {
        guard access(path, F_OK) == 0 || errno != ENOENT else {
            throw LedgerProblem(
                "there is no ledger at \(path): a node with `ledger \(path)` creates it when it starts")
        }
        do {
            let database = try LedgerDatabase(
                isAtRest ? uri(path) : path, isReadOnly: true, isURI: isAtRest,
                settings: settings + "; PRAGMA mmap_size = 4294967296")
            try database.read { db in
                guard try !isEmpty(db) else { throw notReady(path, "it is still empty") }
                let found = try check(db, path)
                guard found == LedgerSchema.version else {
                    throw LedgerProblem(
                        "\(path) was written by an older pipelined (format \(found)): a node that starts with it "
                            + "converts it to format \(LedgerSchema.version), and then logs `ledger_migrated`; try "
                            + "again after that"
                    )
                }
            }
            return database
        } catch let error as DatabaseError where error.isOfMaking && isAccessible(path) {
            throw notReady(path, "a node seems to be creating it")
        }
    }

    /// Without lock, log or index files, which a read-only user could not create, and which would be left behind.
    private static func uri(_ path: String) -> String {
        let digits = Array("0123456789ABCDEF".utf8)
        var text: [UInt8] = Array("file:".utf8)
        for byte in path.utf8 {
            if "?#%".utf8.contains(byte) {
                text += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            } else {
                text.append(byte)
            }
        }
        return String(decoding: text, as: UTF8.self) + "?immutable=1"
    }

    /// A user without write permission may get these errors permanently: SQLite's message is better then.
    private static func isAccessible(_ path: String) -> Bool {
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return false }
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        return access(path, R_OK | W_OK) == 0 && access(folder, W_OK) == 0
    }

    private static func notReady(_ path: String, _ why: String) -> LedgerProblem {
        LedgerProblem(
            "the ledger \(path) is not ready yet: \(why). A node with `ledger \(path)` creates it within a moment of "
                + "its "
                + "start")
    }

    /// An empty database, which a writer turns into a ledger.
    private static func isEmpty(_ db: LedgerDatabase) throws -> Bool {
        try db.integer("SELECT count(*) FROM sqlite_master") == 0 && db.integer("PRAGMA application_id") == 0
    }

    /// - Returns: its format.
    static func check(_ db: LedgerDatabase, _ path: String) throws -> Int {
        let id = try db.integer("PRAGMA application_id") ?? 0
        let found = Int(try db.integer("PRAGMA user_version") ?? 0)
        guard id == applicationID, found > 0 else { throw LedgerProblem("\(path) is not a ledger of pipelined") }
        guard found <= LedgerSchema.version else {
            throw LedgerProblem(
                "\(path) was written by a newer pipelined (format \(found), this one knows \(LedgerSchema.version))")
        }
        return found
    }

    private static func prepare(_ db: LedgerDatabase, _ path: String, _ say: (LedgerEvent) -> Void) throws {
        let tables = try db.integer("SELECT count(*) FROM sqlite_master") ?? 0
        guard tables > 0 else {
            try db.execute(
                "PRAGMA application_id = \(applicationID); PRAGMA user_version = \(LedgerSchema.version)")
            return try LedgerSchema.create(db)
        }
        let found = try check(db, path)
        guard found < LedgerSchema.version else { return }
        say(
            LedgerEvent(
                event: "ledger_migrating",
                message: "\(path) is being converted from format \(found) to \(LedgerSchema.version): until then "
                    + "flows wait in memory, and reports are not available"))
        do {
            try LedgerSchema.migrate(db, from: found)
        } catch let error as DatabaseError where !error.isDamage {
            throw LedgerProblem(
                "\(path) can't be converted from format \(found) to \(LedgerSchema.version): \(error); free disk "
                    + "space, or move the file away to start a new ledger")
        }
        say(
            LedgerEvent(
                event: "ledger_migrated",
                message: "\(path) was converted from format \(found) to "
                    + "\(LedgerSchema.version)"
            ))
    }

    /// Renames a damaged database and its other files.
    /// - Returns: the new name; nil if it could not be renamed.
    static func setAside(_ path: String) -> String? {
        let name = "\(path).damaged-\(cl_wall_clock() / 1_000_000_000)"
        guard rename(path, name) == 0 else { return nil }
        for suffix in ["-wal", "-shm"] { _ = rename(path + suffix, name + suffix) }
        return name
    }
}
