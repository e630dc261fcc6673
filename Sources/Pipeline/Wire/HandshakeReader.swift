/// The numbers of the TLS record layer (RFC 8446 §5.1).
enum TLSRecord {
    static let headerLength = 5
    static let handshakeType: UInt8 = 22
    static let majorVersion: UInt8 = 3
    /// The most bytes of a plaintext record, without its header.
    static let maxLength = 1 << 14
}

/// Reads one handshake message out of the records that carry it, as one run of bytes, in the order of the stream.
///
/// Each answer depends only on bytes before it, so a verdict about a prefix of the stream never changes when more
/// arrives: that is the whole proof of R7's "split at every offset".
struct HandshakeReader {
    /// Why reading stopped.
    enum Stop: Error, Equatable {
        case incomplete(needs: Int)
        case notTLS
        case malformed(HelloFlaw)
        case tooLarge
    }

    /// Where it has got to, which means the same once more bytes are there.
    struct Place {
        /// Of the next byte, in the stream.
        var position = 0
        var recordEnd = 0
        /// Bytes of the message that are still to read; before its length is known, of its four-byte header.
        var left = 4
        /// What ``left`` will be at the end of the innermost open vector.
        var floor = 0
        var lengthIsKnown = false
    }

    private let bytes: UnsafeBufferPointer<UInt8>
    private let limit: Int
    var place: Place

    init(_ bytes: UnsafeBufferPointer<UInt8>, limit: Int, at place: Place = Place()) {
        self.bytes = bytes
        self.limit = limit
        self.place = place
    }

    private(set) var position: Int {
        get { place.position }
        set { place.position = newValue }
    }
    private var recordEnd: Int {
        get { place.recordEnd }
        set { place.recordEnd = newValue }
    }
    private(set) var left: Int {
        get { place.left }
        set { place.left = newValue }
    }
    private var floor: Int {
        get { place.floor }
        set { place.floor = newValue }
    }

    /// True until the innermost open vector is read to its end.
    var hasMore: Bool { left > floor }
    /// Bytes of the innermost open vector that are still to read.
    var rest: Int { left - floor }

    /// Reads the message's header (RFC 8446 §4): its type must be `type`.
    mutating func start(type: UInt8) throws(Stop) {
        guard limit >= TLSRecord.headerLength + left else { throw .tooLarge }
        guard try u8() == type else { throw .malformed(.notClientHello) }
        let high = Int(try u8())
        left = high << 16 | Int(try u16())
        place.lengthIsKnown = true
        try checkSize()
    }

    mutating func u8() throws(Stop) -> UInt8 {
        guard hasMore else { throw .malformed(.overrun) }
        if position == recordEnd { try openRecord() }
        guard position < bytes.count else { throw .incomplete(needs: nextLook) }
        let byte = bytes[position]
        position += 1
        left -= 1
        return byte
    }

    mutating func u16() throws(Stop) -> UInt16 {
        let high = UInt16(try u8())
        return high << 8 | UInt16(try u8())
    }

    /// Whether the innermost open vector has `count` bytes left.
    func require(_ count: Int) throws(Stop) {
        guard count <= rest else { throw .malformed(.overrun) }
    }

    /// Passes over `count` bytes, as far as they are there: what is left is in `count`.
    mutating func skip(_ count: inout Int) throws(Stop) {
        try walk(&count) { _ throws(Stop) in }
    }

    /// The same for a server name, whose bytes must be printable ASCII.
    mutating func skipName(_ count: inout Int) throws(Stop) {
        try walk(&count) { chunk throws(Stop) in
            for byte in chunk where byte < 0x20 || byte > 0x7E { throw .malformed(.serverNameByte) }
        }
    }

    @inline(__always)
    private mutating func walk(
        _ count: inout Int, _ look: (UnsafeBufferPointer<UInt8>) throws(Stop) -> Void
    ) throws(Stop) {
        try require(count)
        while count > 0 {
            if position == recordEnd { try openRecord() }
            let chunk = min(count, recordEnd - position)
            guard position + chunk <= bytes.count else { throw .incomplete(needs: nextLook) }
            try look(UnsafeBufferPointer(rebasing: bytes[position..<position + chunk]))
            position += chunk
            left -= chunk
            count -= chunk
        }
    }

