import Pipeline

/// One line of a pipeline whose keyword is a filter's.
struct CheckedStage {
    let filter: any Filter.Type
    let keyword: WordSyntax
    let line: ConfigLine
    /// Nil if a clause is wrong; its place in the chain still counts.
    let stage: Stage?
    /// The first clause of each name.
    let clauseSpans: [String: SourceSpan]

    var name: String { keyword.text }
    var descriptor: FilterDescriptor { filter.descriptor }
    var facts: StageFacts { stage?.facts ?? descriptor.facts }
}

struct CheckedPipeline {
    let name: String
    let nameSpan: SourceSpan
    var stages: [CheckedStage] = []
    /// False if a line is not a known stage, so that missing facts can't be judged.
    var isComplete = true

    func firstIndex(giving fact: Fact) -> Int? { stages.firstIndex { $0.facts.gives.contains(fact) } }
}

extension Checker {
    func checkPipelines(_ entries: [EntrySyntax]) {
        for entry in entries where !reporter.isFull {
            guard let name = blockName(of: entry, what: "pipeline") else { continue }
            let first = pipelineIndex[name.value].map { pipelines[$0].nameSpan }
            if isDuplicate("the pipeline \(quoted(name.value))", name.span, firstAt: first) { continue }
            guard pipelines.count < Checker.pipelineLimit else {
                reporter.error(name.span, "more than \(Checker.pipelineLimit) pipelines", help: "share pipelines")
                return
            }
            pipelineIndex[name.value] = pipelines.count
            pipelines.append(checkedPipeline(entry, name))
            checkOrder(of: pipelines[pipelines.count - 1])
            checkReservations(of: pipelines[pipelines.count - 1])
        }
    }

    /// Reservations last until the connection ends, and a connection has a fixed number; one is for the route's own
    /// limit.
    private func checkReservations(of pipeline: CheckedPipeline) {
        let limit = Reservations.capacity - 1
        let reserving = pipeline.stages.filter { $0.facts.reservations > 0 }
        guard reserving.count > limit else { return }
        reporter.error(
            reserving[limit].keyword.span,
            "more than \(limit) stages of `\(pipeline.name)` limit concurrent connections or bytes",
            help: "merge `limit` blocks with the same key",
            related: [.init(reserving[0].keyword.span, "the first is here")])
    }

    private func checkedPipeline(_ entry: EntrySyntax, _ name: Located<String>) -> CheckedPipeline {
        var pipeline = CheckedPipeline(name: name.value, nameSpan: name.span)
        for line in entry.body?.entries ?? [] where !reporter.isFull {
            guard pipeline.stages.count < Checker.stageLimit else {
                reporter.error(line.keyword.span, "more than \(Checker.stageLimit) stages in one pipeline")
                break
            }
            if let stage = checkedStage(line) {
                pipeline.stages.append(stage)
            } else {
                pipeline.isComplete = false
            }
        }
        return pipeline
    }

    /// Nil, reported, if no filter has the keyword.
    private func checkedStage(_ entry: EntrySyntax) -> CheckedStage? {
        let keyword = entry.keyword
        guard let index = filterIndex[keyword.text] else {
            let known = catalog.map { $0.descriptor.keyword }
            reporter.error(
                keyword.span, "no stage is named \(quoted(keyword.text))", expected: orList(known.map { "`\($0)`" }),
                help: suggestion(for: keyword.text, followedBy: entry.clauses[0].words, among: known))
            return nil
        }
        if let body = entry.body {
            reporter.error(body.opening, "a stage takes no block", help: "write its clauses on the same line")
        }
        let filter = catalog[index]
        let errorsBefore = reporter.errorCount
        let checked = checkedClauses(entry, filter.descriptor)
        var stage: Stage?
        if reporter.errorCount == errorsBefore {
            stage = bind(filter, index, checked, entry)
        }
        if let stage { remarkOnPeek(stage, entry, checked.spans) }
        return CheckedStage(
            filter: filter, keyword: keyword, line: line(keyword.span), stage: stage, clauseSpans: checked.spans)
    }

    private struct CheckedClauses {
        var clauses: [Clause] = []
        var spans: [String: SourceSpan] = [:]
        /// The last word of each of ``clauses``.
        var lastWords: [SourceSpan] = []
        var shadow: SourceSpan?
    }

