import CLinux

/// Disk space kept for a full disk (a ballast file): given back when there is no room, so that a bounded amount more can
/// be logged.
struct StateReserve {
    static let name = "reserve"

    private let path: String
    private let directory: String
    private let bytes: Int
    private let disk: any Disk
    private(set) var isHeld = false

    /// - Parameter bytes: 0: none is kept.
    init(directory: String, bytes: Int, _ disk: any Disk) {
        path = directory + "/" + StateReserve.name
        self.directory = directory
        self.bytes = bytes
        self.disk = disk
        var status = DiskStatus()
        isHeld = bytes == 0 || disk.status(path, &status) >= 0 && status.kind == .file && status.size >= bytes
    }

    /// Takes it, if that leaves as much again to others.
    mutating func take() {
        guard !isHeld else { return }
        guard disk.freeBytes(directory) >= 2 * bytes else { return }
        let file = disk.open(path, .empty)
        guard file >= 0 else { return }
        isHeld = disk.allocate(file, from: 0, count: bytes) >= 0
        disk.close(file)
        if !isHeld { _ = disk.remove(path) }
    }

    /// - Returns: whether there was something to give back.
    mutating func release() -> Bool {
        guard isHeld, bytes > 0 else { return false }
        isHeld = false
        return disk.remove(path) >= 0
    }
}
