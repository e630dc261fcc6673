import Glibc

/// A file as it lies on the disk.
struct FileStamp: Equatable {
    let device: UInt
    let inode: UInt
    let size: Int
    let seconds: Int
    let nanoseconds: Int

    /// Nil: there is none.
    init?(_ path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        (device, inode, size) = (UInt(status.st_dev), UInt(status.st_ino), Int(status.st_size))
        (seconds, nanoseconds) = (status.st_mtim.tv_sec, status.st_mtim.tv_nsec)
    }

    func isSameFile(_ other: FileStamp) -> Bool { device == other.device && inode == other.inode }
}

/// A ledger that no node has open, without log files. It is read without locks or writes, so without write permission;
/// afterwards the reader checks that it stayed so.
struct LedgerRest {
    private let path: String
    private let stamp: FileStamp?

    /// Nor is it being made: until it has a log, it has a journal.
    private static func isAtRest(_ path: String) -> Bool {
        FileStamp(path + "-wal") == nil && FileStamp(path + "-journal") == nil
    }

    /// Before it is opened.
    init(_ path: String) {
        self.path = path
        stamp = LedgerRest.isAtRest(path) ? FileStamp(path) : nil
    }

    var wasAtRest: Bool { stamp != nil }

    /// False: a node opened it meanwhile, and the data may be inconsistent.
    var held: Bool { stamp == nil || LedgerRest.isAtRest(path) && FileStamp(path) == stamp }
}
