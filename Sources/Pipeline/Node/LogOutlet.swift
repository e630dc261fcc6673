import CLinux
import Glibc
import Pipeline
import PipelineRuntime
import PipelineThreads

/// Where the lines of a log go: an open descriptor, or a syslog daemon, which is connected to when there is something
/// to send.
///
/// Threading: made by any thread, then the writer's. Ownership: closes its descriptor.
package final class LogOutlet: @unchecked Sendable {
    enum Place: Equatable, Sendable {
        /// `stdout` or `stderr`.
        case standard(String)
        case file(String)
        case syslog(SyslogSettings)
    }

    let place: Place
    private(set) var descriptor: Descriptor
    /// One of `CL_SINK_…`.
    let kind: Int32

    private init(_ place: Place, _ descriptor: Descriptor, kind: Int32) {
        (self.place, self.descriptor, self.kind) = (place, descriptor, kind)
    }

    deinit { close() }

    /// - Returns: nil, with an errno, if there is no descriptor for it.
    static func standard(_ number: Int32, _ name: String) -> (outlet: LogOutlet?, error: Int32) {
        var kind: Int32 = 0
        let own = cl_sink_open(number, &kind)
        guard own >= 0 else { return (nil, -own) }
        return (LogOutlet(.standard(name), Descriptor(own), kind: kind), 0)
    }

    /// Appends to it; makes it if there is none.
    static func file(_ path: String) -> (outlet: LogOutlet?, error: Int32) {
        let own = cl_log_open(path)
        guard own >= 0 else { return (nil, -own) }
        return (LogOutlet(.file(path), Descriptor(own), kind: Int32(CL_SINK_PATIENT)), 0)
    }

    static func syslog(_ settings: SyslogSettings) -> LogOutlet {
        LogOutlet(.syslog(settings), .none, kind: Int32(CL_SINK_SOCKET))
    }

    // MARK: Syslog

    /// An errno; 0: it is connected.
    func connect() -> Int32 {
        guard case .syslog(let settings) = place, !descriptor.isOpen else { return 0 }
        let made: Int32
        switch settings.address {
        case .unix(let path): made = cl_unix_datagram(path)
        case .udp(let endpoint):
            var to = cl_endpoint(high: endpoint.address.high, low: endpoint.address.low, port: endpoint.port)
            made = cl_connect_datagram(&to)
        }
        guard made >= 0 else { return -made }
        descriptor = Descriptor(made)
        return 0
    }

    func close() {
        if descriptor.isOpen { _ = cl_close(descriptor.number) }
        descriptor = .none
    }

    // MARK: Words

    /// A stream of datagrams has no lines that others could cut.
    var isStream: Bool { if case .syslog = place { false } else { true } }
    var isUDP: Bool { if case .syslog(let settings) = place { settings.address.isUDP } else { false } }
    var file: String? { if case .file(let path) = place { path } else { nil } }

    func isSame(as other: LogOutlet) -> Bool {
        isStream && other.isStream && cl_same_file(descriptor.number, other.descriptor.number) != 0
    }
}

extension LogDestination {
    /// For `status` and events: `stdout`, a path, `syslog unix:/dev/log`.
    package func text(_ standard: String) -> String {
        switch self {
        case .standard: standard
        case .file(let path): path
        case .syslog(let settings): "syslog \(settings.address)"
        }
    }
}

extension LogOutlet.Place {
    var text: String {
        switch self {
        case .standard(let name): name
        case .file(let path): path
        case .syslog(let settings): "syslog \(settings.address)"
        }
    }

    /// In messages.
    var subject: String {
        switch self {
        case .standard("stdout"): "standard output"
        case .standard: "standard error"
        case .file(let path): "the file \(path)"
        case .syslog(let settings): "syslog at \(settings.address)"
        }
    }
}

/// A log file that can't be opened.
package struct LogFileError: Error, CustomStringConvertible {
    package let path: String
    /// An errno.
    package let error: Int32
    package var description: String { "can't open the log file \(path): \(LogFileError.words(error))" }

    /// What is wrong, and what to do.
    static func words(_ error: Int32) -> String {
        switch error {
        case ENOENT, ENOTDIR: "its directory is not there; make it"
        case EACCES, EPERM: "this process may not write there; give its user the right to, or name another path"
        case ELOOP: "it is a symbolic link, which is not followed; name the file itself"
        case ENXIO: "it is no regular file; remove it, or name another path"
        case EISDIR: "it is a directory; name a file in it"
        case EROFS: "the file system is mounted read-only"
        case ENOSPC, EDQUOT: "the disk is full"
        case EMFILE, ENFILE: "no file descriptor is left; raise the limit of open files"
        default: kernelError(error)
        }
    }
}
