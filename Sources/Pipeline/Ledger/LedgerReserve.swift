import CLinux
import Glibc

/// Disk space that a ledger reserves for a full disk (a ballast file). SQLite writes before it frees: without a reserve
/// not even old rows could be removed.
struct LedgerReserve {
    /// More than the pages that one piece of a batch changes, twice.
    static let bytes = 16 << 20

    private let path: String
    private(set) var isHeld: Bool
    /// False on a disk that never had room for it.
    private(set) var wasHeld: Bool

    /// - Parameter ledger: the path of its database.
    init(ledger: String) {
        path = ledger + "-reserve"
        var status = stat()
        isHeld = stat(path, &status) == 0 && status.st_size == LedgerReserve.bytes
        wasHeld = isHeld
        take()
    }

    /// On a disk that is too small for a reserve: room for what a second brings.
    var isRoom: Bool { has(LedgerReserve.bytes / 4) }

    private func has(_ bytes: Int) -> Bool {
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        var space = statvfs()
        guard statvfs(folder, &space) == 0 else { return false }
        let (free, overflow) = UInt(space.f_bavail).multipliedReportingOverflow(by: UInt(space.f_frsize))
        return overflow || free >= UInt(bytes)
    }

    /// Takes it, if that leaves as much again to others.
    /// - Returns: true if it is held.
    @discardableResult mutating func take() -> Bool {
        if isHeld { return true }
        guard has(2 * LedgerReserve.bytes) else { return false }
        let file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else { return false }
        isHeld = posix_fallocate(file, 0, LedgerReserve.bytes) == 0
        _ = cl_close(file)
        if isHeld { wasHeld = true } else { unlink(path) }
        return isHeld
    }

    /// Frees the reserve.
    mutating func release() {
        unlink(path)
        isHeld = false
    }
}
