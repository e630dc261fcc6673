/// Builds the tree. It always returns one: unexpected tokens are reported, and parsing continues with the next line.
struct Parser {
    /// How deep blocks may nest before the rest is skipped (R27). The language itself nests them once.
    static let nestingLimit = 8
    private let source: SourceText
    /// Where the file begins.
    private let start: Int
    private let tokens: [Token]
    private let reporter: Reporter
    private let grammar: Grammar
    /// A top-level keyword at the start of a line ends an open block. Only tried on a file whose braces don't match:
    /// otherwise a block without indentation, though unformatted, is right.
    private let guessesClosingBraces: Bool
    private var index = 0
    private(set) var isUnbalanced = false

    /// - Parameter range: one file's bytes.
    static func parse(
        _ source: SourceText, _ range: Range<Int>, _ reporter: Reporter, _ grammar: Grammar
    ) -> FileSyntax {
        let tokens = Lexer.tokens(source, range, reporter)
        let opening = SourceSpan(range.lowerBound, range.lowerBound)
        var trial = Parser(source, range, tokens, Reporter(), grammar, guessesClosingBraces: false)
        _ = trial.parseBody(opening: opening, depth: 0)
        var parser = Parser(source, range, tokens, reporter, grammar, guessesClosingBraces: trial.isUnbalanced)
        return FileSyntax(body: parser.parseBody(opening: opening, depth: 0))
    }

    private init(
        _ source: SourceText, _ range: Range<Int>, _ tokens: [Token], _ reporter: Reporter, _ grammar: Grammar,
        guessesClosingBraces: Bool
    ) {
        start = range.lowerBound
        self.grammar = grammar
        self.source = source
        self.tokens = tokens
        self.reporter = reporter
        self.guessesClosingBraces = guessesClosingBraces
    }

    /// The token ahead; the last one is ``Token/Kind/end`` and is never passed.
    private var ahead: Token { tokens[min(index, tokens.count - 1)] }

    private mutating func advance() { if index < tokens.count - 1 { index += 1 } }

    // MARK: Bodies

    /// Entries up to the closing brace (which it passes) or the end of the file.
    private mutating func parseBody(opening: SourceSpan, depth: Int, members: String? = nil) -> BodySyntax {
        var body = BodySyntax(opening: opening)
        var comments: [CommentSyntax] = []
        var blank = false
        var lineIsEmpty = depth == 0
        while true {
            let token = ahead
            switch token.kind {
            case .newline:
                if lineIsEmpty { blank = true }
                lineIsEmpty = true
                advance()
            case .comment:
                if lineIsEmpty {
                    comments.append(comment(token, blankBefore: blank))
                } else {
                    body.openComment = comment(token, blankBefore: false)
                }
                blank = false
                lineIsEmpty = false
                advance()
            case .word, .quoted:
                if depth > 0, startsTopLevelEntry(token) {
                    reportUnclosed(opening, before: token)
                    body.dangling = comments
                    return body
                }
                var entry = parseEntry(depth: depth, members: members)
                entry.leading = comments
                entry.blankBefore = blank
                body.entries.append(entry)
                comments = []
                blank = false
                lineIsEmpty = false
            case .openBrace:
                parseStrayBlock(&body, depth: depth)
            case .comma:
                reporter.error(token.span, "a line can't start with `,`", expected: "a keyword")
                skipLine()
            case .closeBrace:
                advance()
                guard depth == 0 else {
                    body.dangling = comments
                    return body
                }
                isUnbalanced = true
                reporter.error(token.span, "this `}` closes nothing", help: "remove it")
            case .end:
                if depth > 0 {
                    isUnbalanced = true
                    reporter.error(opening, "this `{` is never closed", help: "add `}` at the end of the block")
                }
                body.dangling = comments
                return body
            }
        }
    }

    private func startsTopLevelEntry(_ token: Token) -> Bool {
        guard guessesClosingBraces, token.kind == .word else { return false }
        let place = Int(token.start)
        guard place == start || source.bytes[place - 1] == UInt8(ascii: "\n") else { return false }
        return grammar.keywords.contains(text(token))
    }

    private func reportUnclosed(_ opening: SourceSpan, before token: Token) {
        reporter.error(
            opening, "this `{` is not closed before `\(text(token))` (line \(source.lineNumber(of: Int(token.start))))",
            help: "add `}` on its own line before it")
    }

    /// A `{` at the start of a line: the body of the entry above, written as other languages do.
    private mutating func parseStrayBlock(_ body: inout BodySyntax, depth: Int) {
        let opening = ahead.span
        let last = body.entries.count - 1
        if last >= 0, body.entries[last].body == nil {
            reporter.error(
                opening, "`{` is on its own line",
                help: "put it at the end of the `\(body.entries[last].keyword.text)` line")
            body.entries[last].body = parseBlock(of: body.entries[last].keyword, depth: depth)
        } else {
            reporter.error(opening, "a block without a keyword", expected: "a keyword such as `pipeline` before `{`")
            _ = parseBlock(of: nil, depth: depth)
        }
        expectEndOfLine()
    }

