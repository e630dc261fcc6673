/// What a node may use of memory, socket buffers included (R27).
public enum MemorySetting: Sendable, Equatable {
    case bytes(UInt64)
    /// Of what the cgroup or the machine allows.
    case percent(Int)
}

/// Whether the node looks after the firewall and routing rules that bring it connections.
public enum InterceptRules: String, Sendable, Equatable, CaseIterable {
    /// It looks, and says what is missing.
    case watch
    /// It also puts them back.
    case manage
    case off
}

/// The `node` block, with its defaults: what belongs to the process rather than to a connection's way.
public struct NodeSettings: Sendable, Equatable {
    public var name = "node"
    /// Worker threads; 0: one per core that the process may run on.
    public var workers = 0
    /// The most connections at once, per worker (R27).
    public var maxConnections = 65536
    /// The most connections at once, per worker, that wait for their first bytes; nil: three quarters of what could (R27).
    public var maxUnrouted: Int?
    public var memory = MemorySetting.percent(80)
    /// R13.
    public var connectTimeout = TimeSpan.seconds(2)
    /// R14: how long one direction may outlive the other.
    public var halfCloseTimeout = TimeSpan.seconds(60)
    /// How long a stopping node waits for its connections.
    public var drainTimeout = TimeSpan.seconds(30)
    /// Idle time before the kernel probes a peer.
    public var keepaliveIdle = TimeSpan.seconds(60)
    /// How long sent data may stay unacknowledged before the peer is dead (`TCP_USER_TIMEOUT`). Linux counts a reader
    /// that keeps its window shut as well: see docs/adr/0005.
    public var userTimeout = TimeSpan.seconds(120)
    public var backlog = 4096
    /// How many upstream sockets of short connections each worker keeps for the next ones; 0: none.
    public var idleUpstreamSockets = 128
    /// Whether each worker has a table of file descriptors of its own, where the system lets it.
    public var ownDescriptors = true
    /// How long bulk streams may coalesce between two moves; zero: they are moved as their bytes come.
    public var coalesce = TimeSpan.milliseconds(1)
    /// One JSON line per connection.
    public var logConnections = true
    /// Of refused connections, so many lines a second for each reason; the rest is counted in one line (R27).
    public var loggedRefusals = 100
    /// Where what must outlive a restart is to be kept, once there is something: nobody reads it yet.
    public var stateDirectory: String?
    /// Path of the Unix socket that answers `status`, `routes` and the like; nil: none.
    public var adminSocket: String?
    /// Where commands look for it unless they are told.
    public static let usualAdminSocket = "/run/pipelined/admin.sock"
    /// R8: ports that nothing listens on and no route may have. SMTP, telnet and NetBIOS unless said: what networks block
    /// or worms use.
    public var deniedPorts: [ClosedRange<UInt16>] = NodeSettings.standardDeniedPorts
    public static let standardDeniedPorts: [ClosedRange<UInt16>] = [23...23, 25...25, 137...139]
    /// Congestion control for client sockets; nil: the system's.
    public var congestionClient: String?
    /// Congestion control for backend sockets; nil: the system's.
    public var congestionUpstream: String?
    /// The firewall mark (`SO_MARK`) of the connections that this node makes for intercepted ones: rules that intercept
    /// let it through, so that nothing is intercepted twice.
    public var mark: UInt32 = 0x7069
    /// Behind which interfaces the workloads are whose connections are intercepted; a name may end in `*`.
    public var interceptInterfaces: [String] = []
    /// Nil: `watch` where the config says what is intercepted.
    public var interceptRules: InterceptRules?
    /// Prefixes by which this network translates IPv6 to IPv4 (RFC 6052), besides the well-known ones.
    public var nat64: [Prefix] = []
    public init() {}
}
