import Pipeline

/// Writes a PROXY v2 header (proxy-protocol.txt §2.2) into memory that the caller lends.
///
/// Use: make one, `append` TLVs, then take ``finish()``. A header that doesn't fit is never partly valid: ``finish()``
/// answers nil once anything was refused.
package struct ProxyV2Writer {
    /// Bytes before the addresses.
    private static let fixedLength = 16

    private let memory: UnsafeMutableBufferPointer<UInt8>
    private var count = 0
    private var fits = true

    /// A `PROXY` header for a TCP connection (R16).
    ///
    /// INET if both sides are IPv4, which includes IPv4-mapped addresses. INET6 otherwise: one socket has one family,
    /// but a believed header from another proxy may name an IPv4 client of a connection to an IPv6 listener, and then
    /// its IPv4-mapped form is the only truthful one.
    package init(
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

    /// A `LOCAL` header: the connection is the proxy's own, as a health probe's (R18).
    package init(localIn memory: UnsafeMutableBufferPointer<UInt8>) {
        self.memory = memory
        start(command: 0x20, family: 0x00)
    }

    /// Adds a TLV.
    package mutating func append(_ type: UInt8, _ value: UnsafeBufferPointer<UInt8>) {
        guard let length = UInt16(exactly: value.count) else {
            fits = false
            return
        }
        put(type)
        put(length)
        for byte in value { put(byte) }
    }

    /// Adds the name that the client asked for (`PP2_TYPE_AUTHORITY`).
    package mutating func append(authority name: ServerName) {
        name.withBytes { append(ProxyTLV.Kind.authority, $0) }
    }

    /// The header's bytes, in the lent memory; nil if they didn't fit it, or the length field.
    package mutating func finish() -> UnsafeBufferPointer<UInt8>? {
        guard fits, let length = UInt16(exactly: count - ProxyV2Writer.fixedLength) else { return nil }
        memory[14] = UInt8(length >> 8)
        memory[15] = UInt8(length & 255)
        return UnsafeBufferPointer(rebasing: memory[..<count])
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
