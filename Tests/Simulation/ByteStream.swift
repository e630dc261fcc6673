import Glibc

/// What one peer sends, by position: a head of its own, then a pattern that differs at every position of a large
/// period. A byte that is lost, doubled, moved or taken from another connection does not compare equal.
struct ByteStream {
    let head: [UInt8]
    /// Where in the pattern the bytes after the head begin.
    let offset: Int

    private static let period = 65521
    private static let longestRun = 1 << 16
    private static let pattern: [UInt8] = {
        var random = SeededRandom(seed: 7)
        var bytes = (0..<period).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        bytes += bytes.prefix(longestRun)
        while bytes.count < period + longestRun { bytes += bytes.prefix(period + longestRun - bytes.count) }
        return bytes
    }()

    /// Writes the bytes from `position` on, as many as fit.
    func copy(from position: Int, into target: UnsafeMutableRawBufferPointer) {
        walk(position, target.count) { piece, at in
            (target.baseAddress.unsafelyUnwrapped + at).copyMemory(
                from: piece.baseAddress.unsafelyUnwrapped, byteCount: piece.count)
            return true
        }
    }

    /// Whether `bytes` are what stands at `position`.
    func matches(_ bytes: UnsafeRawBufferPointer, at position: Int) -> Bool {
        walk(position, bytes.count) { piece, at in
            memcmp(piece.baseAddress.unsafelyUnwrapped, bytes.baseAddress.unsafelyUnwrapped + at, piece.count) == 0
        }
    }

    @discardableResult
    private func walk(_ position: Int, _ count: Int, _ body: (UnsafeRawBufferPointer, Int) -> Bool) -> Bool {
        var done = 0
        while done < count {
            let at = position + done
            let inHead = at < head.count
            let start = inHead ? at : (at - head.count + offset) % ByteStream.period
            let length = min(count - done, inHead ? head.count - at : ByteStream.longestRun)
            let bytes = inHead ? head : ByteStream.pattern
            let fine = bytes.withUnsafeBytes {
                body(UnsafeRawBufferPointer(rebasing: $0[start..<start + length]), done)
            }
            guard fine else { return false }
            done += length
        }
        return true
    }
}

/// First bytes that clients may send.
enum FirstBytes {
    /// A TLS 1.2 ClientHello of one record with the SNI `name`, padded to at least `size` bytes.
    static func clientHello(name: String, size: Int) -> [UInt8] {
        func vector16(_ body: [UInt8]) -> [UInt8] {
            [UInt8(truncatingIfNeeded: body.count >> 8), UInt8(truncatingIfNeeded: body.count)] + body
        }
        func handshake(padding: Int) -> [UInt8] {
            let serverName = [0, 0] + vector16(vector16([0] + vector16(Array(name.utf8))))
            let filler = padding > 0 ? [0, 21] + vector16([UInt8](repeating: 0, count: padding)) : []
            let random = [UInt8](repeating: 0x5A, count: 32)
            let body: [UInt8] =
                [3, 3] + random + [0] + vector16([0x13, 0x01, 0xC0, 0x2F]) + [1, 0]
                + vector16(serverName + filler)
            return [1, 0] + vector16(body)
        }
        let bare = handshake(padding: 0)
        let message = bare.count + 9 >= size ? bare : handshake(padding: size - bare.count - 9)
        return [0x16, 3, 1] + vector16(message)
    }

    /// An alert: unexpected_message.
    static let rejection: [UInt8] = [0x15, 3, 1, 0, 2, 2, 10]

    /// What a backend may say to a PROXY header.
    static func answer(_ random: inout SeededRandom) -> [UInt8] {
        switch random.below(6) {
        case 0: rejection
        case 1: Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8)
        case 2: Array("HTTP/1.1 200 OK\r\n\r\n".utf8)
        case 3: Array("220 mail\r\n".utf8)
        default: []
        }
    }

    static let proxyV1 = Array("PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n".utf8)
    static let http = Array("GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n".utf8)
}
