import CLinux
import Glibc
import PipelineThreads

/// A journal that can't be opened, read or written.
package struct JournalFault: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }

    /// - Parameter error: an errno.
    init(_ path: String, _ verb: String, error: Int32) {
        let cause: (String, String)
        switch error {
        case ENOSPC, EDQUOT: cause = ("the disk is full", "make room")
        case EROFS: cause = ("the file system is read-only", "see why it is, and mount it anew")
        case EACCES, EPERM: cause = ("no permission", "check its owner and mode (`ls -ld`)")
        case ENOENT: cause = ("there is nothing", "check the path")
        case ENOTDIR: cause = ("it is not a directory", "check the path")
        case ELOOP, ENXIO: cause = ("it is not a regular file", "move it away")
        case EIO: cause = ("the disk has failed", "see the kernel's log")
        default: cause = (kernelError(error), "see `errno \(errorName(error))`")
        }
        description = "can't \(verb) \(path): \(cause.0); \(cause.1)"
    }
}

/// The folder of a journal: numbered files, of which the highest is written, the last line's hash (``JournalHead``), and a
/// lock that a writer holds for each batch, since a node that drains writes beside its successor.
///
/// Ownership: closes its descriptors.
final class JournalFolder {
    let path: String
    let number: Int32
    private static let suffix = ".jsonl"
    private static let digits = 10
    static let lockName = "lock"

    private init(_ path: String, _ number: Int32) { (self.path, self.number) = (path, number) }
    deinit { _ = cl_close(number) }

    /// To write in: made with mode 0700, its parent too. A parent that is there keeps its mode.
    static func make(in parent: String) throws(JournalFault) -> JournalFolder {
        let outer = cl_folder_open(parent, 0o700)
        guard outer >= 0 else { throw JournalFault(parent, "open the directory", error: -outer) }
        defer { _ = cl_close(outer) }
        let path = parent + "/journal"
        let isNew = cl_folder_has(outer, "journal") == 0
        let folder = cl_folder_open(path, 0o700)
        guard folder >= 0 else { throw JournalFault(path, "open the directory", error: -folder) }
        let made = JournalFolder(path, folder)
        let failed = cl_folder_narrow(folder, 0o700)
        guard failed == 0 else { throw JournalFault(path, "change the mode of", error: -failed) }
        if isNew {
            let failed = cl_flush_all(outer)
            guard failed == 0 else { throw JournalFault(parent, "flush the directory", error: -failed) }
        }
        return made
    }

    /// To read. - Parameter path: of the folder, or of the data directory that has it.
    static func open(_ path: String) throws(JournalFault) -> JournalFolder {
        let trimmed = path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path
        var error: Int32 = 0
        for candidate in [trimmed + "/journal", trimmed] {
            let folder = cl_folder_open(candidate, 0)
            if folder >= 0 { return JournalFolder(candidate, folder) }
            if error == 0 || error == ENOENT { error = -folder }
        }
        throw JournalFault(trimmed, "open the directory", error: error)
    }

    // MARK: Files

    static func name(_ file: UInt64) -> String {
        let text = String(file)
        return String(repeating: "0", count: max(0, digits - text.count)) + text + suffix
    }

    func pathOf(_ name: String) -> String { "\(path)/\(name)" }

    /// Nil: it is no file of a journal.
    private static func number(_ name: String) -> UInt64? {
        guard name.hasSuffix(suffix), let number = UInt64(name.dropLast(suffix.count)), number > 0,
            JournalFolder.name(number) == name
        else { return nil }
        return number
    }

    /// The files' numbers, in order.
    func files() throws(JournalFault) -> [UInt64] {
        final class Found { var numbers: [UInt64] = [] }
        let found = Found()
        let failed = withExtendedLifetime(found) {
            cl_folder_names(number, Unmanaged.passUnretained(found).toOpaque()) { context, name in
                guard let context, let name, let number = JournalFolder.number(String(cString: name)) else { return }
                Unmanaged<Found>.fromOpaque(context).takeUnretainedValue().numbers.append(number)
            }
        }
        guard failed == 0 else { throw JournalFault(path, "read the directory", error: -failed) }
        return found.numbers.sorted()
    }

