/// Builds a small ClientHello as a TLS 1.3 client would send it (RFC 8446 §4.1.2), to ask a chain what it would do.
package enum SyntheticHello {
    /// - Parameter serverName: the bytes of the host_name; nil: no server_name extension. At most 255.
    package static func hello(serverName: [UInt8]?) -> [UInt8] {
        var extensions: [UInt8] = []
        if let name = serverName {
            let entry = [0] + vector16(name)
            extensions += field(0x0000, vector16(entry))
        }
        extensions += field(0x002B, [2, 0x03, 0x04])
        extensions += field(0x000A, vector16([0x00, 0x1D]))
        extensions += field(0x000D, vector16([0x04, 0x03, 0x08, 0x04]))
        var body: [UInt8] = [0x03, 0x03]
        body += [UInt8](repeating: 0, count: 32)
        body += [0]
        body += vector16([0x13, 0x01, 0x13, 0x02])
        body += [1, 0]
        body += vector16(extensions)
        let handshake = [1, 0] + vector16(body)
        return [0x16, 0x03, 0x01] + vector16(handshake)
    }

    private static func field(_ type: UInt16, _ content: [UInt8]) -> [UInt8] {
        [UInt8(type >> 8), UInt8(type & 0xFF)] + vector16(content)
    }

    private static func vector16(_ content: [UInt8]) -> [UInt8] {
        let kept = content.prefix(0xFFFF)
        return [UInt8(kept.count >> 8), UInt8(kept.count & 0xFF)] + kept
    }
}
