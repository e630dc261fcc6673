/// What a client's first bytes are where they are no TLS (ADR 0096).
@frozen public enum ClientProtocol: UInt8, Sendable, CaseIterable {
    /// It begins with `SSH-` (RFC 4253 §4.2).
    case ssh = 1
    /// A start-up packet of PostgreSQL.
    case postgresql
    /// Anything else; and the two above where they have no route of their own.
    case plain
    /// Nothing came in the time that first bytes have: a client that waits for its server.
    case silent

    public var name: String {
        switch self {
        case .ssh: "ssh"
        case .postgresql: "postgresql"
        case .plain: "plain"
        case .silent: "silent"
        }
    }
}

/// What a route asks of a client's first bytes, besides a name.
public enum RouteCondition: Hashable, Sendable {
    /// The hello offers this protocol.
    case alpn(String)
    case client(ClientProtocol)

    /// The longest ALPN protocol of a condition, in bytes.
    public static let alpnLimit = 128

    /// As a config says it, behind `when`.
    public var text: String {
        switch self {
        case .alpn(let name): "alpn \(name)"
        case .client(let client): "protocol \(client.name)"
        }
    }
}

/// The protocols that a ClientHello offers: the list of RFC 7301 §3.1 without its own length, in one piece.
public struct ALPNList {
    /// How many of a client's protocols are looked at (R27).
    public static let limit = 32
    private let bytes: UnsafeBufferPointer<UInt8>

    public static var none: ALPNList { ALPNList(UnsafeBufferPointer(start: nil, count: 0)) }

    /// - Parameter bytes: valid for as long as the list is used.
    public init(_ bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }

    public var isEmpty: Bool { bytes.isEmpty }

    /// Asks about each protocol in the client's order, until there is an answer.
    @inline(__always)
    public func first<Answer>(_ ask: (UnsafeBufferPointer<UInt8>) -> Answer?) -> Answer? {
        var position = 0
        var seen = 0
        while position < bytes.count, seen < ALPNList.limit {
            let end = position + 1 + Int(bytes[position])
            guard end <= bytes.count else { return nil }
            if let answer = ask(UnsafeBufferPointer(rebasing: bytes[(position + 1)..<end])) { return answer }
            position = end
            seen += 1
        }
        return nil
    }
}