    func has(_ file: UInt64) -> Bool { cl_folder_has(number, JournalFolder.name(file)) == 1 }

    func open(_ name: String, _ how: Int) throws(JournalFault) -> JournalFile {
        let file = cl_folder_file(number, name, Int32(how))
        guard file >= 0 else { throw JournalFault(pathOf(name), "open", error: -file) }
        return JournalFile(pathOf(name), file)
    }

    func remove(_ file: UInt64) -> Int32 { -cl_folder_remove(number, JournalFolder.name(file)) }

    /// The names of files are on disk afterwards.
    func flush() throws(JournalFault) {
        let failed = cl_flush_all(number)
        guard failed == 0 else { throw JournalFault(path, "flush the directory", error: -failed) }
    }
}

/// An open file. Ownership: closes it.
final class JournalFile {
    let path: String
    let number: Int32
    init(_ path: String, _ number: Int32) { (self.path, self.number) = (path, number) }
    deinit { _ = cl_close(number) }

    func size() throws(JournalFault) -> Int64 {
        let size = cl_file_size(number)
        guard size >= 0 else { throw JournalFault(path, "read", error: Int32(clamping: -size)) }
        return size
    }

    /// The bytes from `start` on, up to `end`, in pieces; false ends it. One that is shorter by now ends early.
    func read(from start: Int64, to end: Int64, _ piece: (UnsafeRawBufferPointer) -> Bool) throws(JournalFault) {
        var place = start
        var room = [UInt8](repeating: 0, count: Int(clamping: min(1 << 18, max(1, end - start))))
        while place < end {
            let wanted = Int(clamping: min(Int64(room.count), end - place))
            let count = room.withUnsafeMutableBytes { cl_file_read(number, $0.baseAddress, wanted, place) }
            guard count >= 0 else { throw JournalFault(path, "read", error: Int32(clamping: -count)) }
            if count == 0 { return }
            place += Int64(count)
            guard room.withUnsafeBytes({ piece(UnsafeRawBufferPointer(rebasing: $0[..<count])) }) else { return }
        }
    }

    /// Writes at a place, where the file ends afterwards.
    func write(_ bytes: [UInt8], at place: Int64) throws(JournalFault) {
        var failed = bytes.withUnsafeBytes { cl_file_write(number, $0.baseAddress, $0.count, place) }
        if failed == 0, cl_file_size(number) > place + Int64(bytes.count) {
            failed = cl_file_resize(number, place + Int64(bytes.count))
        }
        guard failed == 0 else { throw JournalFault(path, "write", error: -failed) }
    }

    /// What was written is on disk afterwards.
    func flush() throws(JournalFault) {
        let failed = cl_file_sync(number)
        guard failed == 0 else { throw JournalFault(path, "flush", error: -failed) }
    }

    func cut(to size: Int64) { _ = cl_file_resize(number, size) }
}

extension JournalFile {
    /// Waits for the file's lock, which one writer of the folder at a time has, and holds it meanwhile.
    func locked<Result>(_ body: () throws(JournalFault) -> Result) throws(JournalFault) -> Result {
        let failed = cl_lock_file(number, 0, 1)
        guard failed == 0 else { throw JournalFault(path, "lock", error: -failed) }
        defer { _ = cl_unlock_file(number) }
        return try body()
    }

    /// The same for a reader, beside others, which waits for so many milliseconds and then goes on without.
    func lockedToRead<Result>(
        patience: Int, _ body: (_ isHeld: Bool) throws(JournalFault) -> Result
    ) throws(JournalFault) -> Result {
        var isHeld = cl_lock_file(number, 1, 0) == 0
        for _ in 0..<patience / 5 where !isHeld {
            cl_sleep(5_000_000)
            isHeld = cl_lock_file(number, 1, 0) == 0
        }
        defer { if isHeld { _ = cl_unlock_file(number) } }
        return try body(isHeld)
    }
}
