import Foundation
import Glibc
import TestSupport

/// A cgroup (v1 or v2) that bounds the memory of what runs in it. Needs root.
final class MemoryGroup: Sendable {
    private let folder: String
    private static let next = Counter(start: 0)

    /// Why there can be none here; nil: there can.
    static let obstacle: String? = {
        guard geteuid() == 0 else { return "needs root" }
        guard (try? MemoryGroup(bytes: 64 << 20)) != nil else { return "no cgroup that bounds memory can be made here" }
        return nil
    }()

    init(bytes: Int) throws {
        let name = "pipelined-\(getpid())-\(MemoryGroup.next.take())"
        let first = "/sys/fs/cgroup/memory"
        let isFirst = FileManager.default.fileExists(atPath: first + "/memory.limit_in_bytes")
        folder = (isFirst ? first : "/sys/fs/cgroup") + "/" + name
        guard mkdir(folder, 0o755) == 0 else { throw Failure("mkdir \(folder): error \(errno)") }
        do {
            try write(String(bytes), to: isFirst ? "memory.limit_in_bytes" : "memory.max")
        } catch {
            rmdir(folder)
            throw error
        }
    }

    // What ran in it has been waited for.
    deinit { rmdir(folder) }

    /// What to put in front of a command so that it runs in it.
    var prefix: [String] { ["/bin/sh", "-c", "echo $$ > \(folder)/cgroup.procs && exec \"$@\"", "sh"] }

    private func write(_ text: String, to file: String) throws {
        // An existing file of the kernel's: nothing that is written beside it and renamed.
        guard let handle = FileHandle(forWritingAtPath: folder + "/" + file) else {
            throw Failure("\(folder)/\(file) can't be written")
        }
        try handle.write(contentsOf: Data(text.utf8))
        try handle.close()
    }
}
