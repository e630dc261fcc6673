/// What a filter says of itself: enough to check a directive, order a chain, print help and hold the docs page to it.
public struct FilterDescriptor: Sendable {
    /// The directive's first word: `sni`.
    public let keyword: String
    /// One line for lists.
    public let summary: String
    public let needs: Set<Fact>
    /// What it looks at wherever it stands, and what a stage that gives it may change: it must stand below such a one.
    public let reads: Set<Fact>
    /// What to write for a stage that is meant to stand above one that changes what this one reads, in the imperative.
    public let readingEarlier: [Fact: String]
    public let gives: Set<Fact>
    public let clauses: [ClauseSpec]
    /// In the order of the numbers in ``Verdict/refuse(_:)``. At most 255.
    public let reasons: [ReasonSpec]
    /// Ends that the runtime gives a connection for what this stage asked of it, under the stage's name.
    public let endings: [RuntimeReason: String]
    /// The blocks and lines of the config that belong to it. What another filter declares as well is the same one.
    public let blocks: [BlockDescriptor]
    /// True if a wait of this stage need not always hold up later ones: where it gives nothing, it only inspects the
    /// client's bytes. On a raw route it looks at them while the other direction already flows (R17).
    public let isNonBlocking: Bool

    public init(
        keyword: String, summary: String, needs: Set<Fact> = [], reads: Set<Fact> = [],
        readingEarlier: [Fact: String] = [:], gives: Set<Fact> = [], clauses: [ClauseSpec] = [],
        reasons: [ReasonSpec] = [], endings: [RuntimeReason: String] = [:], blocks: [BlockDescriptor] = [],
        isNonBlocking: Bool = false
    ) {
        self.endings = endings
        self.blocks = blocks
        self.readingEarlier = readingEarlier
        self.keyword = keyword
        self.summary = summary
        self.needs = needs
        self.reads = reads
        self.gives = gives
        self.clauses = clauses
        self.reasons = reasons
        self.isNonBlocking = isNonBlocking
    }

    /// What a stage of this filter needs, reads and gives unless its directive makes a difference.
    public var facts: StageFacts { StageFacts(needs: needs, reads: reads, gives: gives) }
}

/// What one stage needs, reads and gives, as its directive has it: what the checker proves the order of a chain from.
public struct StageFacts: Sendable, Equatable {
    public var needs: Set<Fact>
    public var reads: Set<Fact>
    public var gives: Set<Fact>
    /// A need, and another fact that does as well: a limit by env counts by the route's or by the sender's.
    public var instead: [Fact: Fact]
    /// What else the engine has to know of it.
    public var capabilities: StageCapabilities
    /// Reservations in limits that it may make for one connection, until that ends: at most ``Reservations/capacity`` together.
    public var reservations: Int
    public init(
        needs: Set<Fact> = [], reads: Set<Fact> = [], gives: Set<Fact> = [], instead: [Fact: Fact] = [:],
        capabilities: StageCapabilities = [], reservations: Int = 0
    ) {
        self.needs = needs
        self.reads = reads
        self.gives = gives
        self.instead = instead
        self.capabilities = capabilities
        self.reservations = reservations
    }
}

/// What the engine must know of a stage beyond facts. It asks this, and never which filter it is.
public struct StageCapabilities: OptionSet, Sendable, Hashable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// It sends connections on to where they were going: for intercepting listeners, and for no others.
    public static let connectsToDestination = StageCapabilities(rawValue: 1)
    /// It does so from the client's own address: routes have to bring the answers back here.
    public static let connectsAsClient = StageCapabilities(rawValue: 2)
    /// Destinations that do not answer this host are to be refused for a while, before the relay accepts (ADR 0049).
    public static let refusesUnreachable = StageCapabilities(rawValue: 4)
    /// It puts the PROXY header in front that routes ask for (R16).
    public static let injectsHeader = StageCapabilities(rawValue: 8)
    /// Routes that name no balance are balanced by a hash of the client (R11).
    public static let hashesClients = StageCapabilities(rawValue: 16)
    /// It records flows while connections live (R21).
    public static let recordsFlows = StageCapabilities(rawValue: 32)
    /// It asks the view for the time by the wall.
    public static let readsWallClock = StageCapabilities(rawValue: 64)
}
