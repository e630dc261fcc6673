import Pipeline
import PipelineLimits

/// What a `limit` block says, as far as it is right.
private struct LimitFields {
    var key: LimitKey?
    var rate: ConnectionRate?
    var concurrent: UInt32?
    var bytesUp: ByteRate?
    var bytesDown: ByteRate?
    var entries: UInt64?

    var limitsNothing: Bool { rate == nil && concurrent == nil && bytesUp == nil && bytesDown == nil }
}

extension Checker {
    static let limitFields = ["key", "rate", "concurrent", "bytes_up", "bytes_down", "table", "when_full"]
    /// Counts that one connection may hold for limits; `backend` needs one more.
    static let holdLimit = Holds.capacity - 1

    func checkLimits(_ entries: [EntrySyntax]) {
        var first: [String: SourceSpan] = [:]
        for entry in entries where !reporter.isFull {
            guard let name = blockName(of: entry, what: "limit") else { continue }
            if isDuplicate("the limit \(quoted(name.value))", name.span, firstAt: first[name.value]) { continue }
            first[name.value] = name.span
            let settings = limitSettings(entry, name)
            let old = reusable[.limit]?[name.value] as? LimitTable
            if let old, old.settings == settings {
                blocks[.limit, default: [:]][name.value] = old
            } else if let table = LimitTable(name: name.value, settings: settings) {
                blocks[.limit, default: [:]][name.value] = table
            } else {
                reporter.error(
                    name.span, "the system has no memory for \(countText(settings.entries)) entries",
                    help: "write a smaller `table`")
            }
        }
    }

    /// A stage's entry stays counted until the connection ends, and a connection can hold so many.
    func checkHolds(of pipeline: CheckedPipeline) {
        let holding = pipeline.stages.filter { stage in
            stage.stage?.blocks.contains { ($0 as? LimitTable)?.settings.isHeld == true } == true
        }
        guard holding.count > Checker.holdLimit else { return }
        reporter.error(
            holding[Checker.holdLimit].keyword.span,
            "more than \(Checker.holdLimit) stages of `\(pipeline.name)` limit connections at once or bytes",
            help: "put what has the same key into one `limit` block",
            related: [.init(holding[0].keyword.span, "the first is here")])
    }

    func remarkOnUnused(limits entries: [EntrySyntax]) {
        for name in entries.compactMap(\.clauses[0].words.first) {
            guard let block = blocks[.limit]?[name.text], !usedBlocks.contains(ObjectIdentifier(block)) else {
                continue
            }
            reporter.warning(
                name.span, "nothing uses the limit `\(name.text)`",
                help: "write `rate_limit \(name.text)` in a pipeline, or remove it")
        }
    }

    /// Always something, reported where it is wrong, so that stages that name the block don't get an error as well.
    private func limitSettings(_ entry: EntrySyntax, _ name: Located<String>) -> LimitSettings {
        var fields = LimitFields()
        var seen: [String: SourceSpan] = [:]
        for line in entry.body?.entries ?? [] where !reporter.isFull { checkLimitField(line, &fields, &seen) }
        let missing = { (field: String, what: String, remedy: String) in
            guard seen[field] == nil else { return }
            self.reporter.error(name.span, "the limit `\(name.value)` \(what)", help: remedy)
        }
        missing("key", "has no key", "say what it counts by, for example `key client/64`")
        missing(
            "table", "has no bound",
            "write the most entries that it may keep, for example `table 100k`: one for each key that is active")
        if fields.limitsNothing, Set(["rate", "concurrent", "bytes_up", "bytes_down"]).isDisjoint(with: seen.keys) {
            reporter.error(
                name.span, "the limit `\(name.value)` limits nothing",
                expected: "`rate`, `concurrent`, `bytes_up` or `bytes_down`", help: "for example `rate 200/s burst 400`"
            )
        }
        return LimitSettings(
            key: fields.key ?? .listener, rate: fields.rate, concurrent: fields.concurrent, bytesUp: fields.bytesUp,
            bytesDown: fields.bytesDown, entries: fields.entries ?? 1)
    }

    private func checkLimitField(
        _ entry: EntrySyntax, _ fields: inout LimitFields, _ seen: inout [String: SourceSpan]
    ) {
        let keyword = entry.keyword
        guard Checker.limitFields.contains(keyword.text) else {
            return reporter.error(
                keyword.span, "`limit` has no setting \(quoted(keyword.text))",
                expected: orList(Checker.limitFields.map { "`\($0)`" }),
                help: suggestion(for: keyword.text, among: Checker.limitFields))
        }
        if let body = entry.body {
            return reporter.error(
                body.opening, "`\(keyword.text)` takes no block", help: "write its value on the same line")
        }
        guard let words = arguments(of: entry) else { return }
        if isDuplicate(quoted(keyword.text), entry.headSpan, firstAt: seen[keyword.text]) { return }
        seen[keyword.text] = entry.headSpan
        switch keyword.text {
        case "key": fields.key = limitKey(words, keyword)
        case "rate": fields.rate = connectionRate(words, keyword)
        case "bytes_up": fields.bytesUp = byteRate(words, keyword)
        case "bytes_down": fields.bytesDown = byteRate(words, keyword)
        case "concurrent":
            guard let word = onlyWord(words, of: keyword, expected: "a number like `50`") else { return }
            let value = parsed(word) { text throws(ValueProblem) in try Value.count(text, 1...1_000_000) }
            fields.concurrent = value.map { UInt32(clamping: $0.value) }
        case "table":
            guard let word = onlyWord(words, of: keyword, expected: "a number like `100k`") else { return }
            fields.entries =
                parsed(word) { text throws(ValueProblem) in try Value.count(text, 1...LimitSettings.entryLimit) }?.value
        default: checkWhenFull(words, keyword)
        }
    }

