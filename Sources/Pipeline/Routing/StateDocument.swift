import Pipeline

/// Where an object of desired state was written.
public enum Origin: Hashable, Sendable {
    /// A `route` block of the config file; the number is the config reader's own.
    case config(Int)
    /// A place in a state document, from 1; 0: it came by itself, or by a change.
    case file(line: Int, column: Int)
}

/// A route's options besides name, port and backends, packed, so that they compare by value.
public struct RouteOptions: OptionSet, Hashable, Sendable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }
    static let wildcard = RouteOptions(rawValue: 1)
    static let raw = RouteOptions(rawValue: 2)
    static let proxyHeader = RouteOptions(rawValue: 4)
    static let expectsProxy = RouteOptions(rawValue: 8)
    static let ipv4Required = RouteOptions(rawValue: 16)
    static let allowNonTLS = RouteOptions(rawValue: 32)
    /// R16: its PROXY settings contradict each other, so every connection is refused. Derived, not read.
    static let proxyMismatch = RouteOptions(rawValue: 64)
    static let suffix = RouteOptions(rawValue: 128)
    /// The PROXY header is of version 1. Beyond ``balance`` and ``onDelete``.
    static let proxyText = RouteOptions(rawValue: 1 << 13)
    /// Found by what the client's first bytes are: its name is a ``ClientKey``.
    static let byClient = RouteOptions(rawValue: 1 << 14)
    /// It keeps what it owns, and gets no connection.
    static let withdrawn = RouteOptions(rawValue: 1 << 15)

    /// What its backends get, and what they expect.
    var sentHeader: SentHeader { contains(.proxyHeader) ? contains(.proxyText) ? .v1 : .v2 : .off }
    mutating func insert(_ header: SentHeader) {
        if header != .off { insert(.proxyHeader) }
        if header == .v1 { insert(.proxyText) }
    }

    /// What its name is, whether it is matched by or not.
    var nameKind: KeyKind {
        contains(.wildcard) ? .wildcard : contains(.suffix) ? .suffix : contains(.byClient) ? .client : .exact
    }
    init(_ kind: KeyKind) {
        switch kind {
        case .wildcard: self = .wildcard
        case .suffix: self = .suffix
        case .client: self = .byClient
        case .exact, .raw: self = []
        }
    }

    /// Nil: not given. Three bits: 0, or its number + 1.
    var balance: Balance? { Balance(rawValue: UInt8(rawValue >> 8 & 7) &- 1) }
    var onDelete: OnDelete { OnDelete(rawValue: UInt8(rawValue >> 11 & 3)) ?? .keep }
    func with(_ balance: Balance?, _ onDelete: OnDelete) -> RouteOptions {
        let number = balance.map { UInt16($0.rawValue) + 1 } ?? 0
        return RouteOptions(rawValue: rawValue & 0xE0FF | number << 8 | UInt16(onDelete.rawValue) << 11)
    }
}

/// What happens to a route's connections when it is deleted.
public enum OnDelete: UInt8, Sendable, CaseIterable {
    case keep, drain, kill
    public var name: String {
        switch self {
        case .keep: "keep"
        case .drain: "drain"
        case .kill: "kill"
        }
    }
}

public enum InstanceStatus: UInt8, Sendable, CaseIterable {
    case booting, ready, draining, stopped, failed
    public var name: String {
        switch self {
        case .booting: "booting"
        case .ready: "ready"
        case .draining: "draining"
        case .stopped: "stopped"
        case .failed: "failed"
        }
    }
}

/// A line and a column, or the number of a config block, in eight bytes.
struct Place: Hashable, Sendable {
    let line: UInt32
    let column: UInt32
    init(line: Int, column: Int) {
        self.line = UInt32(clamping: line)
        self.column = UInt32(clamping: column)
    }
    func origin(_ source: StateDocument.Source) -> Origin {
        source == .config ? .config(Int(line)) : .file(line: Int(line), column: Int(column))
    }
}

/// An environment, which owns routes and instances. Texts are in the document.
public struct EnvObject: Sendable {
    public let env: UInt32
    public let app: TextRef
    public let org: TextRef
    /// The env's own name, for people; in a state document its id.
    let name: TextRef
    /// R9: its dedicated address, if it has the IPv4 add-on.
    public let ipv4: IPAddress?
    /// R30.
    let suspended: Bool
    /// It keeps what it owns, and gets no new connection.
    var withdrawn = false
    let place: Place
}

/// What a document says of an org, which is named by its envs.
struct OrgObject: Sendable {
    let org: TextRef
    /// R30.
    let suspended: Bool
    let place: Place
}

/// One running copy of a process of an env.
public struct InstanceObject: Sendable {
    public let id: TextRef
    public let env: UInt32
    public let processType: UInt32
    public let address: IPAddress
    public let node: TextRef
    public let status: InstanceStatus
    public let drainGraceSeconds: UInt32
    /// 0...256.
    public let weight: UInt16
    /// On this node; 0: no limit.
    public let maxConnections: UInt32
    /// As ``Backend/priority``.
    public let priority: UInt8
    /// Its IPv4 source address, if it has one (R19).
    public let ipv4: IPAddress?
    /// The interface of its packets; empty: not given.
    public let interface: TextRef
    let place: Place
}

