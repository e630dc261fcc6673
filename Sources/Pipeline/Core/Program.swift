/// One bound stage of a chain: a filter, its settings, and the index of its worker memory.
public struct Stage: @unchecked Sendable {
    public let filter: any Filter.Type
    public let settings: UnsafeMutableRawPointer
    public let reasonBase: UInt16
    /// How many reasons the filter has.
    let reasonCount: UInt8
    /// Index of its state in a worker's array of states; unique in a program.
    public let stateIndex: Int
    /// R28: count what it would refuse, and let it pass.
    public let shadow: Bool
    public let peek: PeekNeed?
    public let facts: StageFacts
    /// See ``Filter/progressInterval(_:)``.
    public let progressInterval: TimeSpan?
    /// See ``FilterDescriptor/isNonBlocking``.
    public let isNonBlocking: Bool
    /// As the formatter writes it, for `check --print` and `explain`.
    public let source: String
    /// Where it stands in the config.
    public let line: ConfigLine
    /// The blocks that its directive names.
    public let blocks: [any ConfigBlock]

    /// Binds `filter` to compiled settings. The program that holds the stage frees them.
    public static func bind<F: Filter>(
        _ filter: F.Type, settings: F.Settings, reasonBase: UInt16, stateIndex: Int, shadow: Bool, source: String,
        line: ConfigLine, blocks: [any ConfigBlock] = []
    ) -> Stage {
        let memory = UnsafeMutablePointer<F.Settings>.allocate(capacity: 1)
        memory.initialize(to: settings)
        return Stage(
            filter: filter, settings: UnsafeMutableRawPointer(memory), reasonBase: reasonBase,
            reasonCount: UInt8(clamping: F.descriptor.reasons.count), stateIndex: stateIndex,
            shadow: shadow, peek: F.peek(settings), facts: F.facts(settings),
            progressInterval: F.progressInterval(settings), isNonBlocking: F.descriptor.isNonBlocking,
            source: source,
            line: line,
            blocks: blocks)
    }
}

extension Stage {
    /// The code of one of its filter's reasons (``Verdict/refuse(_:)``).
    public func code(_ reason: UInt8) -> ReasonCode {
        ReasonCode(rawValue: reasonBase &+ UInt16(min(reason, max(reasonCount, 1) &- 1)))
    }
}

/// One compiled pipeline: stages in order, and their peek budget.
public struct Chain: Sendable {
    public let name: String
    public let stages: FrozenArray<Stage>
    /// The largest budget that any stage declared, after what stages before may consume, at most ``PeekNeed/limit``;
    /// 0: nothing is peeked before the backend is connected.
    public let peekBytes: Int
    /// From accept; nil exactly if ``peekBytes`` is 0 or no stage has a deadline.
    public let peekTimeout: TimeSpan?
    /// True if every peeking stage uses non-blocking inspection: connect first, inspect the client's bytes as they come
    /// (R17). Each stage's verdict decides it per connection.
    public let isNonBlocking: Bool
    /// The shortest progress interval of its stages; nil: none.
    public let progressInterval: TimeSpan?
    /// Index of the last stage that looks at bytes and blocks; -1: none.
    @usableFromInline let lastWait: Int
    /// Index of the stage that chooses the route and its backends; -1: none.
    public let selector: Int
    /// That stage; nil: none.
    public var selecting: UnsafePointer<Stage>? { selector < 0 ? nil : stages.pointer(selector) }
    /// Index of the stage that has backends begin TLS; -1: none.
    private let upgrader: Int
    /// That stage; nil: none.
    public var upgrading: UnsafePointer<Stage>? { upgrader < 0 ? nil : stages.pointer(upgrader) }
    /// By stage: those below it that run before it has its bytes.
    public let ahead: FrozenArray<StagesAhead>
    /// Those below ``selector`` that run before a connection waits for a place (``Verdict/wait``), as bits.
    public let besideQueue: UInt32
    /// The capabilities of its stages.
    public let capabilities: StageCapabilities

