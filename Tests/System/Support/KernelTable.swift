import Glibc
import TestSupport

/// A table of the kernel's under /proc.
enum KernelTable {
    /// All of it. Foundation takes a file that says it has no bytes to be over after one read, which is a page: some twenty
    /// sockets.
    static func read(_ path: String) throws -> String {
        let fd = open(path, O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { throw Failure(call: "open \(path)") }
        defer { close(fd) }
        var bytes: [UInt8] = []
        var page = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = Glibc.read(fd, &page, page.count)
            guard count >= 0 else { throw Failure(call: "read \(path)") }
            if count == 0 { return String(decoding: bytes, as: UTF8.self) }
            bytes += page[..<count]
        }
    }
}
