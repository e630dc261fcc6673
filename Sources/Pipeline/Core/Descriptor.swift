/// A filter's declaration: enough to check a directive, order a chain, print help and test the docs page.
public struct FilterDescriptor: Sendable {
    /// The directive's first word: `sni`.
    public let keyword: String
    /// One line for lists.
    public let summary: String
    public let needs: Set<Fact>
    /// Facts that it reads in any position, and that an earlier stage may change: it must be below such a stage.
    public let reads: Set<Fact>
    /// The remedy, in the imperative, for a stage that must stay above one that changes what it reads.
    public let readingEarlier: [Fact: String]
    public let gives: Set<Fact>
    public let clauses: [ClauseSpec]
    /// In the order of the numbers in ``Verdict/refuse(_:)``. At most 255.
    public let reasons: [ReasonSpec]
    /// The runtime's end reasons that are reported under this stage's name.
    public let endings: [RuntimeReason: String]
    /// The config blocks and lines that it declares. Several filters may declare the same one.
    public let blocks: [BlockDescriptor]
    /// Words of other proxies' configs that are something of this filter's here, in lower case.
    public let foreignWords: [String: ForeignWord]
    /// True if a wait of this stage need not delay later ones: where it provides no facts, it only inspects the
    /// client's bytes. On a raw route it does so while the other direction already flows (R17).
    public let isNonBlocking: Bool

    public init(
        keyword: String, summary: String, needs: Set<Fact> = [], reads: Set<Fact> = [],
        readingEarlier: [Fact: String] = [:], gives: Set<Fact> = [], clauses: [ClauseSpec] = [],
        reasons: [ReasonSpec] = [], endings: [RuntimeReason: String] = [:], blocks: [BlockDescriptor] = [],
        foreignWords: [String: ForeignWord] = [:], isNonBlocking: Bool = false
    ) {
        self.endings = endings
        self.blocks = blocks
        self.foreignWords = foreignWords
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

    /// The default needs, reads and facts of a stage of this filter.
    public var facts: StageFacts { StageFacts(needs: needs, reads: reads, gives: gives) }
}

/// What one stage needs, reads and provides, given its directive. The checker proves the order of a chain from these.
public struct StageFacts: Sendable, Equatable {
    public var needs: Set<Fact>
    public var reads: Set<Fact>
    public var gives: Set<Fact>
    /// A need with an alternative: a limit by env uses the route's or the sender's.
    public var instead: [Fact: Fact]
    /// Further capabilities that the engine must know.
    public var capabilities: StageCapabilities
    /// The most reservations that it makes for one connection: at most ``Reservations/capacity`` together.
    public var reservations: Int
    /// Where its connections to backends come from, unless their route says; nil: it says nothing.
    public var source: SourceSpec?
    public init(
        needs: Set<Fact> = [], reads: Set<Fact> = [], gives: Set<Fact> = [], instead: [Fact: Fact] = [:],
        capabilities: StageCapabilities = [], reservations: Int = 0, source: SourceSpec? = nil
    ) {
        self.source = source
        self.needs = needs
        self.reads = reads
        self.gives = gives
        self.instead = instead
        self.capabilities = capabilities
        self.reservations = reservations
    }
}

/// Capabilities of a stage beyond facts. The engine asks these, and never for a filter's name.
public struct StageCapabilities: OptionSet, Sendable, Hashable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Connects to original destinations: for intercepting listeners only.
    public static let connectsToDestination = StageCapabilities(rawValue: 1)
    /// Connects from the client's address: replies must be routed back to this host.
    public static let connectsAsClient = StageCapabilities(rawValue: 2)
    /// Refuses unreachable destinations for a while before the relay accepts (ADR 0049).
    public static let refusesUnreachable = StageCapabilities(rawValue: 4)
    /// Sends the PROXY v2 header that routes ask for (R16).
    public static let injectsHeader = StageCapabilities(rawValue: 8)
    /// The same with version 1.
    public static let injectsTextHeader = StageCapabilities(rawValue: 128)
    /// Routes without a balance use a hash of the client (R11).
    public static let hashesClients = StageCapabilities(rawValue: 16)
    /// Records flows of open connections (R21).
    public static let recordsFlows = StageCapabilities(rawValue: 32)
    /// Connects to backends from the client's address (`source client`).
    public static let appearsAsClient = StageCapabilities(rawValue: 256)
    /// Answers clients that begin TLS behind an opening in the clear, and says the same to backends
    /// (``Filter/upgrade(_:_:_:_:)``).
    public static let upgradesToTLS = StageCapabilities(rawValue: 512)
    /// Reads the wall clock from the view.
    public static let readsWallClock = StageCapabilities(rawValue: 64)
}