    public init(name: String, stages: [Stage]) {
        self.name = name
        self.stages = FrozenArray(stages)
        let peeking = stages.filter { $0.peek != nil }
        let (consumed, kept) = peeking.compactMap(\.peek).reduce(into: (0, 0)) { sums, peek in
            if peek.consumes { sums.0 += peek.bytes } else { sums.1 = max(sums.1, peek.bytes) }
        }
        self.peekBytes = min(PeekNeed.limit, consumed + kept)
        self.peekTimeout = peeking.compactMap { $0.peek?.timeout }.max()
        self.isNonBlocking = !peeking.isEmpty && peeking.allSatisfy(\.isNonBlocking)
        self.progressInterval = stages.compactMap(\.progressInterval).min()
        self.lastWait = stages.lastIndex { $0.peek != nil && !$0.isNonBlocking } ?? -1
        self.selector = stages.firstIndex { $0.facts.gives.contains(.route) } ?? -1
        self.upgrader = stages.firstIndex { $0.facts.capabilities.contains(.upgradesToTLS) } ?? -1
        self.ahead = FrozenArray(stages.indices.map { StagesAhead(of: $0, in: stages) })
        self.besideQueue = StagesAhead.besideQueue(of: selector, in: stages)
        self.capabilities = stages.reduce(into: []) { $0.formUnion($1.facts.capabilities) }
    }

    func deallocate() {
        for stage in stages.buffer { stage.filter.disposeErased(stage.settings) }
        stages.deallocate()
        ahead.deallocate()
    }

    /// Whether ``Verdict/inspect(_:)`` of that stage is non-blocking; otherwise it acts as ``Verdict/needBytes(_:)``,
    /// because a later stage has to wait for bytes anyway.
    @inlinable public func isNonBlocking(at stage: Int) -> Bool {
        stage > lastWait && stages.pointer(stage).pointee.isNonBlocking
    }
}

/// A config file, compiled: everything bound, typed, ordered and checked. Immutable.
///
/// Ownership: whoever holds the program calls nothing; ``deinit`` frees stages and settings. Workers hold it unmanaged
/// and count themselves in ``users``; the control side keeps it alive until every worker has applied a later one and
/// the count is zero.
public final class Program: Sendable {
    public let node: NodeSettings
    public let chains: FrozenArray<Chain>
    public let listeners: [ListenerSpec]
    public let exposes: [ExposeSpec]
    public let reasons: ReasonTable
    /// The filters that it was compiled for.
    public let catalog: [any Filter.Type]
    /// The blocks of the file, used or not: what the next program may take over (a limit's table).
    public let blocks: BlockTable
    /// The capabilities of its stages.
    public let capabilities: StageCapabilities
    /// What its stages, routes and `backends` blocks say of where connections to backends come from; each once.
    public let sources: [SourceSpec]
    /// How many stage states a worker needs.
    public let stateCount: Int
    /// Workers that run connections on it, or will run the next ones.
    public let users = ReservationCount()

    public init(
        node: NodeSettings, chains: [Chain], listeners: [ListenerSpec], exposes: [ExposeSpec],
        catalog: [any Filter.Type], blocks: BlockTable = BlockTable(), routeSources: [SourceSpec] = []
    ) {
        self.catalog = catalog
        self.blocks = blocks
        self.node = node
        self.chains = FrozenArray(chains)
        self.listeners = listeners
        self.exposes = exposes
        self.reasons = ReasonTable(catalog: catalog)
        self.stateCount = chains.reduce(0) { $0 + $1.stages.count }
        self.capabilities = chains.reduce(into: []) { $0.formUnion($1.capabilities) }
        let ofStages = chains.flatMap { $0.stages.buffer.compactMap(\.facts.source) }
        sources = (ofStages + routeSources).reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }

    /// Whether it connects in clients' names, which the system allows those with CAP_NET_ADMIN.
    public var connectsAsClients: Bool { sources.contains(.client) || capabilities.contains(.connectsAsClient) }

    /// True if workers must record every ended connection: for the log, a block, or the detection of unreachable
    /// destinations.
    public var recordsConnections: Bool {
        node.logConnections || blocks.wantsConnectionRecords || capabilities.contains(.refusesUnreachable)
    }

    /// Prepares its stages for workers 0..<workers. - Returns: the directive of the first stage without enough memory;
    /// nil: success.
    public func prepare(workers: Int, _ services: Services) -> String? {
        for chain in chains.buffer {
            for stage in chain.stages.buffer
            where !stage.filter.prepareErased(stage.settings, workers: workers, services) {
                return stage.source
            }
        }
        return nil
    }

    deinit {
        for chain in chains.buffer { chain.deallocate() }
        chains.deallocate()
    }
}
