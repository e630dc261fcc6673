import Pipeline

/// StartTLS of LDAP (RFC 4511 §4.14): an extended request, and an extended response. As much of BER as these take.
public enum LDAPMessage: Equatable, Sendable {
    /// `needs`: the total number of bytes at which to look again.
    case incomplete(needs: Int)
    case startTLS(id: UInt32, length: Int)
    /// Another request.
    case other
    case malformed

    /// The longest request that is looked at whole (R27).
    public static let limit = 128

    static let oid: StaticString = "1.3.6.1.4.1.1466.20037"

    public static func look(at bytes: UnsafeBufferPointer<UInt8>) -> LDAPMessage {
        var outer = BERCursor(bytes)
        let length: Int
        switch outer.header(0x30) {
        case .incomplete: return .incomplete(needs: bytes.count + 1)
        case .other: return .malformed
        case .found(let count): length = outer.offset + count
        }
        guard length <= LDAPMessage.limit else { return .other }
        guard bytes.count >= length else { return .incomplete(needs: length) }
        var cursor = BERCursor(UnsafeBufferPointer(rebasing: bytes[outer.offset..<length]))
        guard let id = cursor.integer(0x02), id <= 0x7FFF_FFFF else { return .malformed }
        // Controls behind the request are for somebody else too.
        guard case .found(let count) = cursor.header(0x77), count == cursor.remaining else { return .other }
        guard case .found(let named) = cursor.header(0x80), named == cursor.remaining else { return .other }
        guard let name = cursor.take(named), name.elementsEqual(oid.bytes) else { return .other }
        return .startTLS(id: id, length: length)
    }

    /// Our request, with the number 1.
    public static func withRequest<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        var bytes = InlineArray<31, UInt8>(repeating: 0)
        let head: InlineArray<9, UInt8> = [0x30, 0x1D, 0x02, 0x01, 0x01, 0x77, 0x18, 0x80, 0x16]
        for index in head.indices { bytes[index] = head[index] }
        for (index, byte) in oid.bytes.enumerated() { bytes[9 + index] = byte }
        return withUnsafeBytes(of: bytes) { body($0.assumingMemoryBound(to: UInt8.self)) }
    }

    /// A response of success to the request of that number.
    public static func withSuccess<Result>(_ id: UInt32, _ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        // X.690 §8.3.2: no more bytes than it takes, and none that looks negative.
        let width = max(1, (40 - id.leadingZeroBitCount) / 8)
        var bytes = InlineArray<18, UInt8>(repeating: 0)
        var count = 0
        func add(_ byte: UInt8) {
            bytes[count] = byte
            count += 1
        }
        add(0x30)
        add(UInt8(truncatingIfNeeded: 11 + width))
        add(0x02)
        add(UInt8(truncatingIfNeeded: width))
        for place in (0..<width).reversed() { add(UInt8(truncatingIfNeeded: UInt64(id) >> (8 * UInt64(place)))) }
        let tail: InlineArray<9, UInt8> = [0x78, 0x07, 0x0A, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00]
        for index in tail.indices { add(tail[index]) }
        return withUnsafeBytes(of: bytes) {
            body(UnsafeBufferPointer(rebasing: $0.assumingMemoryBound(to: UInt8.self)[..<count]))
        }
    }

    /// "Notice of Disconnection" (§4.4.1) with confidentialityRequired (13).
    public static func withNotice<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        var bytes = InlineArray<38, UInt8>(repeating: 0)
        let head: InlineArray<16, UInt8> = [
            0x30, 0x24, 0x02, 0x01, 0x00, 0x78, 0x1F, 0x0A, 0x01, 0x0D, 0x04, 0x00, 0x04, 0x00, 0x8A, 0x16,
        ]
        for index in head.indices { bytes[index] = head[index] }
        let name: StaticString = "1.3.6.1.4.1.1466.20036"
        for (index, byte) in name.bytes.enumerated() { bytes[16 + index] = byte }
        return withUnsafeBytes(of: bytes) { body($0.assumingMemoryBound(to: UInt8.self)) }
    }
}

/// What a server answers to our request.
public enum LDAPAnswer: Equatable, Sendable {
    case incomplete
    case willing
    case unwilling
    case malformed

    /// The longest answer (R27).
    public static let limit = 320

    /// - Parameter bytes: all that has come, at most ``limit``.
    public static func look(at bytes: UnsafeBufferPointer<UInt8>) -> LDAPAnswer {
        var outer = BERCursor(bytes)
        switch outer.header(0x30) {
        case .incomplete: return .incomplete
        case .other: return .malformed
        case .found(let count):
            let length = outer.offset + count
            guard length <= LDAPAnswer.limit, bytes.count <= length else { return .malformed }
            guard bytes.count == length else { return .incomplete }
            return read(BERCursor(UnsafeBufferPointer(rebasing: bytes[outer.offset...])))
        }
    }

    private static func read(_ message: BERCursor) -> LDAPAnswer {
        var cursor = message
        guard let id = cursor.integer(0x02), case .found = cursor.header(0x78), let code = cursor.integer(0x0A) else {
            return .malformed
        }
        // Number 0 is the server's own: a notice of disconnection.
        guard id == 1 else { return id == 0 ? .unwilling : .malformed }
        return code == 0 ? .willing : .unwilling
    }
}

/// Tags and definite lengths, of up to four bytes, as Microsoft's clients write them.
struct BERCursor {
    enum Header: Equatable {
        case incomplete
        /// The element's length; its content is next.
        case found(Int)
        case other
    }

    private var cursor: ByteCursor

    init(_ bytes: UnsafeBufferPointer<UInt8>) { cursor = ByteCursor(bytes) }

    var offset: Int { cursor.offset }
    var remaining: Int { cursor.remaining }
    mutating func take(_ count: Int) -> UnsafeBufferPointer<UInt8>? { cursor.take(count) }

    mutating func header(_ tag: UInt8) -> Header {
        guard let found = cursor.u8() else { return .incomplete }
        guard found == tag else { return .other }
        guard let first = cursor.u8() else { return .incomplete }
        guard first & 0x80 != 0 else { return .found(Int(first)) }
        let width = Int(first & 0x7F)
        guard (1...4).contains(width) else { return .other }
        guard let bytes = cursor.take(width) else { return .incomplete }
        return .found(bytes.reduce(0) { $0 << 8 | Int($1) })
    }

    /// A number that is not negative, of at most four bytes.
    mutating func integer(_ tag: UInt8) -> UInt32? {
        guard case .found(let count) = header(tag), (1...4).contains(count), let bytes = cursor.take(count),
            bytes[0] & 0x80 == 0
        else { return nil }
        return bytes.reduce(0) { $0 << 8 | UInt32($1) }
    }
}

extension StaticString {
    /// Of one that is stored as bytes.
    fileprivate var bytes: UnsafeBufferPointer<UInt8> {
        UnsafeBufferPointer(start: utf8Start, count: utf8CodeUnitCount)
    }
}
