/// A command of an IMAP client before TLS (RFC 9051 §6.1, §6.2).
public struct IMAPCommand: Equatable, Sendable {
    public enum Verb: Equatable, Sendable {
        case capability, noop, logout, startTLS, login, other
    }

    /// How many of the line's bytes are the tag.
    public let tag: Int
    public let verb: Verb

    /// The longest tag that is answered (R27).
    public static let tagLimit = 64

    /// - Parameter line: without its end. Nil: it begins with no tag.
    public init?(_ line: UnsafeBufferPointer<UInt8>) {
        let tag = line.firstWord
        guard !tag.isEmpty, tag.count <= IMAPCommand.tagLimit, tag.count < line.count, tag.allSatisfy(Self.isOfTag)
        else {
            return nil
        }
        let rest = UnsafeBufferPointer(rebasing: line[(tag.count + 1)...])
        self.tag = tag.count
        verb = Self.verb(rest)
    }

    private static func verb(_ rest: UnsafeBufferPointer<UInt8>) -> Verb {
        // These take no argument.
        if rest.isText("CAPABILITY") { return .capability }
        if rest.isText("NOOP") { return .noop }
        if rest.isText("LOGOUT") { return .logout }
        if rest.isText("STARTTLS") { return .startTLS }
        let word = rest.firstWord
        return word.isText("LOGIN") || word.isText("AUTHENTICATE") ? .login : .other
    }

    /// RFC 9051 §9: an ASTRING-CHAR but `+`.
    private static func isOfTag(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "("), UInt8(ascii: ")"), UInt8(ascii: "{"), UInt8(ascii: "%"), UInt8(ascii: "*"),
            UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "+"):
            false
        default: byte > 0x20 && byte < 0x7F
        }
    }
}

/// Reads what an IMAP server says up to its answer to `a STARTTLS`, byte by byte: a greeting, then lines of any kind, then
/// the tagged one.
public struct IMAPAnswers: BitwiseCopyable, Equatable, Sendable {
    public enum Finding: Equatable, Sendable {
        case incomplete
        /// It has greeted, and waits for commands.
        case greeted
        /// The tagged answer: OK.
        case willing
        /// Another greeting than OK, or another tagged answer.
        case unwilling
        case malformed
    }

    /// The command that is answered.
    public static let command: StaticString = "a STARTTLS\r\n"
    /// Of all that is read (R27).
    public static let limit = 16384
    private static let lineLimit = 8192

    /// The first eight bytes of the line, in upper case.
    private var head: UInt64 = 0
    private var column: UInt16 = 0
    private var total: UInt16 = 0
    private var hasGreeted = false
    private var hasReturn = false

    public init() {}

    public mutating func read(_ byte: UInt8) -> Finding {
        total += 1
        guard total < IMAPAnswers.limit, !hasReturn || byte == UInt8(ascii: "\n") else { return .malformed }
        switch byte {
        case UInt8(ascii: "\n"): return endLine()
        case UInt8(ascii: "\r"): hasReturn = true
        case UInt8(ascii: "\t"), 0x20...0x7E, 0x80...0xFF:
            if column < 8 { head |= UInt64(TextLine.upper(byte)) << (8 * UInt64(column)) }
            column += 1
            guard column < IMAPAnswers.lineLimit else { return .malformed }
        default: return .malformed
        }
        return .incomplete
    }

    private mutating func endLine() -> Finding {
        defer { (head, column, hasReturn) = (0, 0, false) }
        guard hasGreeted else {
            guard begins("* OK") else { return begins("* BYE") || begins("* PREAUT") ? .unwilling : .malformed }
            hasGreeted = true
            return .greeted
        }
        if begins("A OK") { return .willing }
        if begins("A NO") || begins("A BAD") || begins("* BYE") { return .unwilling }
        return begins("*") ? .incomplete : .malformed
    }

    /// Whether the line is `text`, or goes on with a space.
    private func begins(_ text: StaticString) -> Bool {
        let count = text.utf8CodeUnitCount
        guard count <= 8, column >= count else { return false }
        for index in 0..<count where UInt8(truncatingIfNeeded: head >> (8 * UInt64(index))) != text.utf8Start[index] {
            return false
        }
        return column == count || count == 8
            || UInt8(truncatingIfNeeded: head >> (8 * UInt64(count))) == UInt8(ascii: " ")
    }
}
