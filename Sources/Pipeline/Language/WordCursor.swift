import Pipeline

/// Takes the words of a line one by one, and reports what was expected where one is missing.
struct WordCursor {
    private let checker: Checker
    private let keyword: WordSyntax
    private var words: ArraySlice<WordSyntax>
    private var last: SourceSpan

    init(_ checker: Checker, _ entry: EntrySyntax) {
        self.checker = checker
        self.keyword = entry.keyword
        // Commas are reported there; no words: the line is given up.
        self.words = (checker.arguments(of: entry) ?? [])[...]
        self.last = entry.keyword.span
        self.isGivenUp = entry.clauses.count > 1
    }
    private let isGivenUp: Bool

    mutating func next(_ expected: String, candidates: [String] = []) -> WordSyntax? {
        guard let word = words.popFirst() else {
            if !isGivenUp {
                checker.reporter.error(last.behind, "`\(keyword.text)` is not complete", expected: expected)
            }
            return nil
        }
        last = word.span
        return word
    }

    /// Those that were not taken.
    var rest: [WordSyntax] { Array(words) }

    func isNext(_ word: String) -> Bool { words.first?.text == word }

    mutating func expect(_ wanted: String) -> Bool {
        guard let word = next("`\(wanted)`") else { return false }
        guard word.text != wanted else { return true }
        checker.reporter.error(
            word.span, "unexpected \(quoted(word.text))", expected: "`\(wanted)`",
            help: checker.suggestion(for: word.text, among: [wanted]))
        return false
    }
}
