import Pipeline

/// One apply: from documents to the changes that the rules allow. ``TableBuild`` makes the table.
///
/// All documents of an apply are resolved together: each object alone, then against all others. Between envs, the order
/// of documents or objects decides nothing.
final class ApplyRun {
    /// A document, with its symbols in the state's numbering.
    struct Part {
        let document: StateDocument
        private(set) var symbols: [UInt32]

        var source: StateDocument.Source { document.source }
        var bit: UInt8 { document.source.bit }
        init(document: StateDocument, symbols: [UInt32]) {
            self.document = document
            self.symbols = symbols
        }

        func env(_ symbol: UInt32) -> UInt32 { symbols[Int(symbol)] }
        mutating func rename(_ symbol: UInt32, _ env: UInt32) { symbols[Int(symbol)] = env }
    }

    /// A route as a document has it.
    struct Version {
        var entry: UInt32
        let part: UInt8
        let object: UInt32
        /// With what was judged (R16).
        var options: RouteOptions
        var group = RouteEntry.none
        /// The table has it like this.
        var isSame = false
        /// It breaks a rule for single routes.
        var isBroken = false
        /// Another object with its id has different content.
        var isTwin = false
        /// Another object with its id has the same content.
        var isSpare = false
        /// See ``LoneRoutes``.
        var isAlone = false
        /// Its node in ``ApplyRun/claims``; ``Claims/none``: it has none.
        var node = Claims.none
    }

    /// A route to change in the table.
    struct Change {
        let entry: UInt32
        let group: UInt32
        let hash: UInt64
        /// Nil: what is applied, but for its options.
        let version: Int?
        let options: RouteOptions
    }

    let state: RoutingState
    let store: RouteStore
    let parts: [Part]
    /// Nil: the documents are whole, and everything is decided.
    let scope: ApplyScope?
    /// Nil: the documents have all routes.
    let mapped: MappedStart?
    var report = ApplyReport()
    var versions: [Version] = []
    /// Of ids with several objects, all versions.
    var twins: [UInt32: [Int]] = [:]
    var changes: [Change] = []
    var removed: [UInt32] = []
    /// A name or a port may be free now that was not when others were decided about.
    var hasFreed = false
    /// Envs whose objects can't be used: their routes keep their claims, but are not served.
    var unclearEnvs: Set<UInt32> = []
    /// Envs with several, different objects in the state document.
    var twinEnvs: Set<UInt32> = []
    /// Envs that are others now under the id that they had (R5), with the symbol of the path before.
    var pathsBefore: [UInt32: UInt32] = [:]
    /// Orgs whose object can't be used.
    var unreadOrgs: Set<String> = []
    /// By env: the sources that have it, and whether it has a dedicated address.
    var knownEnvs: [UInt8] = []
    let book: NameBook
    /// The last table. Names of the book stand in its text: it must not go before this run, though the state has the next.
    private let last: RouteTableSnapshot
    lazy var claims = Claims(
        book, idOrder: { [unowned self] in self.id(of: $0).lexicographicallyPrecedes(self.id(of: $1)) },
        alpn: { [unowned self] in self.alpn(of: $0) })
    var entries = HostnameEntries()
    var applied: [Applied] = []
    /// Groups that may have lost or never had a route.
    var touchedGroups: Set<UInt32> = []
    /// Addresses that became ready with this apply, for slow start.
    var newlyReady: Set<IPAddress> = []

    init(
        _ state: RoutingState, _ documents: [StateDocument], _ scope: ApplyScope? = nil, mapped: MappedStart? = nil
    ) {
        self.state = state
        (self.scope, self.mapped) = (scope, mapped)
        self.store = state.store
        book = NameBook(seed: state.seed)
        last = state.snapshot
        // Where both define an object, the config comes first.
        let all = documents.sorted { $0.source.rawValue < $1.source.rawValue }.map { document in
            Part(
                document: document,
                symbols: (0..<UInt32(document.symbols.count)).map {
                    state.symbols.intern(document.symbols.bytes($0)) ?? RouteEntry.none
                })
        }
        parts = ApplyRun.joined(all, state)
    }

    func run() -> ApplyReport {
        applyEnvs()
        applyOrgs()
        settleSuspension()
        if let part = part(of: .state) {
            if scope?.assignsAddresses ?? true { assignAddresses(part) }
            applyInstances(part)
            if scope?.assignsSources ?? true { assignSources(part) }
        }
        if let mapped { adopt(mapped) }
        collectRoutes()
        collectHostnames()
        claimRoutes()
        resolve()
        decide()
        reportRefusals()
        // What a start from a table leaves out was given up before.
        hasFreed =
            mapped == nil && !removed.isEmpty || changes.contains { store.entry($0.entry).pointee.current != nil }
        TableBuild(self).build()
        rememberHostnames()
        rememberUnserved()
        noteApplied()
        forgetUnused()
        if scope == nil, part(of: .state) != nil { state.tableKey = state.rulesKey }
        state.applies += 1
        report.drains = state.drains.list
        report.cooling = state.cooldowns.waiting.count
        return report
    }

    func part(of source: StateDocument.Source) -> Part? { parts.first { $0.source == source } }

    func problem(
        _ severity: RouteProblem.Severity, _ object: RouteProblem.Object, _ id: String, _ field: String?,
        _ origin: Origin?, _ text: String, remedy: String
    ) {
        report.problems.add(
            RouteProblem(severity, object, id: id, field: field, origin: origin, text, remedy: remedy))
    }

    /// Reports an id that several objects have; the result does not depend on their order.
    func problemTwice(
        _ object: RouteProblem.Object, _ id: String, _ field: String, _ origin: Origin?, isSame: Bool, kept: Bool
    ) {
        problem(
            isSame ? .warning : .rejected, object, id, field, origin,
            isSame
                ? "is given twice, with the same content"
                : "is given twice, with different content: "
                    + (kept ? "the applied version stays" : "neither is used"),
            remedy: "remove one of them")
    }

    /// The id by which an entry is known.
    func id(of entry: UInt32) -> Bytes { store.id(entry) }

    /// Groups without a route go.
    func forgetGroups() {
        for number in touchedGroups where state.groups.isEmpty(number) {
            if let box = state.groups.remove(number) { store.release(box) }
        }
    }

    private func forgetUnused() {
        if let scope, scope.envs.isEmpty, touchedGroups.isEmpty { return }
        guard state.envs.values.contains(where: { $0.sources == 0 }) else { return }
        var used: Set<UInt32> = []
        state.groups.visit { _, group in used.insert(group.key.env) }
        for (env, record) in state.envs where record.sources == 0 && !used.contains(env) {
            store.release(record.box)
            state.envs[env] = nil
        }
    }
}

extension StateDocument.Source {
    var bit: UInt8 { rawValue + 1 }
}
