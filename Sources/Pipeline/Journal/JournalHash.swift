import CNettle
import Pipeline

/// SHA-256 over bytes as they come (FIPS 180-4), by Nettle. A copy goes on by itself.
package struct SHA256 {
    private var context = sha256_ctx()

    package init() { nettle_sha256_init(&context) }

    package mutating func add(_ bytes: UnsafeRawBufferPointer) {
        guard let first = bytes.baseAddress else { return }
        nettle_sha256_update(&context, bytes.count, first.assumingMemoryBound(to: UInt8.self))
    }

    /// Of what has come so far; more may come.
    package var hash: JournalHash {
        var copy = context
        var digest = [UInt8](repeating: 0, count: JournalHash.byteCount)
        nettle_sha256_digest(&copy, digest.count, &digest)
        return JournalHash(digest)
    }

    package static func hash(_ bytes: UnsafeRawBufferPointer) -> JournalHash {
        var all = SHA256()
        all.add(bytes)
        return all.hash
    }
}

/// A SHA-256.
package struct JournalHash: Hashable, Sendable, CustomStringConvertible {
    static let byteCount = 32
    /// Digits of its text.
    static let textCount = 64
    /// What the first line of all follows.
    static let none = JournalHash([UInt8](repeating: 0, count: byteCount))

    private let bytes: [UInt8]

    fileprivate init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// 64 digits, of lower case alone: one hash has one text.
    init?(_ text: UnsafeRawBufferPointer) {
        guard text.count == JournalHash.textCount else { return nil }
        var bytes: [UInt8] = []
        for index in 0..<JournalHash.byteCount {
            guard let high = JournalHash.digit(text[2 * index]), let low = JournalHash.digit(text[2 * index + 1]) else {
                return nil
            }
            bytes.append(high << 4 | low)
        }
        self.bytes = bytes
    }

    package init?(_ text: String) {
        guard let hash = Array(text.utf8).withUnsafeBytes({ JournalHash($0) }) else { return nil }
        self = hash
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        (0x41...0x46).contains(byte) ? nil : Digits.value(ofHex: byte)
    }

    package var text: [UInt8] { bytes.flatMap { [Digits.hex($0 >> 4), Digits.hex($0 & 15)] } }
    package var description: String { String(decoding: text, as: UTF8.self) }
}
