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
