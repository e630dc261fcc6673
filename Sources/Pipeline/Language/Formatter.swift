import Pipeline

/// Formats a tree in the canonical style.
struct Formatter {
    /// Keywords longer than this don't widen their block's column.
    static let widestKeyword = 20
    /// A set on one line is at most this wide.
    static let widestSet = 100

    private struct Line {
        var text: String
        var comment: String?
        /// An empty line stands above it.
        var blank = false
    }

    private let grammar: Grammar
    private var lines: [Line] = []
    /// The next line has an empty one above it.
    private var pendingBlank = false

    private init(_ grammar: Grammar) { self.grammar = grammar }

    static func format(_ file: FileSyntax, _ grammar: Grammar) -> String {
        var formatter = Formatter(grammar)
        formatter.addFile(file.body)
        return formatter.output()
    }

    /// One entry without indentation, columns and body: `sni timeout 3s, max 16KiB`.
    static func line(_ entry: EntrySyntax) -> String {
        let arguments = Formatter.arguments(entry)
        return word(entry.keyword) + (arguments.isEmpty ? "" : " " + arguments)
    }

    // MARK: Words

    private static func word(_ word: WordSyntax) -> String { writtenWord(word.text) }

    private static func arguments(_ entry: EntrySyntax) -> String {
        entry.clauses.map { $0.words.map(word).joined(separator: " ") }.joined(separator: ", ")
    }

    private static func width(_ text: String) -> Int { text.unicodeScalars.count }

