/// A command of an SMTP client before TLS (RFC 5321 §4.1, RFC 3207 §4).
public enum SMTPCommand: Equatable, Sendable {
    case ehlo, helo, noop, reset, quit, startTLS
    /// STARTTLS takes none.
    case startTLSWithParameter
    case other

    /// - Parameter line: without its end.
    public init(_ line: UnsafeBufferPointer<UInt8>) {
        let verb = line.firstWord
        if verb.isText("EHLO") {
            self = .ehlo
        } else if verb.isText("HELO") {
            self = .helo
        } else if verb.isText("NOOP") {
            self = .noop
        } else if verb.isText("RSET") {
            self = .reset
        } else if verb.isText("QUIT") {
            self = .quit
        } else if verb.isText("STARTTLS") {
            let rest = line[verb.count...]
            self = rest.allSatisfy { $0 == UInt8(ascii: " ") } ? .startTLS : .startTLSWithParameter
        } else {
            self = .other
        }
    }
}

/// Reads one reply of an SMTP server, of one line or many (RFC 5321 §4.2.1), byte by byte.
public struct SMTPReply: BitwiseCopyable, Equatable, Sendable {
    public enum Finding: Equatable, Sendable {
        case incomplete
        case complete(code: Int)
        case malformed
    }

    /// The longest line, and the most lines (R27).
    public static let lineLimit = 1024
    public static let linesLimit = 64

    /// Of the first line; 0: none yet.
    private var code: UInt16 = 0
    private var digits: UInt16 = 0
    private var column: UInt16 = 0
    private var lines: UInt8 = 0
    private var isLast = false
    private var hasReturn = false

    public init() {}

    public mutating func read(_ byte: UInt8) -> Finding {
        guard !hasReturn || byte == UInt8(ascii: "\n") else { return .malformed }
        switch (column, byte) {
        case (3..., UInt8(ascii: "\n")):
            // A code alone is a whole line.
            if column == 3 { isLast = true }
            return endLine()
        case (3..., UInt8(ascii: "\r")): hasReturn = true
        case (0..<3, UInt8(ascii: "0")...UInt8(ascii: "9")):
            digits = digits * 10 + UInt16(byte - UInt8(ascii: "0"))
            column += 1
        case (3, UInt8(ascii: "-")): column += 1
        case (3, UInt8(ascii: " ")):
            isLast = true
            column += 1
        case (4..., UInt8(ascii: "\t")), (4..., 0x20...0x7E), (4..., 0x80...0xFF):
            column += 1
            if column > SMTPReply.lineLimit { return .malformed }
        default: return .malformed
        }
        return .incomplete
    }

    private mutating func endLine() -> Finding {
        guard code == 0 || code == digits, (200...599).contains(digits) else { return .malformed }
        if isLast { return .complete(code: Int(digits)) }
        lines += 1
        guard lines < SMTPReply.linesLimit else { return .malformed }
        (code, digits, column, hasReturn) = (digits, 0, 0, false)
        return .incomplete
    }
}
