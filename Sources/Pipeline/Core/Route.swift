import Synchronization

/// R2: whether a listener or a route inspects the stream.
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

/// Counters of one route that outlive tables. A connection pins it, and needs nothing else of its route once bytes flow
/// (R26). Zero bytes are a cell that has no id yet, so that a million routes which nobody asks for cost no memory for it.
///
/// Threading: every field atomic, relaxed; shared by all workers. Ownership: the routing side, which keeps the cell of a
/// route id for as long as a table names it or ``users`` counts a connection.
public struct RouteCell: ~Copyable {
    /// The address of a ``CountedText``; 0: none yet.
    private let name: Atomic<UInt>
    /// Connections that pin it.
    public let users = ReservationCount()
    /// Connections on it now.
    public let active = ReservationCount()
    /// R18: connections whose backend rejected our PROXY header.
    public let proxyRejections = Atomic<UInt32>(0)
    /// Several names and ports may count here: whoever visits those of a table comes by it more than once.
    public let isShared: Bool
    public let connections = Atomic<UInt64>(0)
    public let bytesToUpstream = Atomic<UInt64>(0)
    public let bytesToClient = Atomic<UInt64>(0)

    /// - Parameter id: lives as long as the cell.
    public init(id: CountedText? = nil, isShared: Bool = false) {
        name = Atomic(id?.address ?? 0)
        self.isShared = isShared
    }

    /// The route's id; lives as long as the cell. Empty until somebody has pinned it.
    public var id: FrozenText { CountedText(address: name.load(ordering: .acquiring))?.text ?? .empty }

    /// Gives it its id, which is the same whoever does.
    @inline(__always) public func name(_ id: CountedText) {
        if name.load(ordering: .relaxed) == 0 { name.store(id.address, ordering: .releasing) }
    }
}

extension UnsafePointer<RouteCell> {
    /// The address of ``RouteCell/active``, for ``Effects/reserve(_:)``. An atomic never moves, so the borrow's address is
    /// the field's own, and valid as long as the cell.
    public var active: UnsafePointer<ReservationCount> { withUnsafePointer(to: pointee.active) { $0 } }
}

/// The owner of a route: org, app and env. One object per env while anything names it, so that owners can be compared
/// by pointer. Threading: immutable but for ``users``. Ownership: as ``RouteCell``.
public struct RouteOwner: ~Copyable {
    public let org: FrozenText
    public let app: FrozenText
    public let env: FrozenText
    /// Connections that pin it.
    public let users = ReservationCount()
    /// Identifies this object for the life of the process; never reused.
    public let number: UInt32
    public let tenant: TenantNumbers

    private static let numbers = Atomic<UInt32>(0)

    public init(org: FrozenText, app: FrozenText, env: FrozenText, tenant: TenantNumbers = .unknown) {
        self.tenant = tenant
        self.org = org
        self.app = app
        self.env = env
        number = RouteOwner.numbers.wrappingAdd(1, ordering: .relaxed).newValue
    }

    /// Frees the texts.
    public func deallocateTexts() {
        for text in [org, app, env] { text.deallocate() }
    }
}

/// The PROXY header that a route's backends get (R16).
public enum SentHeader: String, Sendable, CaseIterable {
    case off, v1, v2
}

/// One route for the data path, as a lookup found it in its table. What it points to lives as long as that table, which for
/// a worker means one event: what a connection needs for longer it pins (``RouteCell``, ``RouteOwner``).
public struct Route: Equatable, @unchecked Sendable {
    public struct Flags: OptionSet, Hashable, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// A PROXY header is sent (R16).
        public static let proxyHeader = Flags(rawValue: 1)
        /// As the only route of its (address, port), it may carry bytes that are not TLS (R6).
        public static let allowNonTLS = Flags(rawValue: 2)
        /// Raw TCP: chosen by port alone, never peeked (R2).
        public static let raw = Flags(rawValue: 4)
        /// Its PROXY settings contradict each other (R16): every connection is refused.
        public static let proxyMismatch = Flags(rawValue: 8)
        /// The header is of version 1, a line of text; else of version 2.
        public static let proxyText = Flags(rawValue: 16)
        /// It keeps what it owns, and gets no connection.
        public static let withdrawn = Flags(rawValue: 32)
    }

    public let owner: UnsafePointer<RouteOwner>
    public let cell: UnsafePointer<RouteCell>
    /// The number of its group of backends, which the routes to the same (env, process type, port) share. Who is behind it
    /// is another thing in each table: see ``FoundRoute``.
    public let slot: UInt32
    /// The most connections at once on this node; 0: no limit.
    public let maxConnections: UInt32
    public let port: UInt16
    public let flags: Flags
    /// Nil: as the `backend` stage says.
    public let balance: Balance?
    /// Where its id is; nil: with the cell.
    private let name: UnsafePointer<CountedText>?

    public var id: FrozenText { name?.pointee.text ?? cell.pointee.id }

    /// The cell has the id from now on: what pins it needs nothing else of the route.
    @inline(__always) public func nameCell() { if let name { cell.pointee.name(name.pointee) } }

    /// - Parameter name: where the id is, if not with the cell.
    public init(
        owner: UnsafePointer<RouteOwner>, slot: UInt32,
        cell: UnsafePointer<RouteCell>, name: UnsafePointer<CountedText>? = nil, port: UInt16, flags: Flags,
        balance: Balance? = nil, maxConnections: UInt32 = 0
    ) {
        self.name = name
        self.owner = owner
        self.slot = slot
        self.cell = cell
        self.port = port
        self.flags = flags
        self.balance = balance
        self.maxConnections = maxConnections
    }
}

