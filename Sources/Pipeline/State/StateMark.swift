import CLinux
import Glibc

/// A small file beside the records, which is replaced whole: what must be known of a start that does not come to its end.
extension StateStore {
    /// Nil: there is none that can be used.
    public func readMark(_ name: String) -> [UInt8]? {
        let path = "\(directory)/\(name)"
        var found: [StateNotice] = []
        do throws(StateFault) { try place.clear(name, place.exposure, &found) } catch { return nil }
        found.forEach(note)
        var status = DiskStatus()
        guard disk.status(path, &status) >= 0, status.size <= StateStore.longestMark else { return nil }
        let file = disk.open(path, .read)
        guard file >= 0 else { return nil }
        defer { disk.close(file) }
        var bytes = [UInt8](repeating: 0, count: status.size)
        let count = bytes.withUnsafeMutableBytes { disk.read(file, $0, at: 0) }
        return count == bytes.count ? bytes : nil
    }

    private static let longestMark = 4096

    /// Durable on return. A fault leaves the one before.
    public func writeMark(_ name: String, _ bytes: [UInt8]) throws(StateFault) {
        let path = "\(directory)/\(name)"
        let new = "\(path).new"
        let file = disk.open(new, .empty)
        guard file >= 0 else { throw StateFault.of(path, "making it", file) }
        var failed = bytes.withUnsafeBytes { disk.write(file, $0, at: 0) }
        if failed >= 0 { failed = disk.sync(file) }
        disk.close(file)
        if failed >= 0 { failed = disk.rename(new, to: path) }
        if failed >= 0 { failed = disk.syncDirectory(directory) }
        guard failed >= 0 else {
            _ = disk.remove(new)
            throw StateFault.of(path, "writing it", failed)
        }
    }

    /// What could not be removed is found again.
    public func removeMark(_ name: String) {
        guard disk.remove("\(directory)/\(name)") >= 0 else { return }
        _ = disk.syncDirectory(directory)
    }
}
