import Pipeline

extension Checker {
    private static let logForm = ClauseSpec("log", [.choice(name: "what", ["connections", "off"])], summary: "")

    /// `log connections`, `log connections refusals 100/s`, `log off`.
    func checkLog(_ words: [WordSyntax], _ keyword: WordSyntax) {
        let hasMore = words.first?.text == "connections"
        do throws(ClauseFailure) {
            let first = hasMore ? Array(words.prefix(1)) : words
            let (_, clause) = try ClauseMatcher(sets: [:]).match(first, oneOf: [Checker.logForm])
            if case .word(let word)? = clause.values.first { node.logConnections = word == "connections" }
        } catch {
            report(error, words, of: keyword)
            return
        }
        guard hasMore, words.count > 1 else { return }
        guard words[1].text == "refusals" else {
            reporter.error(
                words[1].span, "unexpected \(quoted(words[1].text))", expected: "`refusals` or the end of the line",
                help: suggestion(for: words[1].text, among: ["refusals"]))
            return
        }
        let expected = "lines a second for each reason, like `100/s`"
        guard let word = onlyWord(Array(words.dropFirst(2)), of: words[1], expected: expected),
            let rate = parsed(word, { text throws(ValueProblem) in try Value.perSecond(text, 0...1_000_000) })
        else { return }
        node.loggedRefusals = Int(clamping: rate.value)
    }
}