    private func checkedClauses(_ entry: EntrySyntax, _ descriptor: FilterDescriptor) -> CheckedClauses {
        var result = CheckedClauses()
        var failed = false
        for syntax in entry.clauses where !syntax.words.isEmpty && !reporter.isFull {
            if isShadow(syntax) {
                checkShadow(syntax, descriptor, &result)
                continue
            }
            for word in syntax.words where word.text.hasPrefix("@") {
                usedSets.insert(String(word.text.dropFirst()))
            }
            do throws(ClauseFailure) {
                let (spec, clause) = try ClauseMatcher(blocks: blocks).match(
                    syntax.words, oneOf: descriptor.clauses)
                if !spec.repeats,
                    isDuplicate("`\(spec.form)`", syntax.span, firstAt: result.spans[spec.name])
                {
                    continue
                }
                if result.spans[spec.name] == nil { result.spans[spec.name] = syntax.span }
                result.clauses.append(clause)
                result.lastWords.append(syntax.words.last?.span ?? syntax.span)
            } catch {
                failed = true
                reportClause(error, syntax, entry.keyword, descriptor)
            }
        }
        for spec in descriptor.clauses where spec.required && !failed && result.spans[spec.name] == nil {
            reporter.error(
                entry.headSpan.behind, "`\(descriptor.keyword)` is not complete", expected: "`\(spec.form)`")
        }
        return result
    }

    private func isShadow(_ syntax: ClauseSyntax) -> Bool {
        syntax.words.count == 1 && syntax.words[0].text == "shadow"
    }

    /// R28: a stage that refuses may run in shadow mode.
    private func checkShadow(
        _ syntax: ClauseSyntax, _ descriptor: FilterDescriptor, _ result: inout CheckedClauses
    ) {
        if descriptor.reasons.isEmpty {
            reporter.error(
                syntax.span, "`\(descriptor.keyword)` never refuses a connection, so `shadow` has no effect",
                help: "remove `shadow`")
        } else if !isDuplicate("`shadow`", syntax.span, firstAt: result.shadow) {
            result.shadow = syntax.span
        }
    }

    private func reportClause(
        _ failure: ClauseFailure, _ syntax: ClauseSyntax, _ keyword: WordSyntax, _ descriptor: FilterDescriptor
    ) {
        guard failure.progress == 0, !failure.isValue, let word = syntax.words.first else {
            return report(failure, syntax.words, of: keyword, name: syntax.words.first?.text)
        }
        let shadow = descriptor.reasons.isEmpty ? [] : ["shadow"]
        let forms = descriptor.clauses.map(\.form) + shadow
        reporter.error(
            word.span, "`\(keyword.text)` has no clause \(quoted(word.text))",
            expected: forms.isEmpty ? "the end of the line" : orList(forms.map { "`\($0)`" }),
            help: failure.help
                ?? suggestion(
                    for: word.text, followedBy: Array(syntax.words.dropFirst()), among: failure.candidates + shadow))
    }

    private func bind<F: Filter>(
        _ filter: F.Type, _ index: Int, _ checked: CheckedClauses, _ entry: EntrySyntax
    ) -> Stage? {
        do throws(SettingsError) {
            let named = checked.clauses.flatMap(\.values).compactMap { value -> (any ConfigBlock)? in
                if case .block(let block) = value { block } else { nil }
            }
            for block in named { usedBlocks.insert(ObjectIdentifier(block)) }
            let settings = try F.settings(Directive(keyword: entry.keyword.text, clauses: checked.clauses))
            defer { stageCount += 1 }
            return Stage.bind(
                filter, settings: settings, reasonBase: reasons.bases[index], stateIndex: stageCount,
                shadow: checked.shadow != nil, source: Formatter.line(entry), line: line(entry.keyword.span),
                blocks: named)
        } catch {
            let indexed = error.clauseIndex.flatMap {
                checked.lastWords.indices.contains($0) ? checked.lastWords[$0] : nil
            }
            let span = indexed ?? error.clause.flatMap { checked.spans[$0] } ?? entry.headSpan
            reporter.error(span, error.problem, help: error.remedy)
            return nil
        }
    }

    /// R7, and what a chain needs to bound its peeking.
    private func remarkOnPeek(_ stage: Stage, _ entry: EntrySyntax, _ spans: [String: SourceSpan]) {
        guard let peek = stage.peek else { return }
        let name = entry.keyword.text
        guard (1...PeekNeed.limit).contains(peek.bytes) else {
            return reporter.error(
                entry.headSpan, "`\(name)` wants to see \(peek.bytes) bytes",
                expected: "1 to \(sizeText(UInt64(PeekNeed.limit)))")
        }
        guard let timeout = peek.timeout else {
            // Without a deadline it uses non-blocking inspection, so it can provide only facts known before.
            guard !stage.facts.gives.isEmpty, !stage.filter.descriptor.isNonBlocking else { return }
            return reporter.error(
                entry.headSpan, "`\(name)` may wait for bytes without a deadline", help: "give it a timeout")
        }
        if timeout < .seconds(1) {
            reporter.note(
                spans["timeout"] ?? entry.keyword.span,
                "`\(name)` waits \(timeout.configText) for the client's first bytes, but the retransmission of a lost "
                    + "segment takes longer", help: "`timeout 3s` admits such clients")
        }
    }
}
