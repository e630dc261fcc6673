import Pipeline

/// One line of the `hints` block: how it is written, and what it sets.
private struct HintSetting: Sendable {
    let keyword: String
    let forms: [ClauseSpec]
    let apply: @Sendable (inout HintSettings, Clause) throws(ValueProblem) -> Void

    private static let windows = TimeSpan.seconds(1)...(.seconds(3600))

    private static func threshold(
        _ keyword: String, _ set: @escaping @Sendable (inout HintSettings, HintSettings.Threshold?) -> Void
    ) -> HintSetting {
        let more: [ClauseSpec.Element] = [
            .count(name: "number", 0...UInt64(HintSettings.countLimit)), .word("in"),
            .duration(name: "window", windows),
        ]
        let forms = [[.word("off")], more].map { ClauseSpec(keyword, $0, summary: "") }
        return HintSetting(keyword: keyword, forms: forms) { settings, clause throws(ValueProblem) in
            guard case .count(let count)? = clause.values.first, case .duration(let window)? = clause.values.last
            else { return set(&settings, nil) }
            set(&settings, HintSettings.Threshold(UInt32(clamping: count), in: window))
        }
    }

    private static let volumeForms: [ClauseSpec] = {
        let more: [ClauseSpec.Element] = [
            .text(name: "factor like `10x`"), .word("over"), .size(name: "size", (64 << 10)...(1 << 40)), .word("in"),
            .duration(name: "window", windows),
        ]
        return [[.word("off")], more].map { ClauseSpec("volume", $0, summary: "") }
    }()

    private static func volume(_ clause: Clause) throws(ValueProblem) -> HintSettings.Volume? {
        guard case .text(let factor)? = clause.values.first, case .duration(let window)? = clause.values.last
        else { return nil }
        var floor: UInt64 = 0
        for value in clause.values { if case .size(let size) = value { floor = size } }
        return HintSettings.Volume(factor: try Value.factor(factor, 2...1000), floor: floor, in: window)
    }

    static let all: [HintSetting] = [
        threshold("fan_out") { $0.fanOut = $1 },
        threshold("smtp") { $0.smtp = $1 },
        threshold("port_scan") { $0.portScan = $1 },
        HintSetting(keyword: "volume", forms: volumeForms) { settings, clause throws(ValueProblem) in
            settings.volume = try volume(clause)
        },
        HintSetting(
            keyword: "repeat",
            forms: [
                ClauseSpec("repeat", [.duration(name: "duration", .seconds(10)...(.seconds(86400)))], summary: "")
            ]
        ) { settings, clause throws(ValueProblem) in
            if case .duration(let value)? = clause.values.first { settings.repeatEvery = value }
        },
    ]
}

extension Checker {
    static var hintSettings: [String] { HintSetting.all.map(\.keyword) }

    /// `hints { ... }`, at most one. After the pipelines: without a block, the defaults hold where flows are recorded.
    func checkHints(_ entries: [EntrySyntax]) {
        var first: SourceSpan?
        for entry in entries where !reporter.isFull {
            if !isDuplicate("`hints`", entry.keyword.span, firstAt: first) { first = entry.keyword.span }
            if let word = arguments(of: entry)?.first {
                reporter.error(
                    word.span, "unexpected \(quoted(word.text))", expected: "`{`", help: "`hints` has no name")
            }
            var settings = HintSettings()
            var seen: [String: SourceSpan] = [:]
            for line in entry.body?.entries ?? [] where !reporter.isFull { checkHint(line, &settings, &seen) }
            node.hints = settings.isOff ? nil : settings
        }
        if first == nil, recordsFlows { node.hints = HintSettings() }
    }

    private var recordsFlows: Bool {
        pipelines.contains { pipeline in pipeline.stages.contains { $0.stage?.progressInterval != nil } }
    }

    func remarkOnBlindHints(_ entries: [EntrySyntax]) {
        guard let entry = entries.first, let hints = node.hints, hints.fanOut != nil || hints.volume != nil,
            !recordsFlows
        else { return }
        reporter.note(
            entry.keyword.span, "no pipeline records flows: `fan_out` and `volume` see nothing",
            help: "write `account every 5s` in a pipeline")
    }

    private func checkHint(_ entry: EntrySyntax, _ settings: inout HintSettings, _ seen: inout [String: SourceSpan]) {
        let keyword = entry.keyword
        guard let setting = HintSetting.all.first(where: { $0.keyword == keyword.text }) else {
            return reporter.error(
                keyword.span, "`hints` has no setting \(quoted(keyword.text))",
                expected: orList(Checker.hintSettings.map { "`\($0)`" }),
                help: suggestion(for: keyword.text, among: Checker.hintSettings))
        }
        if let body = entry.body {
            return reporter.error(
                body.opening, "`\(keyword.text)` takes no block", help: "write its value on the same line")
        }
        guard let words = arguments(of: entry) else { return }
        if isDuplicate(quoted(keyword.text), entry.headSpan, firstAt: seen[keyword.text]) { return }
        seen[keyword.text] = entry.headSpan
        do throws(ClauseFailure) {
            let (_, clause) = try ClauseMatcher(sets: [:]).match(words, oneOf: setting.forms)
            do throws(ValueProblem) {
                try setting.apply(&settings, clause)
            } catch {
                reporter.error(
                    words.first?.span ?? entry.headSpan, error.message, expected: error.expected, help: error.help)
            }
        } catch {
            report(error, words, of: keyword)
        }
    }
}

extension Value {
    /// `10x`, a whole number of times.
    static func factor(_ text: String, _ range: ClosedRange<UInt32>) throws(ValueProblem) -> UInt32 {
        let digits = text.dropLast()
        guard text.hasSuffix("x"), let value = UInt32(digits), String(value) == digits, range.contains(value) else {
            throw ValueProblem(
                message: "\(quoted(text)) is no factor from \(range.lowerBound)x to \(range.upperBound)x",
                expected: "a whole number and `x`, like `10x`")
        }
        return value
    }
}
