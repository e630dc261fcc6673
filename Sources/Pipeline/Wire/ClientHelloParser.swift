extension ClientHello {
    /// Looks for a ClientHello at the start of `bytes`: pure, without allocation, asked again from the start as more
    /// arrives. RFC 8446 §4.1.2 and §5.1, RFC 5246 §7.4.1.2, RFC 6066 §3, RFC 7301 §3.1.
    ///
    /// Nothing of a hello is given out before all of it has arrived and every length in it agrees with the rest.
    /// - Parameter limit: the most bytes that its records may take together, their headers included.
    public static func parse(_ bytes: UnsafeBufferPointer<UInt8>, limit: Int) -> HelloVerdict {
        var parser = ClientHelloParser(bytes, limit: limit)
        do throws(HandshakeReader.Stop) {
            return .ok(try parser.parse())
        } catch {
            switch error {
            case .incomplete(let needs): return .incomplete(needs: needs)
            case .notTLS: return .notTLS
            case .malformed(let flaw): return .malformed(flaw)
            case .tooLarge: return .tooLarge
            }
        }
    }
}

private struct ClientHelloParser {
    private static let clientHelloType: UInt8 = 1
    /// Extension types (IANA "TLS ExtensionType Values"; RFC 6066, RFC 7301, RFC 9849).
    private static let serverNameExtension: UInt16 = 0
    private static let alpnExtension: UInt16 = 16
    private static let echExtension: UInt16 = 0xFE0D
    private static let hostNameType: UInt8 = 0

    private var reader: HandshakeReader
    private var hello = ClientHello()

    init(_ bytes: UnsafeBufferPointer<UInt8>, limit: Int) {
        reader = HandshakeReader(bytes, limit: limit)
    }

    mutating func parse() throws(HandshakeReader.Stop) -> ClientHello {
        try reader.start(type: ClientHelloParser.clientHelloType)
        try fixedPart()
        // A hello of TLS 1.2 or older may end here.
        if reader.hasMore { try extensions() }
        hello.totalBytes = reader.position
        return hello
    }

    private mutating func fixedPart() throws(HandshakeReader.Stop) {
        guard try reader.u8() == TLSRecord.majorVersion else { throw .malformed(.clientVersion) }
        try reader.skip(1 + 32)  // the minor version and the random

        let sessionID = Int(try reader.u8())
        guard sessionID <= 32 else { throw .malformed(.sessionID) }
        try reader.skip(sessionID)

        let cipherSuites = Int(try reader.u16())
        guard cipherSuites > 0, cipherSuites % 2 == 0 else { throw .malformed(.cipherSuites) }
        try reader.skip(cipherSuites)

        let compressionMethods = Int(try reader.u8())
        guard compressionMethods > 0 else { throw .malformed(.compressionMethods) }
        try reader.skip(compressionMethods)
    }

    private mutating func extensions() throws(HandshakeReader.Stop) {
        let length = Int(try reader.u16())
        guard length >= reader.left else { throw .malformed(.bytesAfterVector) }
        let message = try reader.enter(length)
        let start = reader
        var types = ExtensionTypes()
        while reader.hasMore {
            let type = try reader.u16()
            // RFC 8446 §4.2: "There MUST NOT be more than one extension of the same type in a given extension block."
            guard types.insert(type) else { throw .malformed(.duplicateExtension) }
            let content = try reader.enter(Int(try reader.u16()))
            switch type {
            case ClientHelloParser.serverNameExtension: try serverName()
            case ClientHelloParser.alpnExtension: try alpn()
            case ClientHelloParser.echExtension:
                hello.hasECH = true
                try reader.skipRest()
            default: try reader.skipRest()
            }
            try reader.leave(content)
        }
        if types.isCrowded { try checkAllTypes(from: start) }
        try reader.leave(message)
    }

    /// The same for a hello with more unusual types than one pass remembers: once more over the block, which is whole.
    @inline(never)
    private func checkAllTypes(from start: HandshakeReader) throws(HandshakeReader.Stop) {
        var reader = start
        var types = AllExtensionTypes()
        while reader.hasMore {
            guard types.insert(try reader.u16()) else { throw .malformed(.duplicateExtension) }
            try reader.skip(Int(try reader.u16()))
        }
    }

    /// RFC 6066 §3: a list of names, at most one of a type; only host_name was ever defined.
    private mutating func serverName() throws(HandshakeReader.Stop) {
        let list = try reader.enter(Int(try reader.u16()))
        guard reader.hasMore else { throw .malformed(.serverNameList) }
        while reader.hasMore {
            let type = try reader.u8()
            guard type == ClientHelloParser.hostNameType, hello.serverName == nil else {
                throw .malformed(.serverNameType)
            }
            let length = Int(try reader.u16())
            guard length > 0, length <= ClientHello.nameLimit else { throw .malformed(.serverNameLength) }
            let name = try reader.enter(length)
            hello.serverName = try reader.field(length)
            try reader.skipName(length)
            try reader.leave(name)
        }
        try reader.leave(list)
    }

    /// RFC 7301 §3.1: a list of at least one name of 1...255 bytes.
    private mutating func alpn() throws(HandshakeReader.Stop) {
        let length = Int(try reader.u16())
        guard length > 0 else { throw .malformed(.alpnList) }
        let list = try reader.enter(length)
        hello.alpn = try reader.field(length)
        while reader.hasMore {
            let name = Int(try reader.u8())
            guard name > 0 else { throw .malformed(.alpnList) }
            try reader.skip(name)
        }
        try reader.leave(list)
    }
}
