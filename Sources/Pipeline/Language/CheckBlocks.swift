import Pipeline

/// The blocks and lines that belong to filters, by their descriptors.
extension Checker {
    /// Named blocks and lines. `single` blocks follow the pipelines (``checkSingles(_:)``).
    func checkBlocks(_ entries: [String: [EntrySyntax]]) {
        for descriptor in grammar.blocks {
            let mine = entries[descriptor.keyword] ?? []
            if let first = mine.first { blockPlaces[descriptor.kind] = first.keyword.span }
            switch descriptor.shape {
            case .named: checkNamed(mine, descriptor)
            case .line(let limit, let remedy): checkLines(mine, descriptor, limit, remedy)
            case .list(let members): checkLists(mine, descriptor, members)
            case .single, .nodeLine: break
            }
        }
    }

    private func checkNamed(_ entries: [EntrySyntax], _ descriptor: BlockDescriptor) {
        var first: [String: SourceSpan] = [:]
        for entry in entries where !reporter.isFull {
            guard let name = newName(of: entry, descriptor.what, &first) else { continue }
            var open = [OpenBlock(descriptor)]
            readLines(entry.body?.entries ?? [], of: descriptor.keyword, into: &open)
            // Kept even if some line is wrong, so that its uses are not reported too.
            if let block = finish(open[0], name: name.value, at: name.span) { blocks.add(block, descriptor.kind) }
        }
    }

    /// The block's name, if it is new for this kind. Nil, reported, if it is missing or taken.
    func newName(
        of entry: EntrySyntax, _ what: String, _ first: inout [String: SourceSpan]
    ) -> Located<String>? {
        guard let name = blockName(of: entry, what: what) else { return nil }
        if isDuplicate("the \(what) \(quoted(name.value))", name.span, firstAt: first[name.value]) { return nil }
        first[name.value] = name.span
        return name
    }

    /// Blocks of which there is at most one; after the pipelines, on which their defaults depend.
    func checkSingles(_ entries: [String: [EntrySyntax]]) {
        for descriptor in grammar.blocks {
            guard case .single = descriptor.shape else { continue }
            var first: SourceSpan?
            for entry in entries[descriptor.keyword] ?? [] where !reporter.isFull {
                let isFirst = !isDuplicate("`\(descriptor.keyword)`", entry.keyword.span, firstAt: first)
                if isFirst { first = entry.keyword.span }
                if let word = arguments(of: entry)?.first {
                    reporter.error(
                        word.span, "unexpected \(quoted(word.text))", expected: "`{`",
                        help: "`\(descriptor.keyword)` has no name")
                }
                var open = [OpenBlock(descriptor)]
                readLines(entry.body?.entries ?? [], of: descriptor.keyword, into: &open)
                if let block = finish(open[0], name: "", at: entry.keyword.span), isFirst {
                    blocks.add(block, descriptor.kind)
                }
            }
            if first == nil, let block = descriptor.block(where: capabilities) { blocks.add(block, descriptor.kind) }
        }
    }

    private func checkLines(
        _ entries: [EntrySyntax], _ descriptor: BlockDescriptor, _ limit: Int, _ remedy: String
    ) {
        var first: [String: SourceSpan] = [:]
        for entry in entries where !reporter.isFull {
            var open = OpenBlock(descriptor)
            guard let words = arguments(of: entry), let line = descriptor.lines.first,
                apply(words, entry.keyword, line, &open),
                let block = finish(open, name: "", at: entry.keyword.span)
            else { continue }
            let what = "the \(descriptor.what) `\(block.name)`"
            if isDuplicate(what, entry.headSpan, firstAt: first[block.name]) { continue }
            first[block.name] = entry.headSpan
            guard blocks.all(descriptor.kind).count < limit else {
                reporter.error(
                    entry.keyword.span, "more than \(limit) `\(descriptor.keyword)` lines", help: remedy)
                return
            }
            blocks.add(block, descriptor.kind)
        }
    }

    // MARK: Unused blocks

    /// In a file without errors.
    func remarkOnUnused(_ entries: [String: [EntrySyntax]]) {
        for descriptor in grammar.blocks {
            // Routes of desired state name them, too.
            guard let use = descriptor.use, descriptor.kind != .health || routesFile == nil else { continue }
            for name in (entries[descriptor.keyword] ?? []).compactMap(\.clauses[0].words.first) {
                guard let block = blocks.find(descriptor.kind, name.text), !isUsed(block) else { continue }
                reporter.warning(
                    name.span, "nothing uses the \(descriptor.what) `\(name.text)`",
                    help: "\(use(name.text)), or remove it")
            }
        }
    }

    private func isUsed(_ block: any ConfigBlock) -> Bool {
        block is NamedSet ? usedSets.contains(block.name) : usedBlocks.contains(ObjectIdentifier(block))
    }

    /// The filters' remarks on a config without errors.
    func review() {
        let config = ConfigReview(capabilities: capabilities, blocks: blocks)
        for remark in catalog.flatMap({ $0.review(config) }) {
            switch remark.place {
            case .block(let kind): blockPlaces[kind].map { say(remark.remark, at: $0) }
            case .stage(let capability):
                let stages = pipelines.lazy.flatMap(\.stages)
                let stage = stages.first { $0.facts.capabilities.contains(capability) }
                if let stage { say(remark.remark, at: stage.keyword.span) }
            }
        }
    }

    /// The union of all stages' capabilities.
    var capabilities: StageCapabilities {
        pipelines.lazy.flatMap(\.stages).reduce(into: []) { $0.formUnion($1.facts.capabilities) }
    }
}