    /// A body from its opening brace on.
    private mutating func parseBlock(of keyword: WordSyntax?, depth: Int) -> BodySyntax {
        let opening = ahead.span
        advance()
        guard depth < Parser.nestingLimit else {
            reporter.error(opening, "blocks nest deeper than \(Parser.nestingLimit)", help: "remove the inner blocks")
            skipBlock()
            return BodySyntax(opening: opening)
        }
        return parseBody(
            opening: opening, depth: depth + 1,
            members: depth == 0 ? keyword.flatMap { grammar.lists[$0.text]?.plural } : nil)
    }

    private mutating func skipBlock() {
        var open = 1
        while open > 0, ahead.kind != .end {
            if ahead.kind == .openBrace { open += 1 }
            if ahead.kind == .closeBrace { open -= 1 }
            advance()
        }
        if open > 0 { isUnbalanced = true }
    }

    // MARK: Entries

    /// - Parameter members: what the entry's words are, if it is no directive.
    private mutating func parseEntry(depth: Int, members: String?) -> EntrySyntax {
        let keyword = word(ahead)
        advance()
        var entry = EntrySyntax(
            leading: [], blankBefore: false, keyword: keyword,
            clauses: [ClauseSyntax(words: [], span: keyword.span.behind)])
        while true {
            let token = ahead
            switch token.kind {
            case .word, .quoted:
                let word = word(token)
                let last = entry.clauses.count - 1
                // In place: a copy of the clause would make a long line cost the square of its length.
                let isFirst = entry.clauses[last].words.isEmpty
                entry.clauses[last].span = isFirst ? word.span : entry.clauses[last].span.through(word.span)
                entry.clauses[last].words.append(word)
                advance()
            case .comma where members != nil:
                reporter.error(token.span, "\(members ?? "") are separated by spaces", help: "remove the `,`")
                advance()
            case .comma:
                checkComma(after: entry)
                entry.clauses.append(ClauseSyntax(words: [], span: token.span.behind))
                advance()
            case .openBrace:
                checkLastClause(of: &entry)
                entry.body = parseBlock(of: keyword, depth: depth)
                expectEndOfLine()
                entry.trailing = takeComment()
                return entry
            default:
                checkLastClause(of: &entry)
                entry.trailing = takeComment()
                return entry
            }
        }
    }

    private func checkComma(after entry: EntrySyntax) {
        guard entry.clauses.last?.words.isEmpty != false else { return }
        let what = entry.clauses.count == 1 ? "`\(entry.keyword.text)`" : "`,`"
        reporter.error(ahead.span, "`,` right after \(what)", expected: "words between them", help: "remove this `,`")
    }

    /// Removes empty clauses, which are reported already.
    private func checkLastClause(of entry: inout EntrySyntax) {
        if entry.clauses.count > 1, let last = entry.clauses.last, last.words.isEmpty {
            reporter.error(
                SourceSpan(last.span.start - 1, last.span.end), "nothing follows this `,`",
                help: "remove it, or write the next clause on the same line")
        }
        let first = entry.clauses[0]
        entry.clauses = [first] + entry.clauses.dropFirst().filter { !$0.words.isEmpty }
    }

    private mutating func takeComment() -> CommentSyntax? {
        guard ahead.kind == .comment else { return nil }
        defer { advance() }
        return comment(ahead, blankBefore: false)
    }

    private mutating func expectEndOfLine() {
        guard !startsTopLevelEntry(ahead) else { return }  // the block was closed by a guess
        switch ahead.kind {
        case .newline, .comment, .closeBrace, .end: return
        default:
            reporter.error(ahead.span, "text after `}`", expected: "the end of the line")
            skipLine()
        }
    }

    /// To the end of the line, whole blocks that begin on it included.
    private mutating func skipLine() {
        while true {
            switch ahead.kind {
            case .newline, .comment, .closeBrace, .end: return
            case .openBrace:
                advance()
                skipBlock()
            default: advance()
            }
        }
    }

    // MARK: Tokens

    private func text(_ token: Token) -> String { source.text(Int(token.start)..<Int(token.stop)) }

    private func comment(_ token: Token, blankBefore: Bool) -> CommentSyntax {
        var text = text(token)
        while let last = text.unicodeScalars.last, last == " " || last == "\t" || last == "\r" {
            text.unicodeScalars.removeLast()
        }
        return CommentSyntax(text: text, blankBefore: blankBefore)
    }

    private func word(_ token: Token) -> WordSyntax {
        guard token.kind == .quoted else { return WordSyntax(text: text(token), span: token.span) }
        var bytes: [UInt8] = []
        var rest = source.bytes[Int(token.start) + 1..<Int(token.stop) - 1]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "\\"), let escape = Lexer.escape(rest) else {
                // A lone backslash is reported already.
                if byte != UInt8(ascii: "\\") { bytes.append(byte) }
                continue
            }
            bytes += Array(String(escape.scalar).utf8)
            rest = rest.dropFirst(escape.length)
        }
        return WordSyntax(text: String(decoding: bytes, as: UTF8.self), span: token.span)
    }
}
