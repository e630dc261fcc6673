import Foundation

/// TCP congestion controls that a test may ask for by name.
package enum CongestionControl {
    /// Whether this kernel has `name`, and lets this user have it.
    package static func isUsable(_ name: String) -> Bool {
        let list = geteuid() == 0 ? "tcp_available_congestion_control" : "tcp_allowed_congestion_control"
        let names = try? String(contentsOfFile: "/proc/sys/net/ipv4/\(list)", encoding: .ascii)
        return names?.split(whereSeparator: \.isWhitespace).contains(Substring(name)) ?? false
    }
}