/// A requested route with valid fields; ``RoutingState`` decides what it may claim.
public struct RouteObject: Sendable {
    public let id: TextRef
    /// Canonical; without the mark of a wildcard; empty: none.
    let name: TextRef
    /// Of the ALPN protocol that it asks for, whose text stands behind ``name``; 0: none.
    let alpnLength: UInt8
    public let env: UInt32
    /// Of a config file: the name of the `backends` block; empty: none.
    public let processType: UInt32
    /// 0: ``backendList`` has backends.
    public let backendPort: UInt16
    public let port: UInt16
    public let options: RouteOptions
    /// 0: no limit.
    public let maxConnections: UInt32
    /// Index + 1 into ``StateDocument/backendLists``; 0: the instances of (env, process type), and nothing else is said.
    let backendList: UInt32
    let place: Place

    public var isRaw: Bool { options.contains(.raw) }
}

/// Backends as a config file lists them; of a route of desired state, with no backends, what it says of its own.
struct BackendList: Hashable, Sendable {
    let backends: [BackendSpec]
    /// Of a `backends` block; nil: of a `route` block.
    let name: String?
    /// Over all routes of the block; 0: no limit.
    let maxConnections: UInt32
    /// Nil: as the `backend` stage says.
    let health: RouteHealth?
    /// Nil: its routes say nothing of that.
    let policy: RoutePolicySpec?
    /// Of desired state, which names a block that the node's config may have. Nil: ``health`` holds.
    var healthName: String?
}

/// The owner of a name (R5), assigned by the control plane whatever routes claim.
public struct HostnameObject: Sendable {
    /// Canonical; without the mark of a wildcard.
    let name: TextRef
    let kind: KeyKind
    public let env: UInt32
    /// When the env claimed the name: lower is earlier. Nil: after all with a number.
    public let claimed: UInt64?
    let place: Place
}

/// Desired state, parsed but not yet checked against other objects: all fields are valid. Texts are in one arena, so
/// that a route costs 48 bytes plus its text. Immutable once made.
public struct StateDocument: Sendable {
    /// Where it came from. A whole document replaces what came before from the same source, and nothing else.
    public enum Source: UInt8, Sendable {
        case config, state
    }

    public let source: Source
    /// Nil: none is given.
    public internal(set) var revision: UInt64?
    /// The author of the change, for the journal.
    public internal(set) var actor = ""
    var orgs: [OrgObject] = []
    public internal(set) var envs: [EnvObject] = []
    public internal(set) var instances: [InstanceObject] = []
    public internal(set) var routes: [RouteObject] = []
    public internal(set) var hostnames: [HostnameObject] = []
    var backendLists: [BackendList] = []
    /// Ids of objects that are there but can't be used: their last good version stays (R24).
    var quarantined: [RouteProblem.Object: Set<String>] = [:]
    /// Of quarantined routes, those that ask for a PROXY header which their backend doesn't expect, or the reverse (R16).
    var mismatched: Set<String> = []
    /// Something in its lists was no usable object.
    var hasUnusable = false
    let text: TextArena
    let symbols: SymbolTable

    init(source: Source, seed: HashSeed) {
        self.source = source
        text = TextArena()
        symbols = SymbolTable(seed: seed)
    }

    /// Its lists are empty, and nothing was in them that couldn't be used.
    public var isEmpty: Bool {
        orgs.isEmpty && envs.isEmpty && instances.isEmpty && routes.isEmpty && hostnames.isEmpty && !hasUnusable
    }

    public func string(_ ref: TextRef) -> String { text.string(ref) }
    /// The env's id or the process type's name.
    public func symbol(_ number: UInt32) -> String { symbols.string(number) }
    /// The name that an entry of `hostnames` is about.
    public func hostname(_ entry: HostnameObject) -> String {
        entry.kind.mark + text.string(entry.name)
    }
    /// The hostname as written: `app.example.com`, `*.example.com`, `.example.com`; nil: none.
    public func hostname(_ route: RouteObject) -> String? {
        guard route.name.length > 0, !route.options.contains(.byClient) else { return nil }
        return route.options.nameKind.mark + text.string(route.name)
    }
    /// What a route asks of first bytes besides a name; nil: nothing.
    public func condition(_ route: RouteObject) -> RouteCondition? {
        if route.alpnLength > 0 { return .alpn(String(decoding: alpn(route), as: UTF8.self)) }
        return route.options.contains(.byClient) ? ClientKey(text.bytes(route.name)).map { .client($0.client) } : nil
    }
    /// The ALPN protocol that a route asks for; empty: any, or none.
    func alpn(_ route: RouteObject) -> Bytes {
        guard route.alpnLength > 0 else { return Bytes(start: nil, count: 0) }
        return text.bytes(
            TextRef(offset: route.name.offset + UInt32(route.name.length), length: UInt16(route.alpnLength)))
    }
}
