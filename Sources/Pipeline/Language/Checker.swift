import Pipeline

/// Compiles the tree into the parts of a program. Each kind of entry has its file: `Check*.swift`.
final class Checker {
    static let pipelineLimit = 1024
    static let stageLimit = 32
    /// Listeners and exposed ranges together.
    static let listenerLimit = 4096
    /// Ports of all `listen` lines: each is a socket for each worker (R27).
    static let listenerPortLimit = 16384

    let source: SourceText
    let reporter: Reporter
    let catalog: [any Filter.Type]
    let grammar: Grammar
    let reasons: ReasonTable
    let filterIndex: [String: Int]
    let readFile: FileReader
    let groupsOfHost: HostGroups

    var node = NodeSettings()
    /// Compiled blocks of the filters.
    var blocks = BlockTable()
    /// The position of the first entry of each kind.
    var blockPlaces: [BlockKind: SourceSpan] = [:]
    var usedSets: Set<String> = []
    /// Blocks of the running program, reused where unchanged.
    var reusable = BlockTable()
    var usedBlocks: Set<ObjectIdentifier> = []
    var pipelines: [CheckedPipeline] = []
    var pipelineIndex: [String: Int] = [:]
    var listeners: [Located<ListenerSpec>] = []
    var exposes: [Located<ExposeSpec>] = []
    /// `backends` blocks by name; ``groupNames`` has those with errors too, in source order.
    var groups: [String: BackendsBlock] = [:]
    var groupNames: [String] = []
    var usedGroups: Set<String> = []
    var backendNames: Set<BackendName> = []
    var routes: [RouteBlock] = []
    var routesFile: Located<String>?
    /// `routes file PATH watch`.
    var watchesRoutes = false
    /// `routes push`.
    var takesPushes: SourceSpan?
    /// Reported misuses of pipelines, so that ten listeners don't repeat an error ten times.
    var reportedUses: Set<String> = []
    var stageCount = 0

    init(
        source: SourceText, reporter: Reporter, catalog: [any Filter.Type], grammar: Grammar,
        readFile: @escaping FileReader = noFiles, hostGroups: HostGroups = .unasked
    ) {
        self.readFile = readFile
        groupsOfHost = hostGroups
        self.source = source
        self.reporter = reporter
        self.catalog = catalog
        self.grammar = grammar
        self.reasons = ReasonTable(catalog: catalog)
        var index: [String: Int] = [:]
        for (number, filter) in catalog.enumerated() where index[filter.descriptor.keyword] == nil {
            index[filter.descriptor.keyword] = number
        }
        self.filterIndex = index
    }

    func check(_ file: FileSyntax) {
        var entries: [String: [EntrySyntax]] = [:]
        for entry in file.body.entries where !reporter.isFull {
            let entry = underTodaysName(entry)
            if fitsTopLevel(entry) { entries[entry.keyword.text, default: []].append(entry) }
        }
        // Referenced entries are checked first; the order in the file is free.
        checkNodes(entries["node"] ?? [])
        checkBlocks(entries)
        checkPipelines(entries["pipeline"] ?? [])
        checkListeners(entries["listen"] ?? [], exposes: entries["expose"] ?? [])
        checkGroups(entries["backends"] ?? [])
        checkRoutes(entries["route"] ?? [])
        checkLoops()
        checkRouteSources(entries["routes"] ?? [])
        checkSingles(entries)
        // In a file with errors, an unused name may only be misspelt at its use.
        guard reporter.errorCount == 0 else { return }
        remarkOnUnusedPipelines()
        remarkOnUnused(entries)
        remarkOnUnusedGroups()
        noteClientSources()
        warnOfStageSources()
        remarkOnOtherLimits()
        review()
        if listeners.isEmpty, exposes.isEmpty {
            reporter.warning(
                SourceSpan(0, 0), "the file has no `listen` and no `expose` line: the node would accept nothing")
        }
    }

