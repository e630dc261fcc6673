import Pipeline

/// The result of parsing a PROXY header at the start of a stream. A final verdict stays the same whatever follows.
public enum ProxyVerdict: Equatable, Sendable {
    case ok(ProxyHeader)
    /// Incomplete so far. `needs`: the total number of bytes at which to parse again.
    case incomplete(needs: Int)
    /// Carries a signature, and can't become a valid header.
    case malformed(ProxyFlaw)
    /// Doesn't begin with either signature.
    case notProxy
}

/// What makes a PROXY header malformed.
public enum ProxyFlaw: UInt8, Error, Equatable, Sendable, CaseIterable {
    case lineTooLong, lineEnd, lineFields, address, port
    case versionOrCommand, familyOrTransport, tooLong, addressBlock, tlv, checksumLength, checksum, uniqueID

    /// Completes "the PROXY header …".
    public var text: String {
        switch self {
        case .lineTooLong: "has no CRLF within 107 bytes"
        case .lineEnd: "has a CR or LF outside a CRLF"
        case .lineFields: "does not have the fields of its protocol, one space apart"
        case .address: "has an address of another family"
        case .port: "has a port that is not 0...65535 without leading zeros"
        case .versionOrCommand: "has a version that is not 2 or an unknown command"
        case .familyOrTransport: "has an unknown family or transport"
        case .tooLong: "is longer than the limit"
        case .addressBlock: "is too short for the addresses of its family"
        case .tlv: "has a TLV that runs past its end"
        case .checksumLength: "has a CRC32C that is not four bytes, or two of them"
        case .checksum: "has a wrong CRC32C"
        case .uniqueID: "has a unique id of more than 128 bytes"
        }
    }
}

/// A parsed PROXY header. Offsets count from the first byte that the parser saw.
public struct ProxyHeader: Equatable, Sendable {
    public enum Command: String, Sendable { case local, proxy }
    public enum Family: String, Sendable { case unspec, inet, inet6, unix }
    public enum Transport: String, Sendable { case unspec, stream, dgram }

    /// The longest v2 header: 16 bytes and what their length field can count.
    public static let maxLength = 16 + 65535

    /// 1 or 2.
    public var version: UInt8
    public var command = Command.proxy
    /// As the header says; ``Family/unspec`` for `LOCAL`, whose family means nothing.
    public var family = Family.unspec
    public var transport = Transport.unspec
    /// Nil: the header conveys none (`LOCAL`, `UNKNOWN`, unspec, unix): use the socket's.
    public var source: Endpoint?
    public var destination: Endpoint?
    /// Where the TLVs stand.
    public var tlvBytes = 0..<0
    /// Bytes of the header; the stream's payload begins after them.
    public var length = 0

    init(version: UInt8) { self.version = version }

    /// The TLVs in order. `bytes` must be what the header was parsed from.
    public func tlvs(in bytes: UnsafeBufferPointer<UInt8>) -> ProxyTLVs {
        guard tlvBytes.upperBound <= bytes.count else { return ProxyTLVs(UnsafeBufferPointer(start: nil, count: 0)) }
        return ProxyTLVs(UnsafeBufferPointer(rebasing: bytes[tlvBytes]))
    }
}

/// One type-length-value of a v2 header (§2.2.*). The value points into the parsed bytes.
public struct ProxyTLV {
    /// §2.2.1...2.2.7, as far as we look at or write them.
    public enum Kind {
        public static let alpn: UInt8 = 0x01
        public static let authority: UInt8 = 0x02
        public static let crc32c: UInt8 = 0x03
        public static let noop: UInt8 = 0x04
        public static let uniqueID: UInt8 = 0x05
        /// The first of sixteen types for private use.
        public static let custom: UInt8 = 0xE0
        /// All of them.
        public static let customRange: ClosedRange<UInt8> = 0xE0...0xEF
    }

    public let type: UInt8
    public let value: UnsafeBufferPointer<UInt8>
}

/// The TLVs of a header. Ends early, and then ``isWhole`` is false, where a TLV runs past the end.
public struct ProxyTLVs: Sequence, IteratorProtocol {
    private var cursor: ByteCursor
    public private(set) var isWhole = true

    /// - Parameter bytes: a header's TLVs, and nothing else.
    public init(_ bytes: UnsafeBufferPointer<UInt8>) { cursor = ByteCursor(bytes) }

    /// How many bytes were read.
    public var offset: Int { cursor.offset }

    public mutating func next() -> ProxyTLV? {
        guard isWhole, cursor.remaining > 0 else { return nil }
        guard let type = cursor.u8(), let length = cursor.u16(), let value = cursor.take(Int(length)) else {
            isWhole = false
            return nil
        }
        return ProxyTLV(type: type, value: value)
    }
}