    /// Passes over a type and a vector of bytes behind it (an extension) if all of that is here, in this record and in the
    /// innermost vector, and the type is not among `kept`. Nil: it is not, and nothing was read.
    @inline(__always)
    mutating func skipExtension(unless kept: (UInt16) -> Bool) -> UInt16? {
        let here = min(min(recordEnd, bytes.count) - position, rest)
        guard here >= 4 else { return nil }
        let type = UInt16(bytes[position]) << 8 | UInt16(bytes[position + 1])
        let length = 4 + (Int(bytes[position + 2]) << 8 | Int(bytes[position + 3]))
        guard length <= here, !kept(type) else { return nil }
        position += length
        left -= length
        return type
    }

    /// Opens a vector of `length` bytes; the answer is what ``leave(_:)`` wants.
    mutating func enter(_ length: Int) throws(Stop) -> Int {
        try require(length)
        defer { floor = left - length }
        return floor
    }

    /// Closes the vector, which must be read to its end.
    mutating func leave(_ outer: Int) throws(Stop) {
        guard left == floor else { throw .malformed(.bytesAfterVector) }
        floor = outer
    }

    /// Where the next `length` bytes stand. Reads nothing of them.
    mutating func field(_ length: Int) throws(Stop) -> HelloField {
        if position == recordEnd, length > 0 { try openRecord() }
        return HelloField(offset: position, length: length, recordEnd: recordEnd)
    }

    /// Once its length is known, the content of a record can be awaited whole.
    private var nextLook: Int { place.lengthIsKnown ? recordEnd : min(recordEnd, position + left) }

    /// Reads the record header at ``position`` (RFC 8446 §5.1), byte by byte as they are known.
    private mutating func openRecord() throws(Stop) {
        let start = position
        let available = bytes.count - start
        guard available >= 1 else { throw .incomplete(needs: start == 0 ? 1 : start + TLSRecord.headerLength) }
        guard bytes[start] == TLSRecord.handshakeType else {
            throw start == 0 ? notAHandshake() : .malformed(.interleavedRecord)
        }
        // The first record's second byte tells TLS from other protocols, whose clients may wait for an answer.
        guard available >= 2 else {
            throw .incomplete(needs: start == 0 ? 2 : start + TLSRecord.headerLength)
        }
        guard bytes[start + 1] == TLSRecord.majorVersion else {
            throw start == 0 ? .notTLS : .malformed(.recordVersion)
        }
        guard available >= TLSRecord.headerLength else {
            throw .incomplete(needs: start + TLSRecord.headerLength)
        }
        let length = Int(bytes[start + 3]) << 8 | Int(bytes[start + 4])
        // §5.1: no empty handshake fragments, and at most 2^14 bytes of plaintext.
        guard length > 0 else { throw .malformed(.emptyRecord) }
        guard length <= TLSRecord.maxLength else { throw .malformed(.recordTooLong) }
        position = start + TLSRecord.headerLength
        recordEnd = position + length
        try checkSize()
    }

    /// A record holds nothing after the hello, and the rest of the message fits under the limit even in the fewest
    /// records.
    private func checkSize() throws(Stop) {
        let rest = left - (recordEnd - position)
        if place.lengthIsKnown, rest < 0 { throw .malformed(.bytesAfterHello) }
        guard recordEnd <= limit else { throw .tooLarge }
        guard rest > 0 else { return }
        let records = (rest + TLSRecord.maxLength - 1) / TLSRecord.maxLength
        guard recordEnd + rest + records * TLSRecord.headerLength <= limit else { throw .tooLarge }
    }

    /// The stream's first byte is no handshake record's. An SSL 2.0 hello that asks for 3.x (RFC 5246 §E.2) is told
    /// apart, since it is TLS of a kind; servers must not take it any more (RFC 6176 §3, RFC 8446 §D.5).
    private func notAHandshake() -> Stop {
        guard bytes[0] & 0x80 != 0 else { return .notTLS }
        guard bytes.count >= 3 else { return .incomplete(needs: 3) }
        guard bytes[2] == 1 else { return .notTLS }
        guard bytes.count >= 4 else { return .incomplete(needs: 4) }
        return bytes[3] == TLSRecord.majorVersion ? .malformed(.sslV2) : .notTLS
    }
}
