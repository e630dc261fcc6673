/// Builds ClientHellos for tests, well-formed unless told otherwise.
package struct HelloBuilder {
    /// The server name's bytes; nil: no server_name extension.
    package var name: [UInt8]?
    package var alpn: [String] = []
    package var hasECH = false
    /// Bytes of a padding extension in front of the others.
    package var padding = 0
    /// Empty extensions of these types, after all others.
    package var more: [UInt16] = []
    /// How the message is cut into records: their payload lengths; what is left goes into one more.
    package var recordLengths: [Int] = []

    package init(_ name: String? = nil) { self.name = name.map { Array($0.utf8) } }

    /// The handshake message, without records.
    package var message: [UInt8] {
        var body: [UInt8] = [3, 3] + [UInt8](repeating: 0xAB, count: 32)
        body += [32] + [UInt8](repeating: 0xCD, count: 32)
        body += vector16([0x13, 0x01, 0x13, 0x02, 0xC0, 0x2F]) + [1, 0]
        body += vector16(extensions)
        return [1, UInt8(body.count >> 16 & 255), UInt8(body.count >> 8 & 255), UInt8(body.count & 255)] + body
    }

    /// The stream.
    package var bytes: [UInt8] {
        var rest = message[...]
        var stream: [UInt8] = []
        for length in recordLengths + [rest.count] where length > 0 {
            let payload = rest.prefix(min(length, 1 << 14))
            guard !payload.isEmpty else { break }
            stream += [22, 3, 1] + vector16(Array(payload))
            rest = rest.dropFirst(payload.count)
        }
        return stream
    }

    private var extensions: [UInt8] {
        var all: [UInt8] = []
        if padding > 0 { all += extensionOf(21, [UInt8](repeating: 0, count: padding)) }
        all += extensionOf(0x2A2A, [])
        if let name { all += extensionOf(0, vector16([0] + vector16(name))) }
        if !alpn.isEmpty {
            all += extensionOf(16, vector16(alpn.flatMap { [UInt8($0.utf8.count & 255)] + Array($0.utf8) }))
        }
        if hasECH { all += extensionOf(0xFE0D, [0, 1, 2, 3]) }
        all += extensionOf(43, [2, 3, 4])
        for type in more { all += extensionOf(type, []) }
        return all
    }

    private func extensionOf(_ type: UInt16, _ content: [UInt8]) -> [UInt8] {
        [UInt8(type >> 8), UInt8(type & 255)] + vector16(content)
    }

    private func vector16(_ content: [UInt8]) -> [UInt8] {
        [UInt8(content.count >> 8 & 255), UInt8(content.count & 255)] + content
    }
}
