import Foundation
import TestSupport

/// Soft limits of a process that runs (`prlimit`).
enum ProcessLimit {
    /// - Parameters:
    ///   - resource: as `prlimit` names it: `nofile`, `as`.
    ///   - soft: nil: as high as the hard one.
    static func set(_ resource: String, of pid: Int32, to soft: UInt64?) throws {
        let value = soft.map { "\($0)" } ?? "unlimited"
        let child = try Child("prlimit", ["--pid", "\(pid)", "--\(resource)=\(value):"])
        let exit = try child.waitForExit()
        guard exit == .code(0) else { throw Failure("prlimit --\(resource)=\(value): ended with \(exit)") }
    }

    /// The soft limit in a line of /proc/PID/limits.
    static func of(_ pid: Int32, _ line: String) throws -> UInt64 {
        let text = try String(contentsOfFile: "/proc/\(pid)/limits", encoding: .utf8)
        let found = try text.split(separator: "\n").first { $0.hasPrefix(line) }.unwrap(line)
        return try UInt64(found.dropFirst(line.count).split(separator: " ").first ?? "").unwrap("number in \(found)")
    }
}
