/// A node's memory limit, socket buffers included (R27).
public enum MemorySetting: Sendable, Equatable {
    case bytes(UInt64)
    /// Of what the cgroup or the machine allows.
    case percent(Int)
}

/// Whether the node watches its interception rules.
public enum InterceptRules: String, Sendable, Equatable, CaseIterable {
    /// Watches, and reports what is missing.
    case watch
    /// Also restores them.
    case manage
    case off
}

/// The `node` block with its defaults: settings of the process.
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
    /// R31.
    public var cooldown = CooldownSetting.standard
    /// Idle time before the kernel probes a peer.
    public var keepaliveIdle = TimeSpan.seconds(60)
    /// How long sent data may stay unacknowledged before the peer is dead (`TCP_USER_TIMEOUT`). Linux counts a reader
    /// that keeps its window shut as well: see docs/adr/0005.
    public var userTimeout = TimeSpan.seconds(120)
    public var backlog = 4096
    /// How many upstream sockets of short connections each worker keeps for the next ones; 0: none.
    public var idleUpstreamSockets = 128
    /// Whether each worker has its own file descriptor table, if the system allows it.
    public var ownDescriptors = true
    /// How long bulk streams may coalesce between two moves; zero: they are moved as their bytes come.
    public var coalesce = TimeSpan.milliseconds(1)
    /// Whether to log one JSON line per connection.
    public var logConnections = true
    /// The most log lines a second for refused connections of one reason; the rest is counted in one line (R27).
    public var loggedRefusals = 100
    /// Which lines there are, and where they go.
    public var log = LogSettings()
    /// A reload's new program takes a share of new connections first (R29); nil: all at once.
    public var canary: CanarySettings?
    /// The data directory, which has the journal; nil: nothing is kept.
    public var stateDirectory: String?
    /// Of the journal's files: bytes of one, and how many are kept (R25).
    public var journalFileBytes: UInt64 = 16 << 20
    public var journalFiles = 16
    /// Path of the Unix socket that answers `status`, `routes` and the like; nil: none.
    public var adminSocket: String?
    /// The group, by name or number, whose members may read from it; nil: its owner alone has access.
    public var adminGroup: String?
    /// Where commands look for it unless they are told.
    public static let usualAdminSocket = "/run/pipelined/admin.sock"
    /// R8: ports that no listener opens and no route may use. Default: SMTP, telnet and NetBIOS, which networks block
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
    /// The workloads' interfaces, whose connections are intercepted; a name may end in `*`.
    public var interceptInterfaces: [String] = []
    /// Nil: `watch` if the config names the intercepted interfaces.
    public var interceptRules: InterceptRules?
    /// Prefixes by which this network translates IPv6 to IPv4 (RFC 6052), besides the well-known ones.
    public var nat64: [Prefix] = []
    public init() {}
}
