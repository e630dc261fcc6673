import CLinux
import CSQLite
import Pipeline

/// Whether a ledger's files are what its writer left. SQLite looks at what it has in memory: a file that somebody removed or
/// wrote over is missed for as long as nothing is read from it.
struct LedgerWatch {
    enum Found: Equatable {
        case same
        /// Somebody else wrote to it, maybe with right.
        case touched
        case gone(String)
    }

    private let path: String
    private var file: FileStamp?
    private var log: FileStamp?

    init(_ path: String) { self.path = path }

    /// The writer has written: what lies there now is its own.
    mutating func wrote() { (file, log) = (FileStamp(path), FileStamp(path + "-wal")) }

    func look() -> Found {
        guard let now = FileStamp(path) else {
            return .gone("was removed while the node wrote to it: what was in it is lost, and a new one is begun")
        }
        guard let file else { return .touched }
        guard now.isSameFile(file) else {
            return .gone("was replaced while the node wrote to it: what was in the old one is lost to it")
        }
        if let log {
            guard let found = FileStamp(path + "-wal"), found.isSameFile(log) else {
                return .gone("lost its log, \(path)-wal: what was in that is written to it, and it is opened again")
            }
        }
        return now == file ? .same : .touched
    }
}

/// A look through a whole database, for no longer than a few seconds.
enum LedgerCheck {
    private static let patience: UInt64 = 5_000_000_000

    /// What is wrong with it; nil: nothing that was found in time. By SQLite alone, and not mapped: a descriptor of ours would
    /// end its locks when it is closed, and what is cut off beneath a map ends the process.
    static func run(_ path: String) throws -> String? {
        let database = try LedgerDatabase(path, isReadOnly: true)
        return try database.read { db in
            let end = UnsafeMutablePointer<UInt64>.allocate(capacity: 1)
            end.initialize(to: cl_wall_clock() + patience)
            sqlite3_progress_handler(
                db.handle, 10_000,
                { end in
                    guard let end = end?.assumingMemoryBound(to: UInt64.self) else { return 0 }
                    return cl_wall_clock() > end.pointee ? 1 : 0
                }, end)
            defer {
                sqlite3_progress_handler(db.handle, 0, nil, nil)
                end.deallocate()
            }
            do {
                _ = try LedgerFile.check(db, path)
                let said = try db.text("PRAGMA quick_check(1)") ?? ""
                return said == "ok" ? nil : said
            } catch let error as DatabaseError where error.code == SQLITE_INTERRUPT {
                return nil
            }
        }
    }
}
