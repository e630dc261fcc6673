import Pipeline

/// Writes a PROXY v1 header, a line of text (proxy-protocol.txt §2.1), into memory that the caller lends.
public enum ProxyV1Writer {
    /// The longest line of the protocol, its CRLF included.
    public static let longest = 107
    /// For connections of the proxy's own, as a health probe's (R18): receivers go by the socket's addresses.
    public static let unknown = Array("PROXY UNKNOWN\r\n".utf8)

    /// A line for a TCP connection (R16): `TCP4` if both sides are IPv4, which includes IPv4-mapped addresses, else `TCP6`,
    /// as ``ProxyV2Writer`` chooses.
    /// - Returns: its length; nil: it does not fit.
    public static func write(
        proxy client: ClientAddress, to destination: DestinationAddress,
        in memory: UnsafeMutableBufferPointer<UInt8>
    ) -> Int? {
        let (source, target) = (client.endpoint, destination.endpoint)
        let isV4 = source.address.isIPv4 && target.address.isIPv4
        var line = LineWriter(memory: memory)
        line.put(isV4 ? "PROXY TCP4 " : "PROXY TCP6 ")
        line.put(source.address, isV4: isV4)
        line.put(" ")
        line.put(target.address, isV4: isV4)
        line.put(" ")
        line.put(decimal: source.port)
        line.put(" ")
        line.put(decimal: target.port)
        line.put("\r\n")
        return line.fits ? line.count : nil
    }
}

/// Text into lent memory, without an allocation: a header is written for each connection.
private struct LineWriter {
    let memory: UnsafeMutableBufferPointer<UInt8>
    var count = 0
    var fits = true

    mutating func put(_ byte: UInt8) {
        guard count < memory.count else {
            fits = false
            return
        }
        memory[count] = byte
        count += 1
    }

    mutating func put(_ text: StaticString) { text.withUTF8Buffer { for byte in $0 { put(byte) } } }

    mutating func put(decimal value: UInt16) { Digits.forEach(decimal: value) { put($0) } }

    /// - Parameter isV4: as a dotted quad; else as IPv6, an IPv4 address as the IPv4-mapped one that it is.
    mutating func put(_ address: IPAddress, isV4: Bool) {
        if address.isIPv4, !isV4 { put("::ffff:") }
        address.forEachByte { put($0) }
    }
}
