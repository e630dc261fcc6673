import CLinux
import Pipeline
import PipelineThreads

/// A listening socket. A worker accepts from it; the holder of this object closes it, once.
package struct ListenerSocket: ~Copyable {
    package let descriptor: Descriptor
    package let endpoint: Endpoint

    /// Binds and listens. `reusePort` lets each worker have its own queue on the same endpoint.
    /// - Throws: ``ListenError`` that says which address, why, and what to do.
    package static func open(_ spec: ListenerSpec, settings: NodeSettings, reusePort: Bool = true) throws(ListenError)
        -> ListenerSocket
    {
        var at = cl_endpoint(spec.endpoint)
        let fd = withOptions(spec, settings, reusePort: reusePort) { cl_listen(&at, &$0) }
        guard fd >= 0 else { throw ListenError(spec, error: -fd, congestion: settings.congestionClient) }
        var bound = cl_endpoint()
        let known = cl_local_endpoint(fd, &bound) == 0
        return ListenerSocket(descriptor: Descriptor(fd), endpoint: known ? Endpoint(bound) : spec.endpoint)
    }

    /// Makes a socket that listens where `spec` is what ``open(_:settings:reusePort:)`` would have made of it, as far as
    /// that can change while it listens. Its queue stays.
    package static func inherit(
        _ descriptor: Descriptor, _ spec: ListenerSpec, settings: NodeSettings
    ) throws(ListenError) {
        let failed = withOptions(spec, settings, reusePort: true) { cl_listener_inherit(descriptor.number, &$0) }
        guard failed >= 0 else { throw ListenError(spec, error: -failed, congestion: settings.congestionClient) }
    }

    /// Another descriptor of the same socket.
    package static func copy(of descriptor: Descriptor, _ spec: ListenerSpec) throws(ListenError) -> ListenerSocket {
        let copy = cl_copy_descriptor(descriptor.number)
        guard copy >= 0 else { throw ListenError(spec, error: -copy) }
        return ListenerSocket(descriptor: Descriptor(copy), endpoint: spec.endpoint)
    }

    private static func withOptions(
        _ spec: ListenerSpec, _ settings: NodeSettings, reusePort: Bool, _ make: (inout cl_listen_options) -> Int32
    ) -> Int32 {
        let congestion = SocketOptions.persistentName(settings.congestionClient)
        let interface = SocketOptions.persistentName(spec.options.interface)
        defer {
            SocketOptions.release(congestion)
            SocketOptions.release(interface)
        }
        var options = cl_listen_options(
            backlog: spec.backlog(settings),
            keepalive_idle_s: SocketOptions.seconds(settings.keepaliveIdle),
            user_timeout_ms: SocketOptions.milliseconds(settings.userTimeout),
            defer_accept_s: 0, reuse_port: reusePort ? 1 : 0, congestion: congestion, mode: spec.mode.number,
            interface: interface, fast_open: Int32(clamping: spec.options.fastOpen),
            multipath: spec.options.multipath ? 1 : 0)
        return make(&options)
    }

    /// Applies a changed `spec` to an open listening socket.
    package static func adapt(_ descriptor: Descriptor, to spec: ListenerSpec) throws(ListenError) {
        guard spec.mode == .transparent else { return }
        let failed = cl_set_transparent(descriptor.number)
        guard failed == 0 else {
            throw ListenError(spec, error: -failed)
        }
    }

    /// Applies the spec's `backlog` and `fastopen` to an open listening socket.
    package static func tune(_ descriptor: Descriptor, to spec: ListenerSpec, _ settings: NodeSettings) -> Bool {
        cl_listen_again(
            descriptor.number, spec.backlog(settings), Int32(clamping: spec.options.fastOpen)) == 0
    }

    /// Whether it takes Multipath TCP.
    package static func isMultipath(_ descriptor: Descriptor) -> Bool { cl_is_multipath(descriptor.number) != 0 }

    package consuming func close() { _ = cl_close(descriptor.number) }

    /// Hands the descriptor over: the receiver closes it.
    package consuming func release() -> Descriptor { descriptor }

    /// Closes a descriptor that was handed over but not taken.
    package static func close(_ descriptor: Descriptor) { _ = cl_close(descriptor.number) }
}

