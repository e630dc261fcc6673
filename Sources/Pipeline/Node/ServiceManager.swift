import CLinux
import Glibc

/// Tells systemd how the service is (sd_notify(3)), if it asked for that.
package struct ServiceManager: Sendable {
    private let socket: String?

    package init(environment: (String) -> String? = { getenv($0).map { String(cString: $0) } }) {
        socket = environment("NOTIFY_SOCKET").flatMap { $0.hasPrefix("/") || $0.hasPrefix("@") ? $0 : nil }
    }

    /// No answer is expected, and a missing manager has no effect.
    package func say(_ state: String) {
        guard let socket else { return }
        let bytes = Array(state.utf8)
        _ = bytes.withUnsafeBytes { cl_send_datagram(socket, $0.baseAddress, $0.count) }
    }

    package func ready(_ status: String) { say("READY=1\nSTATUS=\(status)") }
    package func reloading() { say("RELOADING=1\nMONOTONIC_USEC=\(cl_now() / 1000)") }
    package func stopping() { say("STOPPING=1") }
}
