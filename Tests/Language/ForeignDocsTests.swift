import FilterCatalog
import Foundation
import Pipeline
import Testing

@testable import PipelineLanguage
@testable import PipelinedCommand

/// docs/FROM-HAPROXY.md and docs/FROM-NGINX.md: tables of theirs, what it is here, and a note. They name words of ours
/// alone, and forget none of theirs.
@Suite("Coming from other proxies") struct ForeignDocsTests {
    private static let pages = ["FROM-HAPROXY.md", "FROM-NGINX.md"]
    private static let verdicts = ["the same", "differently", "not here"]

    private struct Row {
        /// Page and line.
        let place: String
        /// `FROM-NGINX.md/listen`.
        let section: String
        let theirs: [String]
        /// Those that are not beside others as their context: `server` of `` `server` in `upstream` ``.
        let typed: [String]
        let here: String
        let note: String

        var isAbsent: Bool { here == "not here" }
    }

    private static func text(_ path: String) throws -> String {
        try String(contentsOf: ConfigFileTests.root.appendingPathComponent(path), encoding: .utf8)
    }

    /// What stands between backquotes.
    private static func spans(_ text: some StringProtocol) -> [String] {
        text.split(separator: "`", omittingEmptySubsequences: false).enumerated()
            .filter { !$0.offset.isMultiple(of: 2) }.map { String($0.element) }
    }

    private static func rows(_ page: String) throws -> [Row] {
        var rows: [Row] = []
        var section = page
        for (index, line) in try text("docs/\(page)").components(separatedBy: "\n").enumerated() {
            if line.hasPrefix("## ") { section = "\(page)/\(line.dropFirst(3))" }
            guard line.hasPrefix("| "), !line.hasPrefix("| ---") else { continue }
            let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            let place = "\(page):\(index + 1)"
            guard cells.count >= 2 else {
                Issue.record("\(place): a row has three cells")
                continue
            }
            if cells[1] == "here" { continue }
            rows.append(
                Row(
                    place: place, section: section, theirs: spans(cells[0]),
                    typed: cells[0].components(separatedBy: ", ").compactMap { spans($0).first }, here: cells[1],
                    note: cells.count > 2 ? cells[2] : ""))
        }
        return rows
    }

    @Test("each row says one of three things, and what to do where it says no", arguments: pages)
    func verdict(page: String) throws {
        let rows = try Self.rows(page)
        #expect(rows.count > 100)
        for row in rows {
            let verdict = row.here.split(separator: ":", maxSplits: 1).first.map(String.init) ?? ""
            #expect(Self.verdicts.contains(verdict), "\(row.place): \(row.here)")
            #expect(row.isAbsent ? !row.note.isEmpty : row.here.contains("`"), "\(row.place)")
        }
    }

    // MARK: Words of ours

    /// Keywords, words of clauses and settings, built-in sets, reasons, commands; and from the pages that have them,
    /// fields of the log and of desired state, and events.
    private static func ours() throws -> Set<String> {
        var words = Set(try LanguageSeeds.words())
        var forms = languageSettings(catalog).flatMap { $0.setting.forms }
        // A key path through the type of a filter crashes the compiler (6.3.1).
        forms += catalog.map { $0.descriptor }.flatMap(\.clauses)
        for element in forms.flatMap(\.elements) { words.formUnion(Self.words(element)) }
        let reasons = ReasonTable(catalog: catalog).names.compactMap { $0 }
        words.formUnion(reasons.map(\.name) + reasons.map(\.side.rawValue))
        for page in ["OPERATING.md", "STATE.md"] { words.formUnion(spans(try text("docs/\(page)"))) }
        return words
    }

    private static func words(_ element: ClauseSpec.Element) -> [String] {
        switch element {
        case .word(let word): [word]
        case .choice(_, let words), .optional(_, let words): words
        case .options(let options): options.map(\.name) + options.flatMap(\.elements).flatMap { self.words($0) }
        case .several(let elements, _): elements.flatMap { self.words($0) }
        case .duration, .size, .count, .optionalByte, .set, .block, .text, .value, .list: []
        }
    }

    /// Words of a span that mean something as they stand: no placeholders, numbers or names.
    private static func plain(_ span: String) -> [String] {
        span.split { " ,|".contains($0) }.map(String.init).filter { word in
            word.first?.isLowercase == true && word.allSatisfy { $0.isLowercase || $0.isNumber || "_.".contains($0) }
        }
    }