extension ListenerSpec {
    func backlog(_ settings: NodeSettings) -> Int32 { Int32(clamping: options.backlog ?? settings.backlog) }
}

extension ListenerMode {
    /// As cl_listen has it.
    fileprivate var number: Int32 {
        switch self {
        case .direct: Int32(CL_DIRECT)
        case .transparent: Int32(CL_TRANSPARENT)
        case .redirect: Int32(CL_REDIRECT)
        }
    }
}

/// A listener that could not be opened.
package struct ListenError: Error, Sendable, CustomStringConvertible {
    package let endpoint: Endpoint
    package let error: Int32
    let congestion: String?
    let mode: ListenerMode
    package let interface: String?
    /// The machine's status of an address that could not be bound.
    private let address: Int32

    /// - Parameter error: an errno.
    package init(_ spec: ListenerSpec, error: Int32, congestion: String? = nil) {
        let endpoint = spec.endpoint
        mode = spec.mode
        interface = spec.options.interface
        self.endpoint = endpoint
        self.error = error
        self.congestion = congestion
        var at = cl_endpoint(endpoint)
        address = error == 99 && !endpoint.address.isIPv4 ? cl_address_state(&at) : Int32(CL_ADDRESS_ABSENT)
    }

    private static let shown = 20

    /// As lines; of a range that can't be opened, the first few.
    package static func lines(_ errors: [ListenError]) -> [String] {
        let rest = errors.count > shown ? ["\(errors.count - shown) more listeners can't be opened"] : []
        return errors.prefix(shown).map(\.description) + rest
    }

    /// Duplicate address detection (RFC 4862) is running: the address is usable in a second or two.
    package var isTentative: Bool { address == Int32(CL_ADDRESS_TENTATIVE) }

    package var description: String {
        "can't listen on \(endpoint)\(interface.map { " at \($0)" } ?? ""): \(cause.problem); \(cause.remedy)"
    }

    private var cause: (problem: String, remedy: String) {
        switch error {
        case ErrorNumber.addressInUse:
            (
                "the port is taken",
                "find the process with `ss -ltnp 'sport = :\(endpoint.port)'` and stop it, or choose another port"
            )
        case ErrorNumber.addressNotAvailable where isTentative:
            (
                "the address \(endpoint.address) is tentative: duplicate address detection is still running",
                "try again in a moment, or add it with `nodad`"
            )
        case ErrorNumber.addressNotAvailable where address == Int32(CL_ADDRESS_DUPLICATE):
            (
                "another host has the address \(endpoint.address): duplicate address detection has failed",
                "remove it from one of the hosts"
            )
        case ErrorNumber.addressNotAvailable:
            (
                "this node does not have the address \(endpoint.address)",
                "add it (`ip addr add`), or listen on [::] or 0.0.0.0"
            )
        case ErrorNumber.noDevice:
            (
                "this node has no interface \(interface ?? "")",
                "see `ip link`, or start the node after what makes the interface"
            )
        case ErrorNumber.notPermitted where interface != nil:
            (
                "no permission to bind to the interface \(interface ?? "")",
                "run with CAP_NET_RAW (systemd: AmbientCapabilities=), which Linux before 5.7 asks for, or as root"
            )
        case ErrorNumber.notPermitted where mode.intercepts:
            (
                "no permission to intercept connections (`\(mode.rawValue)`)",
                "run with CAP_NET_ADMIN (systemd: AmbientCapabilities=), or as root"
            )
        case ErrorNumber.accessDenied, ErrorNumber.notPermitted:
            (
                "no permission for port \(endpoint.port)",
                "run with CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), or use a port above 1023"
            )
        case ErrorNumber.tooManyFilesInSystem, ErrorNumber.tooManyFiles:
            (
                "no free file descriptor",
                "raise the limit of open files (systemd: LimitNOFILE=), or lower `connections`"
            )
        case ErrorNumber.familyNotSupported:
            ("this kernel does not support the address family", "enable IPv6, or listen on an IPv4 address")
        case ErrorNumber.noEntry:
            (
                "congestion control '\(congestion ?? "")' is not available",
                "see `sysctl net.ipv4.tcp_available_congestion_control`, or load its module"
            )
        default: (kernelError(error), "see `errno \(errorName(error))`")
        }
    }
}
