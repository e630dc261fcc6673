import Pipeline

/// The smallest parts of the source. Offsets fit 32 bits because the source is bounded.
struct Token {
    enum Kind: UInt8 { case word, quoted, openBrace, closeBrace, comma, newline, comment, end }
    let kind: Kind
    let start: Int32
    let stop: Int32

    init(_ kind: Kind, _ start: Int, _ stop: Int) {
        self.kind = kind
        self.start = Int32(truncatingIfNeeded: start)
        self.stop = Int32(truncatingIfNeeded: stop)
    }

    var span: SourceSpan { SourceSpan(Int(start), Int(stop)) }
}

/// Splits a source into tokens; the last one is ``Token/Kind/end``. Invalid input is reported and skipped.
struct Lexer {
    private let bytes: [UInt8]
    private let reporter: Reporter
    private var index: Int
    /// Where the file ends.
    private let end: Int
    private var tokens: [Token] = []

    /// - Parameter range: one file's bytes.
    static func tokens(_ source: SourceText, _ range: Range<Int>, _ reporter: Reporter) -> [Token] {
        var lexer = Lexer(bytes: source.bytes, range, reporter: reporter)
        lexer.run()
        return lexer.tokens
    }

    private init(bytes: [UInt8], _ range: Range<Int>, reporter: Reporter) {
        self.bytes = bytes
        self.reporter = reporter
        index = range.lowerBound
        end = range.upperBound
    }

    private mutating func run() {
        if bytes[index..<end].starts(with: [0xEF, 0xBB, 0xBF]) { index += 3 }
        while index < end, !reporter.isFull { step() }
        tokens.append(Token(.end, end, end))
    }

    private mutating func step() {
        let start = index
        switch bytes[index] {
        case UInt8(ascii: " "), UInt8(ascii: "\t"): index += 1
        case UInt8(ascii: "\r") where index + 1 < end && bytes[index + 1] == UInt8(ascii: "\n"): index += 1
        case UInt8(ascii: "\n"): punctuation(.newline)
        case UInt8(ascii: "{"): punctuation(.openBrace)
        case UInt8(ascii: "}"): punctuation(.closeBrace)
        case UInt8(ascii: ","): punctuation(.comma)
        case UInt8(ascii: "#"):
            while index < end, bytes[index] != UInt8(ascii: "\n") { index += 1 }
            tokens.append(Token(.comment, start, index))
        case UInt8(ascii: "\""): quotedWord()
        case UInt8(ascii: ";"):
            index += 1
            reporter.error(
                SourceSpan(start, index), "`;` has no place here", help: "remove it: a directive ends with its line")
        case let byte where Lexer.isControl(byte):
            index += 1
            reporter.error(
                SourceSpan(start, index), "a control character (0x\(String(byte, radix: 16)))", help: "remove it")
        default: word()
        }
    }

    private mutating func punctuation(_ kind: Token.Kind) {
        tokens.append(Token(kind, index, index + 1))
        index += 1
    }

    private mutating func word() {
        let start = index
        while index < end, isWordByte(bytes[index]) { index += 1 }
        if index - start == 1, bytes[start] == UInt8(ascii: "=") {
            reporter.error(
                SourceSpan(start, index), "`=` has no place here", help: "remove it: a value follows its keyword")
        } else {
            tokens.append(Token(.word, start, index))
        }
    }

    /// `"..."` on one line, with `\"`, `\\` and the escapes of ``EscapedByte``.
    private mutating func quotedWord() {
        let start = index
        index += 1
        while index < end, bytes[index] != UInt8(ascii: "\n") {
            switch bytes[index] {
            case UInt8(ascii: "\""):
                index += 1
                tokens.append(Token(.quoted, start, index))
                return
            case UInt8(ascii: "\\"):
                if let escape = Lexer.escape(bytes[(index + 1)..<end]) {
                    index += 1 + escape.length
                } else {
                    reporter.error(
                        SourceSpan(index, index + 1), "a lone `\\` in quotes",
                        help: "write `\\\\`, or an escape: `\\r`, `\\n`, `\\t`, `\\0` or `\\x1F`")
                    index += 1
                }
            case let byte where Lexer.isControl(byte):
                reporter.error(
                    SourceSpan(index, index + 1), "a control character (0x\(String(byte, radix: 16))) in quotes",
                    help: "remove it")
                index += 1
            default: index += 1
            }
        }
        reporter.error(SourceSpan(start, index), "this quote is not closed on its line", help: "add `\"` at its end")
    }

    /// What stands behind a backslash: how long it is, and the scalar that a word has for it. Nil: no escape.
    static func escape(_ rest: ArraySlice<UInt8>) -> (length: Int, scalar: Unicode.Scalar)? {
        guard let letter = rest.first else { return nil }
        if letter == UInt8(ascii: "\"") || letter == UInt8(ascii: "\\") { return (1, Unicode.Scalar(letter)) }
        if let byte = EscapedByte.named(letter) { return (1, EscapedByte.scalar(byte)) }
        let digits = rest.dropFirst().prefix(2)
        guard letter == UInt8(ascii: "x"), digits.count == 2, digits.allSatisfy({ $0 != UInt8(ascii: "+") }),
            let byte = UInt8(String(decoding: digits, as: UTF8.self), radix: 16)
        else { return nil }
        return (3, EscapedByte.scalar(byte))
    }

    private static func isControl(_ byte: UInt8) -> Bool { byte < 0x20 || byte == 0x7F }
}