    @Test("what a row calls ours is ours", arguments: pages)
    func known(page: String) throws {
        let ours = try Self.ours()
        for row in try Self.rows(page) {
            for span in Self.spans(row.here) {
                if span.hasPrefix("pipelined ") {
                    expectCommand(span, row.place)
                } else {
                    for word in Self.plain(span) { #expect(ours.contains(word), "\(row.place): \(word)") }
                }
            }
        }
    }

    /// `pipelined routes --json`: help has the command and its options.
    private func expectCommand(_ span: String, _ place: String) {
        var help = Pipelined.helpMessage(for: Pipelined.self)
        var commands = Pipelined.configuration.subcommands
        for word in span.split(separator: " ").dropFirst() {
            #expect(help.contains(word.hasPrefix("-") ? "\(word) " : "\n  \(word) "), "\(place): \(span)")
            guard let command = commands.first(where: { $0._commandName == word }) else { continue }
            help = Pipelined.helpMessage(for: command)
            commands = command.configuration.subcommands
        }
    }

    // MARK: Words of theirs

    /// The spans of the first column, and how each begins: `acl … -f FILE` is about `acl`.
    private static func theirs(_ pages: [String]) throws -> (words: Set<String>, starts: [String]) {
        var words: Set<String> = []
        var starts: [String] = []
        for span in try pages.flatMap({ try rows($0) }).flatMap(\.theirs) {
            let parts = span.split(separator: " ")
            for count in 1...max(1, parts.count) { words.insert(parts.prefix(count).joined(separator: " ")) }
            if span.hasSuffix("*") { starts.append(String(span.dropLast())) }
        }
        return (words, starts)
    }

    @Test(
        "every keyword of their docs has a row",
        arguments: [("FROM-HAPROXY.md", "haproxy.txt", 1000), ("FROM-NGINX.md", "nginx.txt", 300)])
    func complete(page: String, list: String, least: Int) throws {
        let (words, starts) = try Self.theirs([page])
        let keywords = try Self.text("Tests/Language/Foreign/\(list)").split(separator: "\n")
            .filter { !$0.hasPrefix("#") }
        #expect(keywords.count > least)
        for keyword in keywords {
            let isThere = words.contains(String(keyword)) || starts.contains(where: keyword.hasPrefix)
            #expect(isThere, "\(page) has no row for \(keyword)")
        }
    }

    @Test("every word that the compiler knows of another proxy's has a row")
    func advised() throws {
        let words = try Self.theirs(Self.pages).words
        for word in ForeignWords(catalog).meanings.keys.sorted() { #expect(words.contains(word), "\(word)") }
    }

    // MARK: Typed

    /// As far as one would write it: `use_backend` of `use_backend %[…]`.
    private static func typedWords(_ span: String) -> String {
        var words: [Substring] = []
        for word in span.split(separator: " ") {
            guard word != "if", word.allSatisfy({ $0.isASCII && !"{}%$~\"".contains($0) }) else { break }
            words.append(word)
        }
        return words.joined(separator: " ")
    }

    /// Words as messages have them.
    private static func words(of text: String) -> Set<String> {
        Set(text.split { !$0.isLetter && !$0.isNumber && !"_.".contains($0) }.map { String($0) })
    }

    private static func isComplaint(_ diagnostic: Diagnostic) -> Bool {
        ["unknown keyword", "no stage is named", "unexpected", "` has no setting", "` has no clause", "` has no field"]
            .contains(where: diagnostic.message.contains)
    }

    @Test("a word with an equivalent gets it named, wherever its user would type it", arguments: pages)
    func typed(page: String) throws {
        // A word may have several rows: of a server, of a frontend.
        var meant: [String: Set<String>] = [:]
        var rows: [(words: String, row: Row)] = []
        for row in try Self.rows(page) where !row.isAbsent && ForeignPlace.ofSections[row.section] != nil {
            let ours = Self.spans(row.here).compactMap { Self.plain($0).first }
            for words in row.typed.map(Self.typedWords) where ForeignPlace.isTyped(words) {
                meant[words, default: []].formUnion(ours)
                rows.append((words, row))
            }
        }
        #expect(rows.count > 80)
        for (words, row) in rows {
            for place in ForeignPlace.ofWords[words] ?? ForeignPlace.ofSections[row.section] ?? [] {
                let text = place.config("\(words) x")
                let errors = compile(Array(text.utf8), file: "x", catalog: catalog).diagnostics
                    .filter { $0.severity == .error }
                // It is a word of ours there.
                let complaint = errors.first { Self.isComplaint($0) && !$0.message.hasSuffix(" `x`") }
                guard let error = complaint else { continue }
                let said = Self.words(of: error.help.joined(separator: " "))
                #expect(
                    !said.isDisjoint(with: meant[words] ?? []),
                    "\(row.place): `\(words)` at \(place): \(error.message): \(error.help), not \(meant[words] ?? [])")
            }
        }
    }

    // MARK: Not here

    /// Words of ours that mean something else: a row that says "not here" is about theirs.
    private static let homonyms: Set<String> = [
        "alpn", "env", "group", "id", "interface", "name", "peer", "queue", "set", "sni", "source", "user",
    ]

    @Test("what a row says is not here is no word of ours", arguments: pages)
    func absent(page: String) throws {
        let words = Set(try LanguageSeeds.words()).subtracting(Self.homonyms)
        for row in try Self.rows(page) where row.isAbsent {
            for word in row.theirs { #expect(!words.contains(word), "\(row.place): \(word) is a word of ours") }
        }
    }
}
