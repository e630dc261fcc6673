import Pipeline

/// Renamed words of the language. The old one is accepted for one minor version, with a note that names the new one.
extension Checker {
    /// The entry with the current keyword, which is all that later steps know.
    func underTodaysName(_ entry: EntrySyntax) -> EntrySyntax {
        guard let known = grammar.topLevel.first(where: { $0.formerly == entry.keyword.text }) else { return entry }
        return renamed(entry, known.keyword)
    }

    func underTodaysName(_ entry: EntrySyntax, among lines: [SettingLine]) -> EntrySyntax {
        guard !lines.contains(where: { $0.keyword == entry.keyword.text }),
            let known = lines.first(where: { $0.formerly == entry.keyword.text })
        else { return entry }
        return renamed(entry, known.keyword)
    }

    private func renamed(_ entry: EntrySyntax, _ today: String) -> EntrySyntax {
        let old = entry.keyword
        reporter.note(
            old.span, "`\(old.text)` is called `\(today)` now",
            help: "write `\(today)`: the old word works until the next minor version")
        var renamed = entry
        renamed.keyword = WordSyntax(text: today, span: old.span)
        return renamed
    }
}
