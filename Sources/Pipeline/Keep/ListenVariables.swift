import CLinux
import Glibc

/// A descriptor that this process was started with, and what its giver calls it.
package struct GivenDescriptor: Equatable, Sendable {
    package let descriptor: Int32
    package let name: String
}

/// What sd_listen_fds(3) says: descriptors from 3 on; `LISTEN_PID` for which process, `LISTEN_FDS` how many,
/// `LISTEN_FDNAMES` their names.
package enum ListenVariables {
    package static let first: Int32 = 3
    /// The most that are looked at; R27.
    package static let most = 65536
    package static let pid = "LISTEN_PID"
    package static let count = "LISTEN_FDS"
    package static let names = "LISTEN_FDNAMES"

    /// Those of this process; programs that it starts don't get them. Call it before the process opens anything, once: the
    /// variables are gone afterwards.
    package static func take() -> [GivenDescriptor] {
        let values = [pid, count, names].map { name in
            defer { unsetenv(name) }
            return getenv(name).map { String(cString: $0) }
        }
        let names = read(process: values[0], count: values[1], names: values[2], ourProcess: cl_process_id())
        return names.enumerated().compactMap { index, name -> GivenDescriptor? in
            let number = first + Int32(clamping: index)
            // More may be promised than there are.
            guard cl_close_on_exec(number) >= 0 else { return nil }
            return GivenDescriptor(descriptor: number, name: name)
        }
    }

    /// The name of each descriptor; empty: none is for this process.
    package static func read(process: String?, count: String?, names: String?, ourProcess: Int32) -> [String] {
        guard let process, Int32(process) == ourProcess, let count = count.flatMap({ Int($0) }), count > 0 else {
            return []
        }
        let given = (names ?? "").split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        return (0..<min(count, most)).map { $0 < given.count && !given[$0].isEmpty ? given[$0] : "unknown" }
    }
}
