import Pipeline

/// Turns the tree into a program's parts. Each kind of entry has its file: `Check*.swift`.
final class Checker {
    static let pipelineLimit = 1024
    static let stageLimit = 32
    /// Listeners and exposed ranges together.
    static let listenerLimit = 4096

    let source: SourceText
    let reporter: Reporter
    let catalog: [any Filter.Type]
    let filterIndex: [String: Int]
    let readFile: FileReader

    var node = NodeSettings()
    /// Of the word behind `intercept rules`.
    var interceptRulesSpan: SourceSpan?
    var sets: [String: AddressSet] = [:]
    var usedSets: Set<String> = []
    /// Compiled `limit`, `health` and `names` blocks.
    var blocks: [BlockKind: [String: any ConfigBlock]] = [:]
    /// Blocks of the program that runs, to be taken over where nothing changed.
    var reusable: [BlockKind: [String: any ConfigBlock]] = [:]
    var usedBlocks: Set<ObjectIdentifier> = []
    var pipelines: [CheckedPipeline] = []
    var pipelineIndex: [String: Int] = [:]
    var listeners: [Located<ListenerSpec>] = []
    var exposes: [Located<ExposeSpec>] = []
    var routes: [RouteBlock] = []
    var routesFile: Located<String>?
    /// Unfit uses of a pipeline that were reported, so that ten listeners don't say the same ten times.
    var reportedUses: Set<String> = []
    var stageCount = 0

    init(
        source: SourceText, reporter: Reporter, catalog: [any Filter.Type], readFile: @escaping FileReader = noFiles
    ) {
        self.readFile = readFile
        self.source = source
        self.reporter = reporter
        self.catalog = catalog
        var index: [String: Int] = [:]
        for (number, filter) in catalog.enumerated() where index[filter.descriptor.keyword] == nil {
            index[filter.descriptor.keyword] = number
        }
        self.filterIndex = index
    }

    /// Top-level keywords, how they are written, and whether they begin a block.
    static let topLevel: [(keyword: String, form: String, isBlock: Bool)] = [
        ("node", "node NAME { ... }", true), ("set", "set NAME { PREFIX ... }", true),
        ("limit", "limit NAME { ... }", true), ("health", "health NAME { ... }", true),
        ("names", "names NAME { HOSTNAME ... }", true), ("pipeline", "pipeline NAME { ... }", true),
        ("route", "route [HOSTNAME] { ... }", true),
        ("listen", "listen ADDRESS:PORT tls_passthrough|tcp_raw|transparent|redirect via PIPELINE", false),
        ("expose", "expose ADDRESS|dedicated_ipv4 ports FIRST-LAST [HINT] via PIPELINE", false),
        ("hints", "hints { ... }", true), ("routes", "routes file PATH", false),
        ("export", "export ipfix udp|tcp ADDRESS:PORT", false),
    ]

    func check(_ file: FileSyntax) {
        var entries: [String: [EntrySyntax]] = [:]
        for entry in file.body.entries where !reporter.isFull && fitsTopLevel(entry) {
            entries[entry.keyword.text, default: []].append(entry)
        }
        // What others refer to comes first; the order in the file is the author's own.
        checkNodes(entries["node"] ?? [])
        checkSets(entries["set"] ?? [])
        checkLimits(entries["limit"] ?? [])
        checkHealth(entries["health"] ?? [])
        checkNames(entries["names"] ?? [])
        checkPipelines(entries["pipeline"] ?? [])
        checkListeners(entries["listen"] ?? [], exposes: entries["expose"] ?? [])
        checkRoutes(entries["route"] ?? [])
        checkLoops()
        checkRouteSources(entries["routes"] ?? [])
        checkExports(entries["export"] ?? [])
        checkHints(entries["hints"] ?? [])
        node.refusesUnreachable = pipelines.contains { $0.stages.contains(where: \.facts.refusesUnreachable) }
        // In a file with errors, what looks unused may only be misspelt where it is used.
        guard reporter.errorCount == 0 else { return }
        remarkOnUnused(sets: entries["set"] ?? [])
        remarkOnUnused(limits: entries["limit"] ?? [])
        remarkOnUnusedHealth(entries["health"] ?? [])
        remarkOnUnusedNames(entries["names"] ?? [])
        remarkOnLedger()
        remarkOnBlindHints(entries["hints"] ?? [])
        if listeners.isEmpty, exposes.isEmpty {
            reporter.warning(
                SourceSpan(0, 0), "the file has no `listen` and no `expose` line: the node would accept nothing")
        }
    }