    private static func pad(_ text: String, to width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - Formatter.width(text)))
    }

    // MARK: The file

    private mutating func addFile(_ body: BodySyntax) {
        var previousIsBlock = false
        var index = 0
        while index < body.entries.count {
            let run = Formatter.runLength(body.entries, from: index)
            let texts = Formatter.columns(body.entries[index..<index + run])
            for (offset, text) in texts.enumerated() {
                let entry = body.entries[index + offset]
                let first = lines.count
                addLeading(entry.leading, blankBefore: entry.blankBefore, indent: "")
                let head = lines.count
                addEntry(entry, text: text, indent: "")
                let isBlock = lines.count - head > 1
                if previousIsBlock || isBlock { lines[first].blank = true }
                previousIsBlock = isBlock
            }
            index += run
        }
        addComments(body.dangling, indent: "")
    }

    /// How many lines from `start` on share columns: same keyword, no body, no empty line between.
    private static func runLength(_ entries: [EntrySyntax], from start: Int) -> Int {
        guard entries[start].body == nil else { return 1 }
        var count = 1
        while start + count < entries.count {
            let next = entries[start + count]
            let blank = next.blankBefore || next.leading.contains(where: \.blankBefore)
            guard next.body == nil, next.keyword.text == entries[start].keyword.text, !blank else { break }
            count += 1
        }
        return count
    }

    /// The lines of a run in columns: `listen ADDRESS  HINT  via NAME [OPTION ...]`,
    /// `expose ADDRESS  ports A-B [HINT]  via NAME [OPTION ...]`.
    private static func columns(_ entries: ArraySlice<EntrySyntax>) -> [String] {
        let rows = entries.map { entry -> [String] in
            let words = entry.words.map(word)
            guard entry.body == nil, entry.clauses.count == 1 else { return [line(entry)] }
            let row = { (middle: Range<Int>) in
                [
                    "\(words[0]) \(words[1])", words[middle].joined(separator: " "),
                    words[middle.upperBound...].joined(separator: " "),
                ]
            }
            let isVia = { (index: Int) in words[index] == "via" }
            switch (entry.keyword.text, words.count) {
            case ("listen", 5): return row(2..<3)
            case ("listen", 6...) where isVia(3): return row(2..<3)
            case ("expose", 6): return row(2..<4)
            case ("expose", 7...) where isVia(4): return row(2..<4)
            // With a hint.
            case ("expose", 7): return row(2..<5)
            case ("expose", 8...) where isVia(5): return row(2..<5)
            default: return [line(entry)]
            }
        }
        let shaped = rows.filter { $0.count == 3 }
        let widths = (0..<2).map { column in shaped.map { width($0[column]) }.max() ?? 0 }
        return rows.map { row in
            row.count == 3 ? pad(row[0], to: widths[0] + 2) + pad(row[1], to: widths[1] + 2) + row[2] : row[0]
        }
    }

    // MARK: Entries

    private mutating func addEntry(_ entry: EntrySyntax, text: String, indent: String) {
        guard let body = entry.body else {
            return emit(indent + text, comment: entry.trailing)
        }
        if isList(entry), let short = Formatter.shortSet(entry, body, indent: indent) {
            return emit(short, comment: entry.trailing)
        }
        guard body.openComment != nil || !body.entries.isEmpty || !body.dangling.isEmpty else {
            return emit(indent + text + " {}", comment: entry.trailing)
        }
        emit(indent + text + " {", comment: body.openComment)
        let first = lines.count
        if isList(entry) {
            addPrefixes(body, indent: indent + "    ")
        } else {
            addBody(body, indent: indent + "    ")
        }
        if first < lines.count { lines[first].blank = false }
        emit(indent + "}", comment: entry.trailing)
    }

    private mutating func addBody(_ body: BodySyntax, indent: String) {
        let keywords = body.entries.filter { $0.body == nil && !Formatter.arguments($0).isEmpty }
            .map { Formatter.width(Formatter.word($0.keyword)) }
        let column = (keywords.filter { $0 <= Formatter.widestKeyword }.max() ?? 0) + 2
        for entry in body.entries {
            addLeading(entry.leading, blankBefore: entry.blankBefore, indent: indent)
            let arguments = Formatter.arguments(entry)
            let text =
                entry.body != nil || arguments.isEmpty
                ? Formatter.line(entry) : Formatter.pad(Formatter.word(entry.keyword), to: column) + arguments
            addEntry(entry, text: text, indent: indent)
        }
        addComments(body.dangling, indent: indent)
    }

    // MARK: Sets and names

    /// A block of words instead of directives.
    private func isList(_ entry: EntrySyntax) -> Bool { grammar.lists[entry.keyword.text] != nil }

    /// A set without comments on one line, if it is short enough.
    private static func shortSet(_ entry: EntrySyntax, _ body: BodySyntax, indent: String) -> String? {
        let isPlain = body.entries.allSatisfy { $0.body == nil && $0.clauses.count == 1 }
        guard !body.hasComments, isPlain, !body.entries.isEmpty else { return nil }
        let members = body.entries.flatMap(\.words).map(word).joined(separator: "  ")
        let text = "\(indent)\(line(entry)) { \(members) }"
        return width(text) <= widestSet ? text : nil
    }

    /// One prefix a line. A comment behind several prefixes goes above the first of them.
    private mutating func addPrefixes(_ body: BodySyntax, indent: String) {
        for entry in body.entries {
            guard entry.body == nil, entry.clauses.count == 1 else {
                addLeading(entry.leading, blankBefore: entry.blankBefore, indent: indent)
                addEntry(entry, text: Formatter.line(entry), indent: indent)
                continue
            }
            let words = entry.words.map(Formatter.word)
            if words.count > 1, let comment = entry.trailing {
                let above = CommentSyntax(text: comment.text, blankBefore: entry.blankBefore)
                addLeading(entry.leading + [above], blankBefore: false, indent: indent)
                for word in words { emit(indent + word) }
                continue
            }
            addLeading(entry.leading, blankBefore: entry.blankBefore, indent: indent)
            for word in words { emit(indent + word) }
            lines[lines.count - 1].comment = entry.trailing?.text
        }
        addComments(body.dangling, indent: indent)
    }

    // MARK: Comments and blank lines

    private mutating func addLeading(_ comments: [CommentSyntax], blankBefore: Bool, indent: String) {
        addComments(comments, indent: indent)
        pendingBlank = blankBefore
    }

    private mutating func addComments(_ comments: [CommentSyntax], indent: String) {
        for comment in comments {
            pendingBlank = comment.blankBefore
            emit(indent + comment.text)
        }
    }

    private mutating func emit(_ text: String, comment: CommentSyntax? = nil) {
        lines.append(Line(text: text, comment: comment?.text, blank: pendingBlank))
        pendingBlank = false
    }

    /// All lines; comments behind lines that stand together share a column.
    private func output() -> String {
        var result = ""
        var index = 0
        while index < lines.count {
            var end = index + 1
            while end < lines.count, !lines[end].blank { end += 1 }
            let run = lines[index..<end]
            let column = run.filter { $0.comment != nil }.map { Formatter.width($0.text) }.max() ?? 0
            if index > 0 { result += "\n" }
            for line in run {
                result += line.comment.map { Formatter.pad(line.text, to: column + 2) + $0 } ?? line.text
                result += "\n"
            }
            index = end
        }
        return result
    }
}
