import Pipeline

extension Checker {
    /// The words of `log only` and `log except`, against the reasons of this build.
    func checkLoggedReasons(_ entries: [EntrySyntax]) {
        let known = reasons.patterns
        for entry in entries where entry.keyword.text == "log" && entry.clauses.count == 1 {
            let words = entry.clauses[0].words
            guard let first = words.first, ["only", "except"].contains(first.text) else { continue }
            for word in words.dropFirst() where !known.contains(word.text) && !reporter.isFull {
                reporter.error(
                    word.span, "no connection ends as \(quoted(word.text))",
                    expected: "reasons like `relay.idle_timeout`, or `limits.*` for all of a stage",
                    help: suggestion(for: word.text, among: known) ?? "docs/OPERATING.md has them all")
            }
        }
    }
}
