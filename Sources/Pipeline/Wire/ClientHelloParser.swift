extension ClientHello {
    /// Looks for a ClientHello at the start of `bytes`: pure, without allocation. RFC 8446 §4.1.2 and §5.1, RFC 5246 §7.4.1.2,
    /// RFC 6066 §3, RFC 7301 §3.1. To continue as more bytes arrive, keep a ``HelloScan``.
    ///
    /// No part of a hello is returned before all of it has arrived and all lengths are consistent.
    /// - Parameter limit: the most bytes that its records may take together, their headers included.
    public static func parse(_ bytes: UnsafeBufferPointer<UInt8>, limit: Int) -> HelloVerdict {
        var scan = HelloScan()
        return scan.look(at: bytes, limit: limit)
    }
}

/// An incremental parser that resumes where it stopped, so that the cost is linear in the hello's length for any number
/// of pieces: each record header and field is read once, the last one a few times.
public struct HelloScan: BitwiseCopyable {
    /// What is read next. Each reads a few bytes, all of them or none.
    private enum Step: UInt8 {
        case header, version, sessionID, cipherSuites, compressionMethods, extensions
        case type, length, contentEnd
        case names, nameType, nameLength, name
        case protocols, firstProtocol, nextProtocol
        case done
    }

    private static let clientHelloType: UInt8 = 1
    /// Extension types (IANA "TLS ExtensionType Values"; RFC 6066, RFC 7301, RFC 9849).
    private static let serverNameExtension: UInt16 = 0
    private static let alpnExtension: UInt16 = 16
    private static let echExtension: UInt16 = 0xFE0D
    private static let hostNameType: UInt8 = 0

    private var step = Step.header
    private var place = HandshakeReader.Place()
    /// Bytes of a field that are passed over before the next step; and whether they are a name's.
    private var skipped = 0
    private var isName = false
    /// Of the field or the extension that is read.
    private var fieldLength = 0
    private var type: UInt16 = 0
    /// The end of the extension around the list that is read.
    private var contentFloor = 0
    private var hello = ClientHello()
    private var types = ExtensionTypes()
    /// Where the extensions begin.
    private var block = HandshakeReader.Place()

    public init() {}

    /// - Parameter bytes: the stream from its start: those of the last look, and more.
    public mutating func look(at bytes: UnsafeBufferPointer<UInt8>, limit: Int) -> HelloVerdict {
        var reader = HandshakeReader(bytes, limit: limit, at: place)
        do throws(HandshakeReader.Stop) {
            while step != .done {
                if skipped > 0 { try pass(&reader) }
                place = reader.place
                try take(&reader)
            }
            return .ok(hello)
        } catch {
            switch error {
            case .incomplete(let needs): return .incomplete(needs: needs)
            case .notTLS: return .notTLS
            case .malformed(let flaw): return .malformed(flaw)
            case .tooLarge: return .tooLarge
            }
        }
    }

    /// Skips the available part of a field.
    private mutating func pass(_ reader: inout HandshakeReader) throws(HandshakeReader.Stop) {
        defer { place = reader.place }
        if isName { try reader.skipName(&skipped) } else { try reader.skip(&skipped) }
        isName = false
    }

    private mutating func take(_ reader: inout HandshakeReader) throws(HandshakeReader.Stop) {
        switch step {
        case .header:
            try reader.start(type: HelloScan.clientHelloType)
            step = .version
        case .version, .sessionID, .cipherSuites, .compressionMethods: try takeFixed(&reader)
        case .extensions: try takeExtensions(&reader)
        case .type: try takeType(&reader)
        case .length: try takeLength(&reader)
        case .contentEnd:
            try reader.leave(0)
            step = .type
        case .names, .nameType, .nameLength, .name: try takeServerName(&reader)
        case .protocols, .firstProtocol, .nextProtocol: try takeALPN(&reader)
        case .done: break
        }
    }

    private mutating func skip(_ count: Int, in reader: HandshakeReader, then next: Step) throws(HandshakeReader.Stop) {
        try reader.require(count)
        skipped = count
        step = next
    }

    private mutating func takeFixed(_ reader: inout HandshakeReader) throws(HandshakeReader.Stop) {
        switch step {
        case .version:
            guard try reader.u8() == TLSRecord.majorVersion else { throw .malformed(.clientVersion) }
            try skip(1 + 32, in: reader, then: .sessionID)  // the minor version and the random
        case .sessionID:
            let length = Int(try reader.u8())
            guard length <= 32 else { throw .malformed(.sessionID) }
            try skip(length, in: reader, then: .cipherSuites)
        case .cipherSuites:
            let length = Int(try reader.u16())
            guard length > 0, length % 2 == 0 else { throw .malformed(.cipherSuites) }
            try skip(length, in: reader, then: .compressionMethods)
        default:
            let length = Int(try reader.u8())
            guard length > 0 else { throw .malformed(.compressionMethods) }
            try skip(length, in: reader, then: .extensions)
        }
    }

