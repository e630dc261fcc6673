/// What a client's first bytes are where they are no TLS: pure, without allocation. A final verdict stays the same whatever
/// bytes follow.
public enum FirstBytes: Equatable, Sendable {
    /// They may become one of the protocols below. `needs`: the total number of bytes at which to look again.
    case incomplete(needs: Int)
    /// RFC 4253 §4.2: a client's first line begins with `SSH-`.
    case ssh
    /// A start-up packet of PostgreSQL's protocol 3 ("Message Formats"), from its length and its code.
    case postgresql(PostgreSQLStart)
    case other

    public static func look(at bytes: UnsafeBufferPointer<UInt8>) -> FirstBytes {
        guard let first = bytes.first else { return .incomplete(needs: 1) }
        if first == UInt8(ascii: "S") { return ssh(bytes) }
        return first == 0 ? PostgreSQLStart.look(at: bytes) : .other
    }

    private static func ssh(_ bytes: UnsafeBufferPointer<UInt8>) -> FirstBytes {
        let mark: StaticString = "SSH-"
        for index in 0..<min(bytes.count, mark.utf8CodeUnitCount) where bytes[index] != mark.utf8Start[index] {
            return .other
        }
        return bytes.count < mark.utf8CodeUnitCount ? .incomplete(needs: mark.utf8CodeUnitCount) : .ssh
    }
}

/// How a client of PostgreSQL begins.
public enum PostgreSQLStart: Equatable, Sendable {
    case startup
    /// It asks for TLS, and waits for one byte.
    case tls
    /// It asks for encryption by GSSAPI, and waits for one byte.
    case gss
    /// It wants a query of another connection to end.
    case cancel

    /// For people: what it is.
    public var text: String {
        switch self {
        case .startup: "a start-up packet without TLS"
        case .tls: "a request for TLS"
        case .gss: "a request for GSSAPI encryption"
        case .cancel: "a request to cancel a query"
        }
    }

    /// A request for TLS (SSLRequest), as clients send it.
    public static func withTLSRequest<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        let request: InlineArray<8, UInt8> = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F]
        return withUnsafeBytes(of: request) { body($0.assumingMemoryBound(to: UInt8.self)) }
    }

    /// Length and code.
    public static let headLength = 8
    /// The most bytes of a start-up packet that servers take.
    private static let longest: UInt32 = 10_000
    /// The longest key of protocol 3.2 is of 256 bytes.
    private static let cancelLengths: ClosedRange<UInt32> = 16...268

    static func look(at bytes: UnsafeBufferPointer<UInt8>) -> FirstBytes {
        if bytes.count > 1, bytes[1] != 0 { return .other }
        var cursor = ByteCursor(bytes)
        guard let length = cursor.u32() else { return .incomplete(needs: headLength) }
        guard (UInt32(headLength)...longest).contains(length) else { return .other }
        guard let code = cursor.u32() else { return .incomplete(needs: headLength) }
        return start(code, length).map { .postgresql($0) } ?? .other
    }

    private static func start(_ code: UInt32, _ length: UInt32) -> PostgreSQLStart? {
        let isBare = length == UInt32(headLength)
        return switch code {
        case 80_877_103: isBare ? .tls : nil
        case 80_877_104: isBare ? .gss : nil
        case 80_877_102: cancelLengths.contains(length) ? .cancel : nil
        default: code >> 16 == 3 && !isBare ? .startup : nil
        }
    }
}

/// What a PostgreSQL server answers to a request for TLS: one byte, and nothing behind it before the client's hello.
public enum PostgreSQLTLSAnswer: Equatable, Sendable {
    case willing
    /// `N`, or an error message.
    case unwilling
    /// No answer to such a request, or more than that (CVE-2021-23222).
    case malformed

    /// - Parameter bytes: all that came in answer so far, at least one.
    public init(_ bytes: UnsafeBufferPointer<UInt8>) {
        switch bytes.first {
        case UInt8(ascii: "S"): self = bytes.count == 1 ? .willing : .malformed
        case UInt8(ascii: "N"): self = bytes.count == 1 ? .unwilling : .malformed
        case UInt8(ascii: "E"): self = .unwilling
        default: self = .malformed
        }
    }
}
