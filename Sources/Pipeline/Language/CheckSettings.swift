import Pipeline

/// A block of settings that is being read.
struct OpenBlock {
    let descriptor: BlockDescriptor
    var draft: any BlockDraft
    /// The position of each setting, by its name (``SettingLine/name``).
    var said: [String: SourceSpan] = [:]

    init(_ descriptor: BlockDescriptor) {
        self.descriptor = descriptor
        draft = descriptor.draft()
    }
}

/// Lines of settings, whichever block they are in.
extension Checker {
    /// - Parameters:
    ///   - keyword: the block's, for messages.
    ///   - blocks: the descriptors of the allowed lines.
    func readLines(_ entries: [EntrySyntax], of keyword: String, into blocks: inout [OpenBlock]) {
        for entry in entries where !reporter.isFull { readLine(entry, of: keyword, into: &blocks) }
    }

    private func readLine(_ entry: EntrySyntax, of block: String, into blocks: inout [OpenBlock]) {
        let all = blocks.flatMap(\.descriptor.lines)
        let entry = underTodaysName(entry, among: all)
        let keyword = entry.keyword
        guard all.contains(where: { $0.keyword == keyword.text }) else {
            let offered = all.filter(\.isDocumented).map(\.keyword).reduce(into: [String]()) {
                if !$0.contains($1) { $0.append($1) }
            }
            return reporter.error(
                keyword.span, "`\(block)` has no setting \(quoted(keyword.text))",
                expected: orList(offered.map { "`\($0)`" }),
                help: suggestion(for: keyword.text, followedBy: entry.clauses[0].words, among: offered))
        }
        if let body = entry.body {
            return reporter.error(
                body.opening, "`\(keyword.text)` takes no block", help: "write its value on the same line")
        }
        guard let words = arguments(of: entry), let line = settingLine(keyword, words, all) else { return }
        guard let owner = blocks.firstIndex(where: { $0.descriptor.lines.contains { $0.name == line.name } }) else {
            return
        }
        if isDuplicate(quoted(line.name), entry.headSpan, firstAt: blocks[owner].said[line.name]) { return }
        blocks[owner].said[line.name] = entry.headSpan
        _ = apply(words, keyword, line, &blocks[owner])
    }

    /// The line's setting: if several share a keyword, the first word selects one.
    private func settingLine(_ keyword: WordSyntax, _ words: [WordSyntax], _ all: [SettingLine]) -> SettingLine? {
        let candidates = all.filter { $0.keyword == keyword.text }
        guard candidates.contains(where: { $0.qualifier != nil }) else { return candidates.first }
        let first = words.first?.text
        if let first, let line = candidates.first(where: { $0.qualifier == first }) { return line }
        var qualifiers: [String] = []
        for line in candidates where line.qualifier == nil {
            let starts = line.forms.compactMap(\.elements.first).flatMap(\.words)
            if let first, starts.contains(first) { return line }
            for word in starts where !qualifiers.contains(word) { qualifiers.append(word) }
        }
        qualifiers += candidates.compactMap(\.qualifier)
        report(
            ClauseFailure(
                progress: 0, message: words.first.map { "unexpected \(quoted($0.text))" },
                expected: qualifiers.map { "`\($0)`" }, candidates: qualifiers), words, of: keyword)
        return nil
    }

    /// True if the words are valid, and the draft has applied them.
    func apply(_ words: [WordSyntax], _ keyword: WordSyntax, _ line: SettingLine, _ block: inout OpenBlock) -> Bool {
        let clause: Clause
        do throws(ClauseFailure) {
            (_, clause) = try ClauseMatcher(blocks: self.blocks, isOneOfSeveral: false).match(words, oneOf: line.forms)
        } catch {
            for failure in [error] + error.others {
                report(failure, words, of: keyword, name: line.name, form: block.descriptor.wholeForm)
            }
            return false
        }
        for word in words where word.text.hasPrefix("@") { usedSets.insert(String(word.text.dropFirst())) }
        guard let index = block.descriptor.lines.firstIndex(where: { $0.name == line.name }) else { return false }
        do throws(ValueProblem) {
            try block.draft.apply(index, clause)
            return true
        } catch {
            let place = error.word.flatMap { wanted in words.first { $0.text == wanted } } ?? words.last ?? keyword
            reporter.error(place.span, error.message, expected: error.expected, help: error.help)
            return false
        }
    }

    /// Builds the block, and reports problems of the block as a whole.
    /// - Parameter place: of its name, or of its keyword where it has none.
    func finish(_ block: OpenBlock, name: String, at place: SourceSpan) -> (any ConfigBlock)? {
        let descriptor = block.descriptor
        for line in descriptor.lines {
            guard let missing = line.missing, block.said[line.name] == nil else { continue }
            reporter.error(place, "the \(descriptor.what) `\(name)` \(missing.problem)", help: missing.remedy)
        }
        let outcome = block.draft.make(
            BlockContext(
                name: name, running: reusable.find(descriptor.kind, name), said: Set(block.said.keys)))
        for remark in outcome.remarks {
            say(remark, at: remark.setting.flatMap { block.said[$0] } ?? place)
        }
        return outcome.block
    }

    func say(_ remark: BlockRemark, at span: SourceSpan) {
        switch remark.severity {
        case .error: reporter.error(span, remark.message, expected: remark.expected, help: remark.help)
        case .warning: reporter.warning(span, remark.message, help: remark.help)
        case .note: reporter.note(span, remark.message, help: remark.help)
        }
    }
}
