import Pipeline

/// A `backends` block: where routes that name it lead.
@dynamicMemberLookup package struct BackendsBlock: Sendable {
    package let name: Located<String>
    /// At least one backend; `max_connections` is over all routes of the block.
    package let fields: BackendFields

    package subscript<Field>(dynamicMember field: KeyPath<BackendFields, Field>) -> Field { fields[keyPath: field] }
}

/// What a `route` block and a `backends` block both can say.
package struct BackendFields: Sendable {
    /// Ports 1...65535.
    package var backends: [Located<BackendSpec>] = []
    /// True for `v2`; nil: not given, which means `off`.
    package var proxyHeader: Located<SentHeader>?
    package var backendExpectsProxy: Located<Bool>?
    /// Nil: as the `backend` stage says.
    package var balance: Located<Balance>?
    /// At least 1; nil: no limit.
    package var maxConnections: Located<UInt32>?
    /// Nil: as the `backend` stage says.
    package var health: Located<RouteHealth>?
    /// Zero: `off`. Nil: as the `backend` stage says.
    package var idleTimeout: Located<TimeSpan>?
    /// Nil: who comes when a limit is reached is refused.
    package var queue: Located<QueueSpec>?
    /// Nil: as the `backend` stage says.
    package var source: Located<SourceSpec>?

    /// A route's, which leads to the block: what that says holds for all its routes. Limits and their queues are of each.
    func leading(to block: BackendFields) -> BackendFields {
        BackendFields(
            backends: block.backends, proxyHeader: block.proxyHeader ?? proxyHeader,
            backendExpectsProxy: block.backendExpectsProxy ?? backendExpectsProxy, balance: block.balance ?? balance,
            maxConnections: maxConnections, health: block.health ?? health,
            idleTimeout: idleTimeout ?? block.idleTimeout, queue: queue, source: source ?? block.source)
    }
}

extension Checker {
    func checkGroups(_ entries: [EntrySyntax]) {
        var first: [String: SourceSpan] = [:]
        for entry in entries where !reporter.isFull {
            guard let name = newName(of: entry, "group of backends", &first) else { continue }
            groupNames.append(name.value)
            if let group = checkedGroup(entry, name) { groups[name.value] = group }
        }
    }

    private func checkedGroup(_ entry: EntrySyntax, _ name: Located<String>) -> BackendsBlock? {
        let errorsBefore = reporter.errorCount
        let (draft, seen) = readRouteLines(entry, of: RouteSettings.group)
        let fields = draft.backend
        if seen["backend"] == nil {
            reporter.error(
                name.span, "`backends \(name.value)` has no backend",
                help: "add a line like `backend [fd00::10]:8443`")
        }
        refuseIdleQueue(fields, fields.backends, of: "the block")
        refuseIdleSource(fields.source, fields.backends)
        guard reporter.errorCount == errorsBefore else { return nil }
        warnIfWeightless(fields.backends, of: "the block", at: entry.headSpan)
        return BackendsBlock(name: name, fields: fields)
    }

    /// The block that a route names by `backends NAME`. Nil, reported, if there is none.
    func group(_ word: WordSyntax) -> BackendsBlock? {
        usedGroups.insert(word.text)
        if let group = groups[word.text] { return group }
        // One that is there but wrong is reported where it is.
        guard !groupNames.contains(word.text) else { return nil }
        let isAddress = word.text.contains(":")
        reporter.error(
            word.span,
            isAddress
                ? "\(quoted(word.text)) is not the name of a `backends` block"
                : "no backends block is named \(quoted(word.text))",
            help: isAddress
                ? "for addresses write `backend \(word.text)`"
                : misspelling(of: word.text, among: groupNames)
                    ?? "add `backends \(word.text) { ... }` outside of routes")
        return nil
    }

    /// In a file without errors.
    func remarkOnUnusedGroups() {
        for name in groupNames where !usedGroups.contains(name) {
            guard let group = groups[name] else { continue }
            reporter.warning(
                group.name.span, "no route uses the backends `\(name)`",
                help: "add `backends \(name)` to a route, or remove it")
        }
    }

    // MARK: Lines

