/// How connections reach a listener.
public enum ListenerMode: String, Hashable, Sendable, CaseIterable {
    /// Clients connect to it.
    case direct
    /// The kernel hands it connections to other addresses (TPROXY): the destination is the socket's local address.
    case transparent
    /// nftables rewrites the destination of connections to it: the original one is in conntrack.
    case redirect

    public var intercepts: Bool { self != .direct }
}

/// What a `listen` or `expose` line says of its sockets.
public struct ListenerOptions: Hashable, Sendable {
    /// Only connections that come in by this interface (SO_BINDTODEVICE); nil: by any.
    public var interface: String?
    /// Connections that may wait to be accepted, per worker; nil: as `node` says.
    public var backlog: Int?
    /// Connections with data in their SYN that may wait for the end of the handshake, per worker (TCP_FASTOPEN); 0: off.
    public var fastOpen = 0
    /// Multipath TCP, for clients that offer it.
    public var multipath = false

    public init() {}

    /// Whether a connection to one address and port may come to listeners with either. Of sockets with SO_REUSEPORT the
    /// kernel takes the first that fits, not the one that is bound to the interface.
    public func overlaps(_ other: ListenerOptions) -> Bool {
        interface == nil || other.interface == nil || interface == other.interface
    }
}

/// A `listen` line of the program, or one of its ports.
public struct ListenerSpec: Hashable, Sendable {
    /// Its address, and the first of its ports.
    public let endpoint: Endpoint
    public let lastPort: UInt16
    public let hint: ProtocolHint
    /// Index into ``Program/chains``.
    public let chain: Int
    public let line: ConfigLine
    public let mode: ListenerMode
    public let options: ListenerOptions

    /// - Parameter lastPort: of a range; nil: one port.
    public init(
        endpoint: Endpoint, lastPort: UInt16? = nil, hint: ProtocolHint, chain: Int, line: ConfigLine,
        mode: ListenerMode = .direct, options: ListenerOptions = ListenerOptions()
    ) {
        self.mode = mode
        self.endpoint = endpoint
        self.lastPort = max(lastPort ?? endpoint.port, endpoint.port)
        self.hint = hint
        self.chain = chain
        self.line = line
        self.options = options
    }
}

extension ListenerSpec {
    public var ports: ClosedRange<UInt16> { endpoint.port...lastPort }

    /// The same listener at one endpoint: a port of its range, or where it was bound.
    public func bound(at endpoint: Endpoint) -> ListenerSpec {
        ListenerSpec(endpoint: endpoint, hint: hint, chain: chain, line: line, mode: mode, options: options)
    }

    /// The word of a `listen` line: the mode if it intercepts, else the protocol hint.
    public var kindName: String { mode.intercepts ? mode.rawValue : hint.name }

    /// `[::]:443`, or `[::]:30000-30100`.
    public var placeText: String { lastPort > endpoint.port ? "\(endpoint)-\(lastPort)" : "\(endpoint)" }
}

/// `expose [::] ports 10000-19999 via raw`: ports that routes may open listeners on (R8).
public struct ExposeSpec: Hashable, Sendable {
    /// Where; 0.0.0.0 if ``isDedicated``.
    public let address: IPAddress
    public let ports: ClosedRange<UInt16>
    public let hint: ProtocolHint
    public let chain: Int
    public let line: ConfigLine
    /// R9: `expose dedicated_ipv4 ...`: on each env's own IPv4 address, for that env's routes.
    public let isDedicated: Bool
    public let options: ListenerOptions
    public init(
        address: IPAddress, ports: ClosedRange<UInt16>, hint: ProtocolHint, chain: Int, line: ConfigLine,
        isDedicated: Bool = false, options: ListenerOptions = ListenerOptions()
    ) {
        self.isDedicated = isDedicated
        self.address = address
        self.ports = ports
        self.hint = hint
        self.chain = chain
        self.line = line
        self.options = options
    }
}