    private func fitsTopLevel(_ entry: EntrySyntax) -> Bool {
        let word = entry.keyword
        guard let known = Checker.topLevel.first(where: { $0.keyword == word.text }) else {
            let help =
                filterIndex[word.text] != nil && entry.body == nil
                ? "`\(word.text)` is a stage: it belongs in a `pipeline` block"
                : suggestion(for: word.text, among: Checker.topLevel.map(\.keyword))
            reporter.error(
                word.span, "unknown keyword \(quoted(word.text))",
                expected: orList(Checker.topLevel.map { "`\($0.keyword)`" }), help: help)
            return false
        }
        if known.isBlock, entry.body == nil, !Checker.namesFile(entry) {
            reporter.error(
                entry.headSpan.behind, "`\(word.text)` begins a block", expected: "`{`", help: "write `\(known.form)`")
            return false
        }
        if !known.isBlock, let body = entry.body {
            reporter.error(body.opening, "`\(word.text)` takes no block", help: "write `\(known.form)`")
            return false
        }
        return true
    }

    /// Binds all together; nil if there was an error.
    func makeProgram() -> Program? {
        guard reporter.errorCount == 0 else {
            for stage in pipelines.flatMap(\.stages).compactMap(\.stage) {
                stage.filter.disposeErased(stage.settings)
            }
            return nil
        }
        return Program(
            node: node, chains: pipelines.map { Chain(name: $0.name, stages: $0.stages.compactMap(\.stage)) },
            listeners: listeners.map(\.value), exposes: exposes.map(\.value), catalog: catalog,
            blocks: blocks, sets: sets.values.sorted { $0.name < $1.name })
    }

    private func remarkOnUnused(sets entries: [EntrySyntax]) {
        let used = Set(listeners.map(\.value.chain) + exposes.map(\.value.chain))
        for (index, pipeline) in pipelines.enumerated() where !used.contains(index) {
            reporter.warning(
                pipeline.nameSpan, "no listener uses the pipeline `\(pipeline.name)`",
                help: "add `listen ADDRESS:PORT tls_passthrough|tcp_raw via \(pipeline.name)`, or remove it")
        }
        for name in entries.compactMap(\.clauses[0].words.first) where !usedSets.contains(name.text) {
            reporter.warning(
                name.span, "nothing uses the set `\(name.text)`",
                help: "write `@\(name.text)` in a stage, or remove it")
        }
    }

    // MARK: Helpers for all kinds of entries

    func line(_ span: SourceSpan) -> Int { source.lineNumber(of: span.start) }

    /// The words behind the keyword, where commas have no place. Nil, reported, if there are some.
    func arguments(of entry: EntrySyntax) -> [WordSyntax]? {
        guard entry.clauses.count == 1 else {
            reporter.error(
                entry.clauses[1].span, "`\(entry.keyword.text)` takes no `,`", help: "separate words by spaces")
            return nil
        }
        return entry.clauses[0].words
    }

    /// The name of a block: exactly one word. Nil, reported, if it is not.
    func blockName(of entry: EntrySyntax, what: String) -> Located<String>? {
        guard var words = arguments(of: entry) else { return nil }
        if Checker.namesFile(entry) { words = Array(words.prefix(1)) }
        guard let first = words.first else {
            reporter.error(entry.keyword.span.behind, "the \(what) has no name", expected: "a name before `{`")
            return nil
        }
        if words.count > 1 {
            reporter.error(words[1].span, "unexpected \(quoted(words[1].text))", expected: "`{`")
        }
        return parsed(first) { text throws(ValueProblem) in try Value.name(text, what: what) }
    }

    /// The word's value; nil, reported, if it has none.
    func parsed<Result: Sendable>(
        _ word: WordSyntax, _ read: (String) throws(ValueProblem) -> Result
    ) -> Located<Result>? {
        do throws(ValueProblem) {
            return Located(try read(word.text), word.span)
        } catch {
            reporter.error(word.span, error.message, expected: error.expected, help: error.help)
            return nil
        }
    }

    /// True, reported, if `name` was defined before.
    func isDuplicate(_ what: String, _ span: SourceSpan, firstAt first: SourceSpan?) -> Bool {
        guard let first else { return false }
        reporter.error(
            span, "\(what) is given twice", help: "remove one of them",
            related: [.init(first, "the first is here")])
        return true
    }

    /// Says why `words`, which follow `subject`, fit none of its forms. `name` is what is not complete if words are
    /// missing.
    func report(_ failure: ClauseFailure, _ words: [WordSyntax], of subject: WordSyntax, name: String? = nil) {
        let word = failure.progress < words.count ? words[failure.progress] : nil
        let span = word?.span ?? (words.last ?? subject).span.behind
        reporter.error(
            span, failure.message ?? "\(quoted(name ?? subject.text)) is not complete",
            expected: failure.expected.isEmpty ? nil : orList(failure.expected),
            help: failure.help ?? word.flatMap { suggestion(for: $0.text, among: failure.candidates) })
    }
}