    /// What the lines of a block say, and where the first of each keyword stands.
    func readRouteLines(_ entry: EntrySyntax, of block: RouteSettings.Block) -> (
        RouteDraft, [String: SourceSpan]
    ) {
        var draft = RouteDraft()
        var seen: [String: SourceSpan] = [:]
        for line in entry.body?.entries ?? [] where !reporter.isFull { readRouteLine(line, of: block, &draft, &seen) }
        return (draft, seen)
    }

    private func readRouteLine(
        _ entry: EntrySyntax, of block: RouteSettings.Block, _ draft: inout RouteDraft,
        _ seen: inout [String: SourceSpan]
    ) {
        let keyword = entry.keyword
        guard let setting = block.lines.first(where: { $0.keyword == keyword.text }) else {
            return reporter.error(
                keyword.span, "`\(block.keyword)` has no field \(quoted(keyword.text))",
                expected: orList(block.names.map { "`\($0)`" }),
                help: suggestion(for: keyword.text, followedBy: entry.clauses[0].words, among: block.names))
        }
        if let body = entry.body {
            reporter.error(body.opening, "`\(keyword.text)` takes no block", help: "write its value on the same line")
        }
        let first = seen[keyword.text]
        seen[keyword.text] = first ?? entry.headSpan
        if !setting.repeats, isDuplicate("`\(keyword.text)`", entry.headSpan, firstAt: first) { return }
        guard let words = arguments(of: entry) else { return }
        switch setting.read {
        case .words(_, let read): read(self, keyword, words, &draft)
        case .clause(let apply):
            do throws(ClauseFailure) {
                let (_, clause) = try ClauseMatcher(blocks: blocks, isOneOfSeveral: false)
                    .match(words, oneOf: setting.line.forms)
                if let block = clause.block() { usedBlocks.insert(ObjectIdentifier(block)) }
                apply(&draft, clause, words.first?.span ?? keyword.span)
            } catch {
                report(error, words, of: keyword)
            }
        }
    }

    // MARK: `backend` lines

    func checkBackends(
        _ words: [WordSyntax], _ keyword: WordSyntax, _ backends: inout [Located<BackendSpec>]
    ) {
        if words.isEmpty {
            reporter.error(
                keyword.span.behind, "`backend` is not complete", expected: "addresses like `[fd00::10]:8443`")
        }
        var addresses = words.prefix { !Checker.backendOptions.contains($0.text) }
        guard let options = backendOptions(addresses, words.dropFirst(addresses.count), keyword) else { return }
        while !reporter.isFull, let word = addresses.popFirst() {
            if let help = backendHelp(word) {
                reporter.error(
                    word.span, "unexpected \(quoted(word.text))",
                    expected: Checker.backendOptionsExpected, help: help)
                continue
            }
            guard let place = word.text == "srv" ? service(word, &addresses, options) : place(word) else { continue }
            // Linear on purpose: a route has a handful, and a long list is bounded by what is kept.
            let first = backends.first { $0.value.place == place.value.place }?.span
            if isDuplicate("the backend \(quoted(place.value.place))", place.span, firstAt: first) { continue }
            guard backends.count < 1024 else {
                reporter.error(word.span, "more than 1024 backends in one block")
                return
            }
            if let name = place.value.name, backendNames.insert(name).inserted, backendNames.count > BackendName.limit {
                reporter.error(place.span, "more than \(BackendName.limit) names of backends in one file")
                return
            }
            backends.append(
                Located(
                    BackendSpec(
                        place.value.endpoint, name: place.value.name, weight: options.weight?.value ?? 1,
                        maxConnections: options.maxConnections?.value ?? 0, priority: options.priority?.value ?? 0),
                    place.span))
        }
    }

    private func place(_ word: WordSyntax) -> Located<BackendSpec>? {
        parsed(word) { text throws(ValueProblem) in try ConfigValue.backend(text) }
    }

