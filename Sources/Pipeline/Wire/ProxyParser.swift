import Pipeline

extension ProxyHeader {
    /// Looks for a PROXY header, v1 or v2, at the start of `bytes`: pure, without allocation, asked again from the
    /// start as more arrives. HAProxy's proxy-protocol.txt, §2.1 and §2.2.
    /// - Parameter limit: the most bytes that a v2 header may take; a longer one is malformed.
    public static func parse(_ bytes: UnsafeBufferPointer<UInt8>, limit: Int = maxLength) -> ProxyVerdict {
        switch ProxySignature.check(bytes) {
        case .pass: return .notProxy
        case .wait(let needs): return .incomplete(needs: needs)
        case .block: break
        }
        do throws(Stop) {
            return .ok(bytes[0] == ProxySignature.v1[0] ? try parseV1(bytes) : try parseV2(bytes, limit: limit))
        } catch {
            switch error {
            case .incomplete(let needs): return .incomplete(needs: needs)
            case .malformed(let flaw): return .malformed(flaw)
            }
        }
    }

    private enum Stop: Error {
        case incomplete(needs: Int)
        case malformed(ProxyFlaw)
    }

    // MARK: v1

    /// §2.1: the longest line, its CRLF included.
    private static let lineLimit = 107

    private static func parseV1(_ bytes: UnsafeBufferPointer<UInt8>) throws(Stop) -> ProxyHeader {
        let line = try lineLength(bytes)
        var fields = LineFields(UnsafeBufferPointer(rebasing: bytes[ProxySignature.v1.count..<line]))
        var header = ProxyHeader(version: 1)
        header.length = line + 2
        guard let proto = fields.next() else { throw .malformed(.lineFields) }
        // §2.1: what follows UNKNOWN is ignored.
        if proto.elementsEqual("UNKNOWN".utf8) { return header }
        let isV4 = proto.elementsEqual("TCP4".utf8)
        guard isV4 || proto.elementsEqual("TCP6".utf8) else { throw .malformed(.lineFields) }
        header.family = isV4 ? .inet : .inet6
        header.transport = .stream
        guard let source = fields.next(), let destination = fields.next(), let sourcePort = fields.next(),
            let destinationPort = fields.next(), fields.isAtEnd
        else { throw .malformed(.lineFields) }
        header.source = Endpoint(try address(source, isV4: isV4), try port(sourcePort))
        header.destination = Endpoint(try address(destination, isV4: isV4), try port(destinationPort))
        return header
    }

    /// Bytes before the CRLF.
    private static func lineLength(_ bytes: UnsafeBufferPointer<UInt8>) throws(Stop) -> Int {
        for index in 0..<min(bytes.count, lineLimit - 1) where bytes[index] == 0x0D || bytes[index] == 0x0A {
            guard bytes[index] == 0x0D else { throw .malformed(.lineEnd) }
            guard index + 1 < bytes.count else { throw .incomplete(needs: index + 2) }
            guard bytes[index + 1] == 0x0A else { throw .malformed(.lineEnd) }
            return index
        }
        guard bytes.count < lineLimit else { throw .malformed(.lineTooLong) }
        throw .incomplete(needs: bytes.count + 1)
    }

    private static func address(_ text: UnsafeBufferPointer<UInt8>, isV4: Bool) throws(Stop) -> IPAddress {
        guard text.contains(0x3A) != isV4, let address = IPAddress(ascii: text) else { throw .malformed(.address) }
        return address
    }

    private static func port(_ text: UnsafeBufferPointer<UInt8>) throws(Stop) -> UInt16 {
        guard (1...5).contains(text.count), text.count == 1 || text[0] != 0x30 else { throw .malformed(.port) }
        var value: UInt32 = 0
        for byte in text {
            guard byte >= 0x30, byte <= 0x39 else { throw .malformed(.port) }
            value = value * 10 + UInt32(byte - 0x30)
        }
        guard let port = UInt16(exactly: value) else { throw .malformed(.port) }
        return port
    }

    // MARK: v2

    private static func parseV2(_ bytes: UnsafeBufferPointer<UInt8>, limit: Int) throws(Stop) -> ProxyHeader {
        var cursor = ByteCursor(bytes)
        _ = cursor.take(ProxySignature.v2.count)
        guard let versionAndCommand = cursor.u8() else { throw .incomplete(needs: 13) }
        guard versionAndCommand >> 4 == 2, versionAndCommand & 15 <= 1 else { throw .malformed(.versionOrCommand) }
        var header = ProxyHeader(version: 2)
        header.command = versionAndCommand & 15 == 0 ? .local : .proxy
        guard let familyAndTransport = cursor.u8() else { throw .incomplete(needs: 14) }
        try header.setFamily(familyAndTransport)
        guard let length = cursor.u16() else { throw .incomplete(needs: 16) }
        header.length = cursor.offset + Int(length)
        guard header.length <= limit else { throw .malformed(.tooLong) }
        guard Int(length) >= header.addressLength else { throw .malformed(.addressBlock) }
        guard bytes.count >= header.length else { throw .incomplete(needs: header.length) }

        header.setAddresses(&cursor)
        // §2.2: of LOCAL and unspec headers the receiver skips everything.
        guard header.family != .unspec else { return header }
        header.tlvBytes = 16 + header.addressLength..<header.length
        try header.checkTLVs(bytes)
        return header
    }

