import Pipeline

/// Writes a PROXY v2 header (proxy-protocol.txt §2.2) into memory that the caller lends.
///
/// Use: make one, `append` TLVs, then take ``finish()``. A header that doesn't fit is never partly valid: ``finish()``
/// answers nil once anything was refused.
public struct ProxyV2Writer {
    /// A whole `LOCAL` header: the connection is the proxy's own, as a health probe's (R18). For the control side.
    public static let local: [UInt8] = [UInt8](unsafeUninitializedCapacity: fixedLength) { memory, count in
        var writer = ProxyV2Writer(localIn: memory)
        count = writer.finish()?.count ?? 0
    }

    /// Bytes before the addresses.
    private static let fixedLength = 16

    private let memory: UnsafeMutableBufferPointer<UInt8>
    private var count = 0
    /// False once something did not fit.
    public private(set) var fits = true
    /// Where the checksum's value stands, to be filled in last.
    private var checksum: Int?

    /// A `PROXY` header for a TCP connection (R16).
    ///
    /// INET if both sides are IPv4, which includes IPv4-mapped addresses. INET6 otherwise: the two are one connection's,
    /// so they are of one family unless a sender has named an IPv4-mapped client of an IPv6 destination, and then what it
    /// said is the only truthful form.
    public init(
        proxy client: ClientAddress, to destination: DestinationAddress, in memory: UnsafeMutableBufferPointer<UInt8>
    ) {
        self.memory = memory
        let source = client.endpoint
        let target = destination.endpoint
        if source.address.isIPv4, target.address.isIPv4 {
            start(command: 0x21, family: 0x11)
            put(source.address.v4Bits)
            put(target.address.v4Bits)
        } else {
            start(command: 0x21, family: 0x21)
            put(source.address.high)
            put(source.address.low)
            put(target.address.high)
            put(target.address.low)
        }
        put(source.port)
        put(target.port)
    }

    /// A `LOCAL` header, see ``local``.
    public init(localIn memory: UnsafeMutableBufferPointer<UInt8>) {
        self.memory = memory
        start(command: 0x20, family: 0x00)
    }

    /// Adds a TLV.
    public mutating func append(_ type: UInt8, _ value: UnsafeBufferPointer<UInt8>) {
        guard let length = UInt16(exactly: value.count) else {
            fits = false
            return
        }
        put(type)
        put(length)
        for byte in value { put(byte) }
    }

    /// Adds a TLV that names an env, as ``EnvName/path`` does.
    public mutating func append(
        _ type: UInt8, org: UnsafeBufferPointer<UInt8>, app: UnsafeBufferPointer<UInt8>,
        env: UnsafeBufferPointer<UInt8>
    ) {
        put(type)
        let place = count
        put(UInt16(0))
        EnvName.forEachByte(org: org, app: app, env: env) { put($0) }
        guard fits else { return }
        guard let length = UInt16(exactly: count - place - 2) else {
            fits = false
            return
        }
        memory[place] = UInt8(length >> 8)
        memory[place + 1] = UInt8(length & 255)
    }

    /// Adds the name that the client asked for (`PP2_TYPE_AUTHORITY`).
    public mutating func append(authority name: ServerName) {
        name.withBytes { append(ProxyTLV.Kind.authority, $0) }
    }

    /// Adds the connection's name (`PP2_TYPE_UNIQUE_ID`).
    public mutating func append(_ id: UniqueID) {
        put(ProxyTLV.Kind.uniqueID)
        put(UInt16(UniqueID.length))
        put(id.prefix)
        put(id.serial)
    }

    /// Adds a checksum over the whole header (`PP2_TYPE_CRC32C`, §2.2.3), which ``finish()`` works out. Once.
    public mutating func appendChecksum() {
        guard checksum == nil else { return }
        put(ProxyTLV.Kind.crc32c)
        put(UInt16(4))
        checksum = count
        put(UInt32(0))
    }

    /// The header's bytes, in the lent memory; nil if they didn't fit it, or the length field.
    public mutating func finish() -> UnsafeBufferPointer<UInt8>? {
        guard fits, let length = UInt16(exactly: count - ProxyV2Writer.fixedLength) else { return nil }
        memory[14] = UInt8(length >> 8)
        memory[15] = UInt8(length & 255)
        let header = UnsafeBufferPointer(rebasing: memory[..<count])
        if let checksum { fill(in: checksum, of: header) }
        return header
    }

    private func fill(in offset: Int, of header: UnsafeBufferPointer<UInt8>) {
        for index in offset..<offset + 4 { memory[index] = 0 }
        var crc = CRC32C()
        crc.update(header)
        for index in 0..<4 { memory[offset + index] = UInt8(truncatingIfNeeded: crc.value >> UInt32(24 - 8 * index)) }
    }

    private mutating func start(command: UInt8, family: UInt8) {
        for index in 0..<ProxySignature.v2.count { put(ProxySignature.v2[index]) }
        put(command)
        put(family)
        put(UInt16(0))  // the length, known at the end
    }

    private mutating func put(_ byte: UInt8) {
        guard count < memory.count else {
            fits = false
            return
        }
        memory[count] = byte
        count += 1
    }

    private mutating func put<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) {
        for shift in stride(from: Value.bitWidth - 8, through: 0, by: -8) {
            put(UInt8(truncatingIfNeeded: value >> Value(shift)))
        }
    }
}