    /// The name behind `srv`.
    private func service(
        _ srv: WordSyntax, _ rest: inout ArraySlice<WordSyntax>, _ options: BackendOptions
    ) -> Located<BackendSpec>? {
        guard let word = rest.popFirst() else {
            reporter.error(
                srv.span.behind, "`srv` is not complete", expected: "a service like `_pg._tcp.example.internal`")
            return nil
        }
        if let weight = options.weight {
            reporter.error(
                weight.span, "SRV records have weights of their own", help: "remove `weight`; `weight` is of an address"
            )
            return nil
        }
        return parsed(word) { text throws(ValueProblem) in
            BackendSpec(Endpoint(.unspecified, 0), name: try ConfigValue.service(text))
        }
    }

    /// For a word that its author meant as something else than an address.
    private func backendHelp(_ word: WordSyntax) -> String? {
        if groupNames.contains(word.text) { return "to name the block write `backends \(word.text)`" }
        return foreignHelp(for: word.text, among: Checker.backendOptions)
    }

    static let backendOptions = ["weight", "max", "priority", "backup"]
    private static let backendOptionsExpected = orList(backendOptions.map { "`\($0)`" } + ["the end of the line"])

    private struct BackendOptions {
        var weight: Located<UInt16>?
        var maxConnections: Located<UInt32>?
        var priority: Located<UInt8>?
    }

    /// `weight 3 max 100 backup` after a single address. Nil, reported, if they can't be read.
    private func backendOptions(
        _ addresses: ArraySlice<WordSyntax>, _ words: ArraySlice<WordSyntax>, _ keyword: WordSyntax
    ) -> BackendOptions? {
        var options = BackendOptions()
        guard let option = words.first else { return options }
        let count = addresses.count { $0.text != "srv" }
        guard count == 1 else {
            reporter.error(
                option.span, "`\(option.text)` applies to one backend, but this line has \(count)",
                help: "write a `backend` line for each backend that has options")
            return nil
        }
        var rest = words
        while let option = rest.popFirst() {
            guard Checker.backendOptions.contains(option.text) else {
                reporter.error(
                    option.span, "unexpected \(quoted(option.text))", expected: Checker.backendOptionsExpected,
                    help: suggestion(for: option.text, followedBy: Array(rest), among: Checker.backendOptions))
                return nil
            }
            guard readBackendOption(option, &rest, &options) else { return nil }
        }
        return options
    }

    private func readBackendOption(
        _ option: WordSyntax, _ rest: inout ArraySlice<WordSyntax>, _ options: inout BackendOptions
    ) -> Bool {
        if option.text == "backup" {
            if isDuplicate("the priority", option.span, firstAt: options.priority?.span) { return false }
            options.priority = Located(BackendSpec.backupPriority, option.span)
            return true
        }
        guard let word = rest.popFirst() else {
            reporter.error(option.span.behind, "`\(option.text)` is not complete", expected: "a number")
            return false
        }
        let number = { (range: ClosedRange<UInt64>) in
            self.parsed(word) { text throws(ValueProblem) in try ConfigValue.count(text, range) }
        }
        switch option.text {
        case "weight":
            if isDuplicate("`weight`", option.span, firstAt: options.weight?.span) { return false }
            options.weight = number(0...UInt64(BackendSpec.weightLimit))
                .map { Located(UInt16(clamping: $0.value), option.span) }
            return options.weight != nil
        case "priority":
            if isDuplicate("the priority", option.span, firstAt: options.priority?.span) { return false }
            options.priority = number(0...UInt64(BackendSpec.backupPriority))
                .map { Located(UInt8(clamping: $0.value), option.span) }
            return options.priority != nil
        default:
            if isDuplicate("`max`", option.span, firstAt: options.maxConnections?.span) { return false }
            options.maxConnections = number(1...UInt64(UInt32.max))
                .map { Located(UInt32(clamping: $0.value), option.span) }
            return options.maxConnections != nil
        }
    }

    /// Weight 0 means none, so a route of nothing else refuses everybody.
    /// - Parameter what: `the route` or `the block`.
    func warnIfWeightless(_ backends: [Located<BackendSpec>], of what: String, at span: SourceSpan) {
        guard !backends.isEmpty, backends.allSatisfy({ $0.value.weight == 0 }) else { return }
        reporter.report(
            Diagnostic(
                .warning, at: span, "every backend of \(what) has `weight 0`: it gets no connections",
                help: ["give one of them a weight of 1 or more"]))
    }
}
