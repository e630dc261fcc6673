/// A canonical hostname in place, without allocation: lower case, no trailing dot, at most 253 octets (R3).
@frozen public struct ServerName: Sendable {
    /// The longest canonical name, in octets.
    public static let capacity = 253

    public var bytes: InlineArray<254, UInt8>
    /// 0 (no name)...253.
    public private(set) var count: Int

    public init() {
        bytes = InlineArray(repeating: 0)
        count = 0
    }

    public var isEmpty: Bool { count == 0 }

    /// Canonicalizes a name as it arrives on the wire: ASCII only, LDH plus underscore, one trailing dot removed.
    /// False, and no name, if it is anything else: too long, an empty label, an IP literal, a byte outside ASCII.
    public mutating func set(wire raw: UnsafeBufferPointer<UInt8>) -> Bool {
        count = 0
        var length = raw.count
        if length > 0, raw[length - 1] == 0x2E { length -= 1 }
        guard length > 0, length <= ServerName.capacity else { return false }
        var label = 0
        var labelIsNumeric = true
        for i in 0..<length {
            var byte = raw[i]
            if byte == 0x2E {
                guard label > 0 else { return false }
                label = 0
                labelIsNumeric = true
            } else {
                if byte >= 0x41, byte <= 0x5A { byte |= 0x20 }
                guard ServerName.isNameByte(byte) else { return false }
                label += 1
                guard label <= 63 else { return false }
                if byte < 0x30 || byte > 0x39 { labelIsNumeric = false }
            }
            bytes[i] = byte
        }
        // A last label of digits only is an IPv4 literal or a misspelt one (WHATWG URL, "ends in a number").
        guard label > 0, !labelIsNumeric else { return false }
        count = length
        return true
    }

    @inlinable public static func isNameByte(_ byte: UInt8) -> Bool {
        (byte >= 0x61 && byte <= 0x7A) || (byte >= 0x30 && byte <= 0x39) || byte == 0x2D || byte == 0x5F
    }

    /// Calls `body` with the name's bytes, valid for the call.
    @inlinable public func withBytes<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        withUnsafePointer(to: self.bytes) { pointer in
            pointer.withMemoryRebound(to: UInt8.self, capacity: 254) {
                body(UnsafeBufferPointer(start: $0, count: count))
            }
        }
    }

    public var string: String { withBytes { String(decoding: $0, as: UTF8.self) } }
}
