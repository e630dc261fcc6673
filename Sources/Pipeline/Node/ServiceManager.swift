import CLinux
import Glibc
import Pipeline
import PipelineRuntime

/// Tells the service manager how the service is (sd_notify(3)), if it asked for that, and has it keep descriptors.
package struct ServiceManager: Sendable {
    private let socket: String?

    package init(environment: (String) -> String? = { getenv($0).map { String(cString: $0) } }) {
        socket = environment("NOTIFY_SOCKET").flatMap { $0.hasPrefix("/") || $0.hasPrefix("@") ? $0 : nil }
    }

    /// It asked for messages.
    var isThere: Bool { socket != nil }

    /// No answer is expected, and a missing manager has no effect.
    package func say(_ state: String) { _ = send(state, Descriptor.none) }

    package func ready(_ status: String) { say("READY=1\nSTATUS=\(status)") }
    package func reloading() { say("RELOADING=1\nMONOTONIC_USEC=\(cl_now() / 1000)") }
    package func stopping() { say("STOPPING=1") }

    /// Has it keep a copy of a descriptor for the next process, under that name; it forgets without a word what is more
    /// than it is configured to keep.
    /// - Returns: a negated errno if it could not be told.
    func store(_ descriptor: Descriptor, _ name: String) -> Int32 {
        send("FDSTORE=1\nFDNAME=\(name)", descriptor)
    }

    /// Has it close what it keeps under a name.
    func remove(_ name: String) -> Int32 { send("FDSTOREREMOVE=1\nFDNAME=\(name)", Descriptor.none) }

    private func send(_ state: String, _ descriptor: Descriptor) -> Int32 {
        guard let socket else { return 0 }
        let bytes = Array(state.utf8)
        return bytes.withUnsafeBytes { cl_send_descriptor(socket, $0.baseAddress, $0.count, descriptor.number) }
    }
}
