import Pipeline

extension Value {
    /// `400d`, or hours and less as durations are written: an hour to ten years.
    static func retention(_ text: String) throws(ValueProblem) -> TimeSpan {
        let expected = "a time from `1h` to `3650d`"
        if text.last == "d", let days = UInt64(text.dropLast()), "\(days)d" == text {
            guard (1...3650).contains(days) else {
                throw ValueProblem(message: "\(quoted(text)) is out of range", expected: expected)
            }
            return TimeSpan(nanoseconds: days * 86_400_000_000_000)
        }
        guard text.last == "h" else {
            throw ValueProblem(message: "\(quoted(text)) is no time to keep something", expected: expected)
        }
        return try duration(text, .seconds(3600)...(.seconds(3650 * 86400)))
    }
}

extension Checker {
    /// `ledger PATH minutes 2d hours 30d days 400d`; each level may be left out.
    func checkLedger(_ words: [WordSyntax], _ keyword: WordSyntax) {
        guard let path = words.first else {
            reporter.error(
                keyword.span.behind, "`ledger` is not complete",
                expected: "the path of a file, like `/var/lib/pipelined/ledger.db`")
            return
        }
        guard path.text.hasPrefix("/"), !path.text.hasSuffix("/"), path.text.utf8.count <= 4000 else {
            reporter.error(
                path.span, "`ledger` takes an absolute path", expected: "a file like `/var/lib/pipelined/ledger.db`")
            return
        }
        var settings = LedgerSettings(path: path.text)
        var seen: [String: SourceSpan] = [:]
        var rest = words.dropFirst()
        let levels = ["minutes", "hours", "days"]
        while let level = rest.popFirst() {
            guard levels.contains(level.text) else {
                reporter.error(
                    level.span, "a ledger has no \(quoted(level.text))", expected: orList(levels.map { "`\($0)`" }),
                    help: suggestion(for: level.text, among: levels))
                return
            }
            if isDuplicate(quoted(level.text), level.span, firstAt: seen[level.text]) { return }
            seen[level.text] = level.span
            guard let word = rest.popFirst() else {
                reporter.error(
                    level.span.behind, "`\(level.text)` is not complete", expected: "how long to keep them, like `30d`")
                return
            }
            guard let kept = parsed(word, { text throws(ValueProblem) in try Value.retention(text) })?.value else {
                return
            }
            switch level.text {
            case "minutes": settings.minutes = kept
            case "hours": settings.hours = kept
            default: settings.days = kept
            }
        }
        if settings.minutes > settings.hours || settings.hours > settings.days {
            reporter.error(
                path.span, "a coarser level of the ledger is kept for less time than a finer one",
                help: "minutes, hours and days are each a summary of the one before: keep them longer")
        }
        node.ledger = settings
    }

    /// What `account every` records has to go somewhere.
    func remarkOnLedger() {
        guard node.ledger == nil else { return }
        for pipeline in pipelines {
            guard let stage = pipeline.stages.first(where: { $0.stage?.progressInterval != nil }) else { continue }
            reporter.note(
                stage.keyword.span, "flows are recorded, and no `ledger` keeps them",
                help: "write `ledger /var/lib/pipelined/ledger.db` in the `node` block")
            return
        }
    }
}