    private mutating func takeExtensions(_ reader: inout HandshakeReader) throws(HandshakeReader.Stop) {
        // A hello of TLS 1.2 or older may end here.
        guard reader.hasMore else { return end(reader) }
        let length = Int(try reader.u16())
        guard length >= reader.left else { throw .malformed(.bytesAfterVector) }
        _ = try reader.enter(length)
        block = reader.place
        step = .type
    }

    private mutating func end(_ reader: HandshakeReader) {
        hello.totalBytes = reader.position
        step = .done
    }

    /// Extensions that say nothing to us, while they are whole and in one record: most of a hello, in one step each.
    private mutating func passOthers(_ reader: inout HandshakeReader) throws(HandshakeReader.Stop) {
        while let type = reader.skipExtension(unless: HelloScan.isRead) {
            guard types.insert(type) else { throw .malformed(.duplicateExtension) }
            // What was counted once is not looked at again.
            place = reader.place
        }
    }

    private static func isRead(_ type: UInt16) -> Bool {
        type == serverNameExtension || type == alpnExtension || type == echExtension
    }

    private mutating func takeType(_ reader: inout HandshakeReader) throws(HandshakeReader.Stop) {
        try passOthers(&reader)
        guard reader.hasMore else {
            if types.isCrowded { try checkAllTypes(reader) }
            return end(reader)
        }
        type = try reader.u16()
        // RFC 8446 §4.2: "There MUST NOT be more than one extension of the same type in a given extension block."
        guard types.insert(type) else { throw .malformed(.duplicateExtension) }
        step = .length
    }

    private mutating func takeLength(_ reader: inout HandshakeReader) throws(HandshakeReader.Stop) {
        // The block ends where the message does, so that leaving an extension goes back to 0.
        _ = try reader.enter(Int(try reader.u16()))
        switch type {
        case HelloScan.serverNameExtension: step = .names
        case HelloScan.alpnExtension: step = .protocols
        default:
            if type == HelloScan.echExtension { hello.hasECH = true }
            try skip(reader.rest, in: reader, then: .contentEnd)
        }
    }

    /// The same for a hello with more unusual types than one pass remembers: once more over the block, which is whole.
    @inline(never)
    private func checkAllTypes(_ whole: HandshakeReader) throws(HandshakeReader.Stop) {
        var reader = whole
        reader.place = block
        var types = AllExtensionTypes()
        while reader.hasMore {
            guard types.insert(try reader.u16()) else { throw .malformed(.duplicateExtension) }
            var length = Int(try reader.u16())
            try reader.skip(&length)
        }
    }

    /// RFC 6066 §3: a list of names, at most one of a type; only host_name was ever defined.
    private mutating func takeServerName(_ reader: inout HandshakeReader) throws(HandshakeReader.Stop) {
        switch step {
        case .names:
            contentFloor = try reader.enter(Int(try reader.u16()))
            guard reader.hasMore else { throw .malformed(.serverNameList) }
            step = .nameType
        case .nameType:
            guard reader.hasMore else { return try leaveList(&reader) }
            guard try reader.u8() == HelloScan.hostNameType, hello.serverName == nil else {
                throw .malformed(.serverNameType)
            }
            step = .nameLength
        case .nameLength:
            fieldLength = Int(try reader.u16())
            guard fieldLength > 0, fieldLength <= ClientHello.nameLimit else { throw .malformed(.serverNameLength) }
            try reader.require(fieldLength)
            step = .name
        default:
            hello.serverName = try reader.field(fieldLength)
            isName = true
            try skip(fieldLength, in: reader, then: .nameType)
        }
    }

    /// RFC 7301 §3.1: a list of at least one name of 1...255 bytes.
    private mutating func takeALPN(_ reader: inout HandshakeReader) throws(HandshakeReader.Stop) {
        switch step {
        case .protocols:
            fieldLength = Int(try reader.u16())
            guard fieldLength > 0 else { throw .malformed(.alpnList) }
            contentFloor = try reader.enter(fieldLength)
            step = .firstProtocol
        case .firstProtocol:
            hello.alpn = try reader.field(fieldLength)
            step = .nextProtocol
        default:
            guard reader.hasMore else { return try leaveList(&reader) }
            let length = Int(try reader.u8())
            guard length > 0 else { throw .malformed(.alpnList) }
            try skip(length, in: reader, then: .nextProtocol)
        }
    }

    private mutating func leaveList(_ reader: inout HandshakeReader) throws(HandshakeReader.Stop) {
        try reader.leave(contentFloor)
        step = .contentEnd
    }
}
