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

/// A ledger that no node has open: its log is in it, and nothing is beside it. Then it is read as it lies, which writes
/// nothing and needs no right to; that it stayed so is to be looked at afterwards.
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

    /// False: a node began with it meanwhile, and what was read may be of two moments.
    var held: Bool { stamp == nil || LedgerRest.isAtRest(path) && FileStamp(path) == stamp }
}
