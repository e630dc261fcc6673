import CLinux
import Glibc
import PipelineThreads

/// A file that could not be read or written.
package struct FileError: Error, Sendable, Equatable, CustomStringConvertible {
    package let path: String
    package let problem: String
    package let remedy: String
    /// There is nothing at the path.
    package var isMissing = false

    package var description: String { "\(path): \(problem); \(remedy)" }

    package init(_ path: String, _ problem: String, remedy: String) {
        self.path = path
        self.problem = problem
        self.remedy = remedy
    }

    package init(_ path: String, _ verb: String, error: Int32) {
        self.path = path
        isMissing = error == ENOENT
        switch error {
        case ENOENT: (problem, remedy) = ("no such file", "check the path")
        case EACCES, EPERM: (problem, remedy) = ("no permission to \(verb) it", "check its owner and mode (`ls -l`)")
        case ENOTDIR: (problem, remedy) = ("a part of the path is not a directory", "check the path")
        case EISDIR: (problem, remedy) = ("it is a directory", "name a file in it")
        case EINVAL:
            (problem, remedy) = ("it is not a regular file", "name a regular file, or `-` where that is allowed")
        case ENOSPC: (problem, remedy) = ("the disk is full", "make room and try again")
        case EROFS: (problem, remedy) = ("the file system is read-only", "choose another place")
        case ENAMETOOLONG: (problem, remedy) = ("the path is too long", "use a shorter one")
        default: (problem, remedy) = ("can't \(verb) it: \(kernelError(error))", "see `errno \(errorName(error))`")
        }
    }
}

package enum Files {
    /// The bytes of a small file such as in /proc and /sys; empty if it can't be read.
    package static func lines(_ path: String) -> [Substring] {
        guard let bytes = try? read(path, limit: 1 << 20) else { return [] }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    }

    /// The bytes of a regular file of at most `limit` bytes (R27).
    package static func read(_ path: String, limit: Int) throws(FileError) -> [UInt8] {
        try readLooking(path, limit: limit).bytes
    }

    /// The same, with what it was when its reading began; not steady: somebody has written to it since.
    package static func readLooking(
        _ path: String, limit: Int
    ) throws(FileError) -> (bytes: [UInt8], sight: Sight?, isSteady: Bool) {
        let (file, size) = try open(path, limit: limit)
        defer { _ = cl_close(file) }
        // Those of /proc say 0.
        guard size == 0 || hasRoom(for: size) else {
            throw FileError(
                path, "not enough memory to read and parse its \(size) bytes",
                remedy: "give the process more (systemd: LimitAS=, MemoryMax=), or make it smaller")
        }
        let before = Sight.of(file: file)
        let bytes = try readAll(file, path, expected: Int(size), limit: limit)
        let after = Sight.of(file: file)
        // Its links may come and go.
        return (bytes, before, before?.size == after?.size && before?.modified == after?.modified)
    }

    /// A regular file of at most `limit` bytes, opened for reading: for whoever must read it itself. The caller closes it.
    package static func open(_ path: String, limit: Int) throws(FileError) -> (file: Int32, size: Int64) {
        guard !path.utf8.contains(0) else { throw FileError(path, "the path has a NUL", remedy: "check the path") }
        var size: Int64 = 0
        let file = cl_open_file(path, &size)
        guard file >= 0 else { throw FileError(path, "read", error: -file) }
        guard size <= limit else {
            _ = cl_close(file)
            throw tooLarge(path, limit)
        }
        return (file, size)
    }

    /// All of standard input, at most `limit` bytes.
    package static func readStandardInput(limit: Int) throws(FileError) -> [UInt8] {
        try readAll(0, "standard input", expected: 65536, limit: limit)
    }

    /// Replaces an existing file in one step.
    package static func replace(_ path: String, with bytes: [UInt8]) throws(FileError) {
        let failed = bytes.withUnsafeBytes { cl_replace_file(path, $0.baseAddress, $0.count) }
        guard failed == 0 else { throw FileError(path, "write", error: -failed) }
    }

    /// The paths that a pattern matches (glob(7)), in no order. A name that begins with a dot is matched by a dot alone.
    /// - Parameter directory: where a relative pattern begins, no part of it: empty, or with a `/` at its end.
    package static func matching(_ pattern: String, in directory: String, limit: Int) throws(FileError) -> [String] {
        let path = directory + pattern
        guard !path.utf8.contains(0) else { throw FileError(path, "the path has a NUL", remedy: "check the path") }
        let plain = directory.map { "*?[]\\".contains($0) ? "\\\($0)" : "\($0)" }.joined()
        var found = cl_paths()
        let failed = cl_match_paths(plain + pattern, Int32(clamping: limit), &found)
        defer { cl_free_paths(&found) }
        switch failed {
        case 0: break
        case -ENFILE:
            throw FileError(path, "it matches more than \(limit) files", remedy: "name fewer files")
        default:
            let place = found.failed.map { String(cString: $0) } ?? path
            throw FileError(place, "search", error: -failed)
        }
        return (0..<Int(found.count)).compactMap { found.paths?[$0].map { String(cString: $0) } }
    }

    /// What a file is, whichever path names it; nil: there is none.
    package static func identity(_ path: String) -> String? {
        var numbers: (UInt64, UInt64) = (0, 0)
        guard !path.utf8.contains(0), cl_path_identity(path, &numbers.0, &numbers.1) == 0 else { return nil }
        return "\(numbers.0):\(numbers.1)"
    }

    private static func tooLarge(_ path: String, _ limit: Int) -> FileError {
        FileError(path, "it has more than \(limit) bytes, which is the limit", remedy: "use a smaller file")
    }

    /// Whether enough address space is available to parse and apply a file of that size. Under a limit, a failed
    /// allocation in the middle would end the process.
    private static func hasRoom(for size: Int64) -> Bool {
        let need = Int(clamping: size).multipliedReportingOverflow(by: sizeOnceApplied)
        guard !need.overflow, need.partialValue <= Int.max - leastRoom else { return false }
        guard let probe = cl_map(need.partialValue + leastRoom) else { return false }
        cl_unmap(probe, need.partialValue + leastRoom)
        return true
    }

    /// A state file of a million routes takes four times its size.
    private static let sizeOnceApplied = 6
    private static let leastRoom = 8 << 20

    /// A file may grow while it is read: the limit applies to the bytes read.
    private static func readAll(
        _ file: Int32, _ path: String, expected: Int, limit: Int
    ) throws(FileError) -> [UInt8] {
        // /proc/sys returns a number in the first read only, cut to its size.
        let first = expected > 0 ? expected : 4095
        var bytes = [UInt8](repeating: 0, count: max(0, min(first, limit)) + 1)
        var count = 0
        while true {
            if count == bytes.count {
                guard count <= limit else { throw tooLarge(path, limit) }
                bytes.append(contentsOf: repeatElement(0, count: min(bytes.count, limit + 1 - bytes.count)))
            }
            let done = bytes.withUnsafeMutableBytes {
                cl_read(file, $0.baseAddress?.advanced(by: count), $0.count - count)
            }
            guard done >= 0 else { throw FileError(path, "read", error: Int32(truncatingIfNeeded: -done)) }
            if done == 0 { break }
            count += done
        }
        guard count <= limit else { throw tooLarge(path, limit) }
        bytes.removeLast(bytes.count - count)
        return bytes
    }
}