    // MARK: Fields

    private func limitKey(_ words: [WordSyntax], _ keyword: WordSyntax) -> LimitKey? {
        let plain: [String: LimitKey] = [
            "route": .route, "env": .env, "org": .org, "instance": .instance, "listener": .listener,
        ]
        let names = ["client"] + plain.keys.sorted()
        guard let word = words.first else {
            reporter.error(keyword.span.behind, "`key` is not complete", expected: orList(names.map { "`\($0)`" }))
            return nil
        }
        let parts = word.text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        if parts.first == "client" { return clientKey(words, parts.count > 1 ? parts[1] : nil) }
        guard let key = plain[word.text] else {
            reporter.error(
                word.span, "nothing is counted by \(quoted(word.text))",
                expected: "`client/64` or " + orList(plain.keys.sorted().map { "`\($0)`" }),
                help: suggestion(for: parts.first.map(String.init) ?? word.text, among: names))
            return nil
        }
        guard words.count == 1 else {
            reporter.error(words[1].span, "unexpected \(quoted(words[1].text))", expected: "the end of the line")
            return nil
        }
        return key
    }

    /// `client`, `client/N`, `client/N v4/M`.
    private func clientKey(_ words: [WordSyntax], _ length: Substring?) -> LimitKey? {
        var lengths: (v6: UInt8, v4: UInt8) = (64, 32)
        if let length {
            let read = parsed(words[0]) { text throws(ValueProblem) in
                try Value.prefixLength(length, in: text, 1...128)
            }
            guard let read else { return nil }
            lengths.v6 = read.value
        }
        guard words.count > 1 else { return .client(v6: lengths.v6, v4: lengths.v4) }
        guard words.count == 2, words[1].text.hasPrefix("v4/") else {
            let wrong = words[1].text.hasPrefix("v4/") ? words[2] : words[1]
            reporter.error(
                wrong.span, "unexpected \(quoted(wrong.text))", expected: "`v4/LENGTH` or the end of the line")
            return nil
        }
        let read = parsed(words[1]) { text throws(ValueProblem) in
            try Value.prefixLength(text.dropFirst(3), in: text, 1...32)
        }
        return read.map { .client(v6: lengths.v6, v4: $0.value) }
    }

    /// The words of `VALUE [burst VALUE]`; nil, reported, if they are others.
    private func valueAndBurst(
        _ words: [WordSyntax], _ keyword: WordSyntax, expected: String
    ) -> (value: WordSyntax, burst: WordSyntax?)? {
        guard let value = words.first else {
            reporter.error(keyword.span.behind, "`\(keyword.text)` is not complete", expected: expected)
            return nil
        }
        guard words.count > 1 else { return (value, nil) }
        guard words[1].text == "burst" else {
            reporter.error(
                words[1].span, "unexpected \(quoted(words[1].text))", expected: "`burst` or the end of the line",
                help: suggestion(for: words[1].text, among: ["burst"]))
            return nil
        }
        guard words.count > 2 else {
            reporter.error(words[1].span.behind, "`burst` is not complete", expected: "how much may come at once")
            return nil
        }
        guard words.count == 3 else {
            reporter.error(words[3].span, "unexpected \(quoted(words[3].text))", expected: "the end of the line")
            return nil
        }
        return (value, words[2])
    }

    private func connectionRate(_ words: [WordSyntax], _ keyword: WordSyntax) -> ConnectionRate? {
        guard let (word, burstWord) = valueAndBurst(words, keyword, expected: "a rate like `200/s`"),
            let rate = parsed(
                word,
                { text throws(ValueProblem) in
                    let (count, period) = try Value.connectionRate(text)
                    return ConnectionRate(count: count, period: period)
                })
        else { return nil }
        guard let burstWord else { return rate.value }
        let burst = parsed(burstWord) { text throws(ValueProblem) in try Value.count(text, 1...1_000_000) }
        guard let burst else { return nil }
        let result = ConnectionRate(count: rate.value.count, period: rate.value.period, burst: burst.value)
        guard result.refill < ConnectionRate.longestRefill else {
            reporter.error(
                burstWord.span, "a burst of \(burstWord.text) takes more than 30 days to come back at \(word.text)",
                help: "write a smaller burst, or a higher rate")
            return nil
        }
        return result
    }

    private func byteRate(_ words: [WordSyntax], _ keyword: WordSyntax) -> ByteRate? {
        guard let (word, burstWord) = valueAndBurst(words, keyword, expected: "a byte rate like `10Mbit/s`"),
            let rate = parsed(word, { text throws(ValueProblem) in try Value.byteRate(text) })
        else { return nil }
        guard let burstWord else { return ByteRate(bytesPerSecond: rate.value) }
        let burst = parsed(burstWord) { text throws(ValueProblem) in try Value.size(text, 4096...(64 << 30)) }
        return burst.map { ByteRate(bytesPerSecond: rate.value, burst: $0.value) }
    }

    private func checkWhenFull(_ words: [WordSyntax], _ keyword: WordSyntax) {
        guard let word = onlyWord(words, of: keyword, expected: "`refuse`"), word.text != "refuse" else { return }
        reporter.error(
            word.span, "a full table can't \(quoted(word.text))", expected: "`refuse`",
            help: word.text.hasPrefix("evict")
                ? "entries that limit nobody any more are reused anyway; to evict others would give their keys a fresh "
                    + "burst" : nil)
    }
}