    /// §2.2: byte 14. Only both or neither of family and transport can be unspec; other values must be refused. Of `LOCAL`
    /// "the receiver must accept this connection as valid … and discard the protocol block including the family which is
    /// ignored": so whatever the byte is, an undefined one too, as HAProxy has it.
    private mutating func setFamily(_ byte: UInt8) throws(Stop) {
        guard command == .proxy else { return }
        let families: InlineArray<4, Family> = [.unspec, .inet, .inet6, .unix]
        let transports: InlineArray<3, Transport> = [.unspec, .stream, .dgram]
        let family = Int(byte >> 4)
        let transport = Int(byte & 15)
        guard family < families.count, transport < transports.count else { throw .malformed(.familyOrTransport) }
        guard (family == 0) == (transport == 0) else { throw .malformed(.familyOrTransport) }
        self.family = families[family]
        self.transport = transports[transport]
    }

    private var addressLength: Int {
        switch family {
        case .unspec: 0
        case .inet: 12
        case .inet6: 36
        case .unix: 216
        }
    }

    private mutating func setAddresses(_ cursor: inout ByteCursor) {
        let pair: (IPAddress?, IPAddress?)
        switch family {
        case .unspec, .unix: return
        case .inet: pair = (cursor.u32().map(IPAddress.init(v4:)), cursor.u32().map(IPAddress.init(v4:)))
        case .inet6: pair = (ProxyHeader.address(&cursor), ProxyHeader.address(&cursor))
        }
        guard case (let source?, let destination?) = pair, let sourcePort = cursor.u16(),
            let destinationPort = cursor.u16()
        else { return }
        self.source = Endpoint(source, sourcePort)
        self.destination = Endpoint(destination, destinationPort)
    }

    private static func address(_ cursor: inout ByteCursor) -> IPAddress? {
        guard let high = cursor.u64(), let low = cursor.u64() else { return nil }
        return IPAddress(high: high, low: low)
    }

    private func checkTLVs(_ bytes: UnsafeBufferPointer<UInt8>) throws(Stop) {
        var tlvs = self.tlvs(in: bytes)
        var checksum: (offset: Int, value: UInt32)?
        while let tlv = tlvs.next() {
            switch tlv.type {
            case ProxyTLV.Kind.crc32c:
                var value = ByteCursor(tlv.value)
                guard tlv.value.count == 4, checksum == nil, let sum = value.u32() else {
                    throw .malformed(.checksumLength)
                }
                checksum = (tlvBytes.lowerBound + tlvs.offset - 4, sum)
            case ProxyTLV.Kind.uniqueID:
                guard tlv.value.count <= 128 else { throw .malformed(.uniqueID) }
            default: break
            }
        }
        guard tlvs.isWhole else { throw .malformed(.tlv) }
        guard let checksum else { return }
        guard checksum.value == crc32c(bytes, zeroing: checksum.offset) else { throw .malformed(.checksum) }
    }

    /// §2.2.3: over the whole header, with the checksum's own four bytes zero.
    private func crc32c(_ bytes: UnsafeBufferPointer<UInt8>, zeroing offset: Int) -> UInt32 {
        var crc = CRC32C()
        crc.update(UnsafeBufferPointer(rebasing: bytes[..<offset]))
        crc.updateZeros(4)
        crc.update(UnsafeBufferPointer(rebasing: bytes[offset + 4..<length]))
        return crc.value
    }
}

/// The fields of a v1 line, exactly one space apart.
private struct LineFields {
    private let line: UnsafeBufferPointer<UInt8>
    private var position = 0
    private(set) var isAtEnd = false

    init(_ line: UnsafeBufferPointer<UInt8>) { self.line = line }

    /// The bytes up to the next space or the line's end. Two spaces give an empty field.
    mutating func next() -> UnsafeBufferPointer<UInt8>? {
        guard !isAtEnd else { return nil }
        var end = position
        while end < line.count, line[end] != 0x20 { end += 1 }
        defer {
            isAtEnd = end == line.count
            position = end + 1
        }
        return UnsafeBufferPointer(rebasing: line[position..<end])
    }
}
