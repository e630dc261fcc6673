import Synchronization

/// R2: whether a listener or a route looks into the stream.
public enum ProtocolHint: UInt8, Sendable, CaseIterable {
    case tlsPassthrough, tcpRaw

    public var name: String {
        switch self {
        case .tlsPassthrough: "tls_passthrough"
        case .tcpRaw: "tcp_raw"
        }
    }
    public init?(name: some StringProtocol) {
        guard let found = ProtocolHint.allCases.first(where: { $0.name == name }) else { return nil }
        self = found
    }
}

/// Counters and positions of one route that outlive snapshots: round robin goes on where it was (R11).
/// Threading: every field atomic, relaxed; shared by all workers. Ownership: the routing side, which keeps the cell
/// of a route id for as long as a snapshot or a connection can name it.
public struct RouteCell: ~Copyable {
    /// How many backends were handed out, ever.
    public let cursor = Atomic<UInt64>(0)
    public let connections = Atomic<UInt64>(0)
    public let bytesToUpstream = Atomic<UInt64>(0)
    public let bytesToClient = Atomic<UInt64>(0)
    /// Connections on it now.
    public let active = HoldCount()
    /// R18: connections whose backend did not take our PROXY header.
    public let proxyRejections = Atomic<UInt32>(0)
    public init() {}
}

extension UnsafePointer<RouteCell> {
    /// The address of ``RouteCell/active``, for ``Effects/hold(_:)``. An atomic never moves, so the borrow's address is
    /// the field's own, and valid as long as the cell.
    public var active: UnsafePointer<HoldCount> { withUnsafePointer(to: pointee.active) { $0 } }
}

/// Who a route belongs to. Immutable, part of a snapshot.
public struct RouteOwner: Sendable {
    /// Names this owner for as long as the process runs; no other one ever has it.
    public let number: UInt32
    public let org: FrozenText
    public let app: FrozenText
    public let env: FrozenText
    private static let last = Atomic<UInt32>(0)

    public init(org: FrozenText, app: FrozenText, env: FrozenText) {
        number = RouteOwner.last.wrappingAdd(1, ordering: .relaxed).newValue
        self.org = org
        self.app = app
        self.env = env
    }
}

/// One route as the data path reads it. Immutable; lives as long as its snapshot.
public struct Route: @unchecked Sendable {
    public struct Flags: OptionSet, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// A PROXY v2 header goes in front (R16).
        public static let proxyV2 = Flags(rawValue: 1)
        /// The only route of its (address, port) may carry bytes that are no TLS (R6).
        public static let allowNonTLS = Flags(rawValue: 2)
        /// Raw TCP: chosen by port alone, never peeked (R2).
        public static let raw = Flags(rawValue: 4)
    }

    public let id: FrozenText
    public let owner: UnsafePointer<RouteOwner>
    /// Shared by the routes that point to the same (env, process type, port).
    public let group: UnsafePointer<BackendGroup>
    public let cell: UnsafePointer<RouteCell>
    public let port: UInt16
    public let flags: Flags
    /// Nil: as the `backend` stage says.
    public let balance: Balance?
    /// The most connections at once on this node; 0: no limit.
    public let maxConnections: UInt32

    public var backends: FrozenArray<Backend> { group.pointee.backends }

    public init(
        id: FrozenText, owner: UnsafePointer<RouteOwner>, group: UnsafePointer<BackendGroup>,
        cell: UnsafePointer<RouteCell>, port: UInt16, flags: Flags, balance: Balance? = nil,
        maxConnections: UInt32 = 0
    ) {
        self.id = id
        self.owner = owner
        self.group = group
        self.cell = cell
        self.port = port
        self.flags = flags
        self.balance = balance
        self.maxConnections = maxConnections
    }
}

/// What a route table must answer. Static over raw memory, so that a worker holds it without reference counting.
public protocol RouteLookup {
    /// The route that owns `name` at `destination`: exact, then the longest wildcard (R4). Nil: none.
    static func named(
        _ name: UnsafeBufferPointer<UInt8>, at destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> UnsafePointer<Route>?
    /// The route that is the only possible one at `destination`, with or without a name (R6). Nil: none, or several.
    static func sole(at destination: DestinationAddress, in table: UnsafeRawPointer) -> UnsafePointer<Route>?
}

/// A route table as filters see it. Trivially copyable; valid as long as the snapshot that it came from.
public struct RouteTableHandle: @unchecked Sendable {
    private let lookup: any RouteLookup.Type
    private let table: UnsafeRawPointer

    public init(_ lookup: any RouteLookup.Type, table: UnsafeRawPointer) {
        self.lookup = lookup
        self.table = table
    }

    public func named(_ name: ServerName, at destination: DestinationAddress) -> UnsafePointer<Route>? {
        name.withBytes { lookup.named($0, at: destination, in: table) }
    }
    public func sole(at destination: DestinationAddress) -> UnsafePointer<Route>? {
        lookup.sole(at: destination, in: table)
    }
}
