import Pipeline

extension Checker {
    static let exportForm = "export ipfix udp|tcp ADDRESS:PORT"
    /// What may follow the address, each with its value, in any order.
    static let exportOptions = ["domain", "enterprise", "templates", "queue"]

    /// `export ipfix udp|tcp ADDRESS:PORT [domain N] [enterprise N] [templates DURATION] [queue N]`
    func checkExports(_ entries: [EntrySyntax]) {
        var first: [String: SourceSpan] = [:]
        for entry in entries where !reporter.isFull {
            guard let words = arguments(of: entry), let export = exportSettings(words, entry.keyword) else { continue }
            let what = "\(export.transport.rawValue) \(export.collector)"
            if isDuplicate("the export to `\(what)`", entry.headSpan, firstAt: first[what]) { continue }
            first[what] = entry.headSpan
            guard node.exports.count < ExportSettings.limit else {
                reporter.error(
                    entry.keyword.span, "more than \(ExportSettings.limit) `export` lines",
                    help: "let one collector send the records on")
                return
            }
            node.exports.append(export)
        }
    }

    /// Nil, reported, if what it can't do without is wrong.
    private func exportSettings(_ words: [WordSyntax], _ keyword: WordSyntax) -> ExportSettings? {
        guard fixed(words, 0, keyword, ["ipfix"]) != nil,
            let transport = fixed(words, 1, keyword, ExportSettings.Transport.allCases.map(\.rawValue)),
            let kind = ExportSettings.Transport(rawValue: transport)
        else { return nil }
        guard words.count > 2 else {
            reporter.error(
                words[1].span.behind, "`export` names no collector",
                expected: "an address and a port like `[::1]:4739`",
                help: "4739 is IPFIX's own port")
            return nil
        }
        guard let collector = parsed(words[2], { text throws(ValueProblem) in try Value.endpoint(text) }) else {
            return nil
        }
        if collector.value.address.isUnspecified {
            reporter.error(
                words[2].span, "\(quoted(words[2].text)) is no host's address", expected: "the collector's address")
            return nil
        }
        var settings = ExportSettings(transport: kind, collector: collector.value)
        checkExportOptions(Array(words.dropFirst(3)), &settings)
        return settings
    }

    private func fixed(_ words: [WordSyntax], _ index: Int, _ keyword: WordSyntax, _ options: [String]) -> String? {
        guard index < words.count else {
            reporter.error(
                (words.last ?? keyword).span.behind, "`export` is not complete",
                expected: orList(options.map { "`\($0)`" }),
                help: "write `\(Checker.exportForm)`")
            return nil
        }
        guard options.contains(words[index].text) else {
            reporter.error(
                words[index].span, "unexpected \(quoted(words[index].text))",
                expected: orList(options.map { "`\($0)`" }),
                help: suggestion(for: words[index].text, among: options) ?? "write `\(Checker.exportForm)`")
            return nil
        }
        return words[index].text
    }

    private func checkExportOptions(_ words: [WordSyntax], _ settings: inout ExportSettings) {
        var seen: [String: SourceSpan] = [:]
        for index in stride(from: 0, to: words.count, by: 2) where !reporter.isFull {
            let option = words[index]
            guard Checker.exportOptions.contains(option.text) else {
                return reporter.error(
                    option.span, "`export` has no option \(quoted(option.text))",
                    expected: orList(Checker.exportOptions.map { "`\($0)`" }),
                    help: suggestion(for: option.text, among: Checker.exportOptions))
            }
            if isDuplicate(quoted(option.text), option.span, firstAt: seen[option.text]) { continue }
            seen[option.text] = option.span
            guard index + 1 < words.count else {
                return reporter.error(
                    option.span.behind, "`\(option.text)` has no value", expected: Checker.exportValue(option.text))
            }
            setExportOption(option, words[index + 1], &settings)
        }
    }

    private static func exportValue(_ option: String) -> String {
        option == "templates" ? "a duration like `60s`" : "a number like `1`"
    }

    private func setExportOption(_ option: WordSyntax, _ word: WordSyntax, _ settings: inout ExportSettings) {
        let number = { (range: ClosedRange<UInt64>) in
            self.parsed(word) { text throws(ValueProblem) in try Value.count(text, range) }?.value
        }
        switch option.text {
        // Domain 0 means that no single domain fits (RFC 7011 §3.1), which is never so here.
        case "domain": settings.domain = UInt32(clamping: number(1...UInt64(UInt32.max)) ?? 1)
        case "enterprise":
            guard let value = number(1...UInt64(UInt32.max)) else { return }
            if value == 29305 {
                return reporter.error(
                    word.span, "29305 stands for the reverse direction (RFC 5103)",
                    expected: "your own enterprise number")
            }
            settings.enterprise = UInt32(clamping: value)
        case "queue": settings.queue = Int(clamping: number(1000...4_000_000) ?? 65536)
        default:
            if settings.transport == .tcp {
                return reporter.error(
                    option.span, "over TCP, templates are sent once a connection", help: "remove `templates`")
            }
            let range = TimeSpan.seconds(1)...TimeSpan.seconds(3600)
            let value = parsed(word) { text throws(ValueProblem) in try Value.duration(text, range) }
            settings.templates = value?.value ?? settings.templates
        }
    }
}
