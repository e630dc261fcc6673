/// The `node` block, with its defaults: what belongs to the process rather than to a connection's way.
package struct NodeSettings: Sendable, Equatable {
    package var name = "node"
    /// Worker threads; 0: one per core that the process may run on.
    package var workers = 0
    /// The most connections at once, per worker (R27).
    package var maxConnections = 65536
    /// R13.
    package var connectTimeout = TimeSpan.seconds(2)
    /// R14: how long one direction may outlive the other.
    package var halfCloseTimeout = TimeSpan.seconds(60)
    /// How long a stopping node waits for its connections.
    package var drainTimeout = TimeSpan.seconds(30)
    /// Idle time before the kernel probes a peer.
    package var keepaliveIdle = TimeSpan.seconds(60)
    /// How long sent data may stay unacknowledged before the peer is dead (`TCP_USER_TIMEOUT`). Linux counts a reader
    /// that keeps its window shut as well: see docs/adr/0005.
    package var userTimeout = TimeSpan.seconds(120)
    package var backlog = 4096
    /// How many upstream sockets of short connections each worker keeps for the next ones; 0: none.
    package var spareSockets = 128
    /// How long bulk streams may gather between two moves; zero: they are moved as their bytes come.
    package var coalesce = TimeSpan.milliseconds(1)
    /// One JSON line per connection.
    package var logConnections = true
    /// Directory for persisted state; nil: none.
    package var stateDirectory: String?
    /// Path of the Unix socket that answers `status`, `routes` and the like; nil: none.
    package var adminSocket: String?
    /// R8: ports that nothing listens on and no route may have. SMTP, telnet and NetBIOS unless said: what networks block
    /// or worms use.
    package var deniedPorts: [ClosedRange<UInt16>] = NodeSettings.standardDeniedPorts
    package static let standardDeniedPorts: [ClosedRange<UInt16>] = [23...23, 25...25, 137...139]
    /// Congestion control for client sockets; nil: the system's.
    package var congestionClient: String?
    /// Congestion control for backend sockets; nil: the system's.
    package var congestionUpstream: String?
    /// The firewall mark (`SO_MARK`) of the connections that this node makes for intercepted ones: rules that intercept
    /// let it through, so that nothing is intercepted twice.
    package var mark: UInt32 = 0x7069
    /// Behind which interfaces the workloads are whose connections are intercepted; a name may end in `*`.
    package var interceptInterfaces: [String] = []
    /// `export` lines: collectors that flow records go to.
    package var exports: [ExportSettings] = []
    /// Where flows are kept that `account every` records; nil: nowhere.
    package var ledger: LedgerSettings?
    /// How what passes no worker is counted; nil: not at all.
    package var conntrack: ConntrackCounting?
    /// What is worth a hint; nil: nothing is looked for. Without a `hints` block: the defaults, if a pipeline records flows.
    package var hints: HintSettings?
    /// Workers hand over every connection that ends: the log wants them, or hints do.
    package var recordsConnections: Bool { logConnections || hints != nil }
    package init() {}
}
