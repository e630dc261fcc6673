import CLinux
import Glibc

/// Groups of users of this host.
package enum Groups {
    package enum Lookup: Equatable {
        case number(UInt32)
        case unknown
        /// Whoever knows them can't be asked: an errno.
        case failed(Int32)
    }

    /// - Parameter name: or its number, which need not have a name.
    package static func find(_ name: String) -> Lookup {
        if let number = UInt32(name), number != UInt32.max { return .number(number) }
        var number: UInt32 = 0
        switch cl_group_number(name, &number) {
        case 0: return .number(number)
        case -ENOENT: return .unknown
        case let error: return .failed(-error)
        }
    }

    /// The names of this host's own, for hints.
    package static var names: [String] {
        Files.lines("/etc/group").compactMap { $0.split(separator: ":").first.map(String.init) }
    }
}