/// A route of one table, with the backends that it has in that table. Made by a lookup alone, so that a route never meets the
/// backends of another table (R1, R22). Trivially copyable; lives as long as its table.
public struct FoundRoute: Equatable, @unchecked Sendable {
    public let pointee: Route
    public let group: UnsafePointer<BackendGroup>

    @inline(__always) public init(_ route: Route, _ group: UnsafePointer<BackendGroup>) {
        self.pointee = route
        self.group = group
    }

    public var backends: FrozenArray<Backend> { group.pointee.backends }
}

/// The interface of a route table. Static over raw memory, so that a worker holds it without reference counting.
public protocol RouteLookup {
    /// The route that owns `name` at `destination`: exact, then the longest wildcard (R4). Nil: none.
    static func named(
        _ name: UnsafeBufferPointer<UInt8>, at destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> FoundRoute?
    /// The same for a client that offers `protocols`: of each name or wildcard the route of the first protocol that has
    /// one, else the route of all.
    static func named(
        _ name: UnsafeBufferPointer<UInt8>, offering protocols: ALPNList, at destination: DestinationAddress,
        in table: UnsafeRawPointer
    ) -> FoundRoute?
    /// The route at `destination` of clients whose first bytes are such, and no TLS. Nil: none.
    static func speaking(
        _ client: ClientProtocol, at destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> FoundRoute?
    /// The only route at `destination`, with or without a name (R6). Nil: none, or several, or one that asks for more than
    /// a name.
    static func sole(at destination: DestinationAddress, in table: UnsafeRawPointer) -> FoundRoute?
    /// R30: routes of this env get no connection.
    static func isSuspended(_ tenant: TenantNumbers, in table: UnsafeRawPointer) -> Bool
    /// Whose dedicated address that is (R9); nil: nobody's.
    static func owner(
        ofDedicated destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> UnsafePointer<RouteOwner>?
}

/// For a table of routes without conditions.
extension RouteLookup {
    public static func named(
        _ name: UnsafeBufferPointer<UInt8>, offering protocols: ALPNList, at destination: DestinationAddress,
        in table: UnsafeRawPointer
    ) -> FoundRoute? { named(name, at: destination, in: table) }
    public static func speaking(
        _ client: ClientProtocol, at destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> FoundRoute? { nil }
}

/// For a table without envs.
extension RouteLookup {
    public static func isSuspended(_ tenant: TenantNumbers, in table: UnsafeRawPointer) -> Bool { false }
    public static func owner(
        ofDedicated destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> UnsafePointer<RouteOwner>? { nil }
}

/// A route table as filters see it. Trivially copyable; valid for the call in which a filter is given it.
public struct RouteTableHandle: @unchecked Sendable {
    private let lookup: any RouteLookup.Type
    private let table: UnsafeRawPointer

    public init(_ lookup: any RouteLookup.Type, table: UnsafeRawPointer) {
        self.lookup = lookup
        self.table = table
    }

    public func named(_ name: ServerName, at destination: DestinationAddress) -> FoundRoute? {
        name.withBytes { lookup.named($0, at: destination, in: table) }
    }
    public func named(
        _ name: ServerName, offering protocols: ALPNList, at destination: DestinationAddress
    ) -> FoundRoute? {
        name.withBytes { lookup.named($0, offering: protocols, at: destination, in: table) }
    }
    /// Clients of a protocol that has no route of its own are ``ClientProtocol/plain``.
    public func speaking(_ client: ClientProtocol, at destination: DestinationAddress) -> FoundRoute? {
        if let route = lookup.speaking(client, at: destination, in: table) { return route }
        guard client == .ssh || client == .postgresql else { return nil }
        return lookup.speaking(.plain, at: destination, in: table)
    }
    public func sole(at destination: DestinationAddress) -> FoundRoute? {
        lookup.sole(at: destination, in: table)
    }
    /// R30: the route gets no connection, because its env or that's org is suspended; or it is withdrawn, by itself or
    /// with its env.
    public func isSuspended(_ route: FoundRoute) -> Bool {
        route.pointee.flags.contains(.withdrawn)
            || lookup.isSuspended(route.pointee.owner.pointee.tenant, in: table)
    }
    /// R30: the address is a suspended env's own (R9).
    public func isSuspended(at destination: DestinationAddress) -> Bool {
        lookup.owner(ofDedicated: destination, in: table).map {
            lookup.isSuspended($0.pointee.tenant, in: table)
        } ?? false
    }
}