    private func fitsTopLevel(_ entry: EntrySyntax) -> Bool {
        let word = entry.keyword
        guard let known = grammar.topLevel.first(where: { $0.keyword == word.text }) else {
            let isStage = filterIndex[word.text] != nil && entry.body == nil
            let names = grammar.topLevel.map(\.keyword)
            let following = entry.clauses[0].words
            reporter.error(
                word.span, "unknown keyword \(quoted(word.text))", expected: orList(names.map { "`\($0)`" }),
                help: isStage ? "`\(word.text)` is a stage: it belongs in a `pipeline` block" : nil,
                isStage
                    ? foreignHelp(for: word.text, followedBy: following, among: names)
                    : suggestion(for: word.text, followedBy: following, among: names))
            return false
        }
        if known.isBlock, entry.body == nil, !namesFile(entry) {
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

    /// The `node` block, with the lines in it that belong to filters.
    private func checkNodes(_ entries: [EntrySyntax]) {
        var first: SourceSpan?
        for entry in entries where !reporter.isFull {
            // A second one is wrong, and what is in it may be wrong as well.
            let isFirst = !isDuplicate("`node`", entry.keyword.span, firstAt: first)
            if isFirst { first = entry.keyword.span }
            let name = blockName(of: entry, what: "node")
            let owned = grammar.blocks.filter { if case .nodeLine = $0.shape { true } else { false } }
            var open = [OpenBlock(NodeBlock.descriptor)] + owned.map(OpenBlock.init)
            readLines(entry.body?.entries ?? [], of: "node", into: &open)
            checkLoggedReasons(entry.body?.entries ?? [])
            checkAdminGroup(entry.body?.entries ?? [])
            for part in open.dropFirst() {
                guard let span = part.said[part.descriptor.keyword],
                    let block = finish(part, name: "", at: span), isFirst
                else { continue }
                blockPlaces[part.descriptor.kind] = span
                blocks.add(block, part.descriptor.kind)
            }
            let made = finish(open[0], name: name?.value ?? node.name, at: name?.span ?? entry.keyword.span)
            if isFirst, let made = made as? NodeBlock { node = made.values }
        }
    }

    /// Assembles the program; nil after an error.
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
            blocks: blocks, routeSources: routeSources)
    }

    private func remarkOnUnusedPipelines() {
        let used = Set(listeners.map(\.value.chain) + exposes.map(\.value.chain))
        for (index, pipeline) in pipelines.enumerated() where !used.contains(index) {
            reporter.warning(
                pipeline.nameSpan, "no listener uses the pipeline `\(pipeline.name)`",
                help: "add `listen ADDRESS:PORT tls_passthrough|tcp_raw via \(pipeline.name)`, or remove it")
        }
    }

    /// See ``Compilation/origins``.
    func origins(_ file: FileSyntax) -> [String: ConfigLine] {
        var origins: [String: ConfigLine] = [:]
        for entry in file.body.entries where source.isIncluded(entry.keyword.span.start) {
            let head = ([entry.keyword] + entry.clauses[0].words.prefix(1)).map(\.text).joined(separator: " ")
            origins[head] = line(entry.keyword.span)
        }
        return origins
    }

    // MARK: Helpers for all kinds of entries

    func line(_ span: SourceSpan) -> ConfigLine { source.configLine(of: span.start) }

    /// The words after the keyword. Nil, reported, if there are commas.
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
        if namesFile(entry) { words = Array(words.prefix(1)) }
        guard let first = words.first else {
            reporter.error(entry.keyword.span.behind, "the \(what) has no name", expected: "a name before `{`")
            return nil
        }
        if words.count > 1 {
            reporter.error(words[1].span, "unexpected \(quoted(words[1].text))", expected: "`{`")
        }
        return parsed(first) { text throws(ValueProblem) in try ConfigValue.name(text, what: what) }
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

    /// Reports why `words` after `subject` fit none of its forms. `name` is the incomplete item if words are missing;
    /// `form` is the fallback help.
    func report(
        _ failure: ClauseFailure, _ words: [WordSyntax], of subject: WordSyntax, name: String? = nil,
        form: String? = nil
    ) {
        let word = failure.progress < words.count ? words[failure.progress] : nil
        let span = word?.span ?? (words.last ?? subject).span.behind
        reporter.error(
            span, failure.message ?? "\(quoted(name ?? subject.text)) is not complete",
            expected: failure.expected.isEmpty ? nil : orList(failure.expected),
            help: failure.help ?? foreignHelp(forLine: [subject] + words)
                ?? word.flatMap {
                    suggestion(
                        for: $0.text, followedBy: Array(words.dropFirst(failure.progress + 1)),
                        among: failure.candidates)
                }
                ?? (failure.isValue ? nil : form),
            related: failure.first.map { [.init(words[$0].span, "the first is here")] } ?? [])
    }

    /// The single word of a line; nil, reported, if there are none or several.
    func onlyWord(_ words: [WordSyntax], of keyword: WordSyntax, expected: String) -> WordSyntax? {
        guard let word = words.first else {
            reporter.error(keyword.span.behind, "`\(keyword.text)` is not complete", expected: expected)
            return nil
        }
        guard words.count == 1 else {
            reporter.error(words[1].span, "unexpected \(quoted(words[1].text))", expected: "the end of the line")
            return nil
        }
        return word
    }
}
