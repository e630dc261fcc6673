/// What a peek at the client's first bytes found (R7). A final verdict stays the same whatever bytes follow; only
/// ``incomplete(needs:)`` changes as bytes arrive.
public enum HelloVerdict: Equatable, Sendable {
    /// A complete and well-formed ClientHello.
    case ok(ClientHello)
    /// Incomplete so far. `needs`: the total number of bytes at which to parse again: more than now and at most the
    /// limit, the end of the current header or record.
    case incomplete(needs: Int)
    /// The first bytes can't begin a TLS handshake.
    case notTLS
    /// Begins like TLS, and can't become a valid ClientHello.
    case malformed(HelloFlaw)
    /// Its lengths exceed the limit.
    case tooLarge
}

/// What makes a hello malformed.
public enum HelloFlaw: UInt8, Error, Equatable, Sendable, CaseIterable {
    case sslV2, recordVersion, emptyRecord, recordTooLong, interleavedRecord, notClientHello, bytesAfterHello
    case clientVersion, sessionID, cipherSuites, compressionMethods, overrun, bytesAfterVector
    case duplicateExtension, serverNameList, serverNameType, serverNameLength, serverNameByte, alpnList

    /// Completes "the ClientHello …".
    public var text: String {
        switch self {
        case .sslV2: "has the SSL 2.0 form, which RFC 6176 forbids"
        case .recordVersion: "has a record whose version is not 3.x"
        case .emptyRecord: "has an empty handshake record"
        case .recordTooLong: "has a record of more than 16384 bytes"
        case .interleavedRecord: "is interrupted by bytes that are not a handshake record"
        case .notClientHello: "is another handshake message"
        case .bytesAfterHello: "is followed by other bytes in its last record"
        case .clientVersion: "has a legacy_version that is not 3.x"
        case .sessionID: "has a session id of more than 32 bytes"
        case .cipherSuites: "has an empty or odd list of cipher suites"
        case .compressionMethods: "has no compression method"
        case .overrun: "has a field that is longer than its enclosing structure"
        case .bytesAfterVector: "has bytes left over after a field's contents"
        case .duplicateExtension: "has an extension twice"
        case .serverNameList: "has an empty server name list"
        case .serverNameType: "has a server name of an unknown type, or two of one type"
        case .serverNameLength: "has a server name that is empty or longer than 255 bytes"
        case .serverNameByte: "has a server name with a control or non-ASCII byte"
        case .alpnList: "has an empty ALPN list or protocol name"
        }
    }
}

/// The offsets of the parts of a parsed ClientHello, from the first byte that the parser saw; valid only with those
/// bytes.
public struct ClientHello: Equatable, Sendable, BitwiseCopyable {
    /// The longest server name that is taken, as on the wire.
    public static let nameLimit = 255

    /// The one host_name of the server_name extension, raw (RFC 6066 §3); nil: the extension is absent.
    public var serverName: HelloField?
    /// The ALPN extension's protocol list, without its own length (RFC 7301 §3.1); nil: absent.
    public var alpn: HelloField?
    /// The encrypted_client_hello extension is there. Means nothing by itself: browsers grease it.
    public var hasECH = false
    /// Bytes of the hello's records, headers included. What follows in the stream is not the hello's.
    public var totalBytes = 0

    public init() {}

    /// Calls `body` with the raw server name; nil if there is none. Copies (to the stack) only a name that crosses a
    /// record boundary. `bytes` must be what the hello was parsed from.
    @inline(__always)
    public func withServerName<Result>(
        in bytes: UnsafeBufferPointer<UInt8>, _ body: (UnsafeBufferPointer<UInt8>) -> Result
    ) -> Result? {
        guard let serverName else { return nil }
        if let whole = serverName.contiguous(in: bytes) { return body(whole) }
        return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: ClientHello.nameLimit) { memory in
            guard let count = serverName.copy(from: bytes, into: memory) else { return nil }
            return body(UnsafeBufferPointer(rebasing: memory[..<count]))
        }
    }

    /// The raw server name; nil if there is none. Allocates: for tools and tests.
    public func serverNameBytes(in bytes: UnsafeBufferPointer<UInt8>) -> [UInt8]? {
        withServerName(in: bytes) { Array($0) }
    }

    /// The protocols that the client offers, in its order. Allocates: for tools and tests.
    public func alpnProtocols(in bytes: UnsafeBufferPointer<UInt8>) -> [[UInt8]] {
        guard let alpn else { return [] }
        let list = [UInt8](unsafeUninitializedCapacity: alpn.length) { memory, count in
            count = alpn.copy(from: bytes, into: memory) ?? 0
        }
        var protocols: [[UInt8]] = []
        var rest = list[...]
        while let length = rest.popFirst().map(Int.init), length <= rest.count {
            protocols.append(Array(rest.prefix(length)))
            rest = rest.dropFirst(length)
        }
        return protocols
    }
}

/// A run of handshake bytes in the stream. It may cross record boundaries, with a record header in between.
public struct HelloField: Equatable, Sendable, BitwiseCopyable {
    /// Of its first byte, in the stream.
    public let offset: Int
    /// Its own bytes, without record headers in between.
    public let length: Int
    /// Where the record ends that its first byte is in.
    public let recordEnd: Int

    /// True if it lies in one record.
    public var isContiguous: Bool { offset + length <= recordEnd }

    /// Its bytes in place; nil if it isn't contiguous, or not in `bytes`.
    public func contiguous(in bytes: UnsafeBufferPointer<UInt8>) -> UnsafeBufferPointer<UInt8>? {
        guard isContiguous, offset >= 0, length >= 0, offset + length <= bytes.count else { return nil }
        return UnsafeBufferPointer(rebasing: bytes[offset..<offset + length])
    }

    /// Copies its bytes without the record headers. Nil if they don't fit or are not in `bytes`.
    public func copy(
        from bytes: UnsafeBufferPointer<UInt8>, into memory: UnsafeMutableBufferPointer<UInt8>
    ) -> Int? {
        guard length <= memory.count, offset >= 0 else { return nil }
        var copied = 0
        var position = offset
        var end = recordEnd
        while true {
            let chunk = min(length - copied, end - position)
            guard chunk >= 0, position + chunk <= bytes.count else { return nil }
            for index in 0..<chunk { memory[copied + index] = bytes[position + index] }
            copied += chunk
            if copied == length { return copied }
            guard end + TLSRecord.headerLength <= bytes.count else { return nil }
            position = end + TLSRecord.headerLength
            end = position + (Int(bytes[end + 3]) << 8 | Int(bytes[end + 4]))
        }
    }
}
