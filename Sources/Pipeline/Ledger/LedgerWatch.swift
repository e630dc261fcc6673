import CLinux
import CSQLite
import Pipeline

/// Detects foreign changes of a ledger's files. SQLite uses its cache, and does not notice a removed or overwritten
/// file until it reads from it.
struct LedgerWatch {
    enum Found: Equatable {
        case same
        /// Another program wrote to it, perhaps legitimately.
        case touched
        case gone(String)
    }

    private let path: String
    private var file: FileStamp?
    private var log: FileStamp?

    init(_ path: String) { self.path = path }

    /// Records the files after our own write.
    mutating func wrote() { (file, log) = (FileStamp(path), FileStamp(path + "-wal")) }

    func look() -> Found {
        guard let now = FileStamp(path) else {
            return .gone("was removed while in use: its data is lost, and a new ledger is started")
        }
        guard let file else { return .touched }
        guard now.isSameFile(file) else {
            return .gone("was replaced while in use: the old file's data is lost")
        }
        if let log {
            guard let found = FileStamp(path + "-wal"), found.isSameFile(log) else {
                return .gone("lost its log, \(path)-wal: the node writes the log's data again and reopens the ledger")
            }
        }
        return now == file ? .same : .touched
    }
}

/// A check of a whole database, limited to a few seconds.
enum LedgerCheck {
    private static let patience: UInt64 = 5_000_000_000

    /// What is wrong with it; nil: nothing found in time. By SQLite only, without mmap: closing a descriptor of ours
    /// would release its locks, and a truncated map would kill the process.
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
