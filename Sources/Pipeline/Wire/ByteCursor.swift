/// Reads big-endian fields from the front of a byte buffer. Never reads past its end: a field that isn't whole is nil
/// and moves nothing.
///
/// It holds only the buffer's address: the buffer must outlive the cursor and every slice taken from it.
public struct ByteCursor {
    private let bytes: UnsafeBufferPointer<UInt8>
    /// How many bytes were read.
    public private(set) var offset = 0

    public init(_ bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }

    public var remaining: Int { bytes.count - offset }

    public mutating func u8() -> UInt8? {
        guard remaining >= 1 else { return nil }
        defer { offset += 1 }
        return bytes[offset]
    }

    public mutating func u16() -> UInt16? { fixed() }
    public mutating func u32() -> UInt32? { fixed() }
    public mutating func u64() -> UInt64? { fixed() }

    /// The next `count` bytes; nil if there are fewer, or `count` is negative.
    public mutating func take(_ count: Int) -> UnsafeBufferPointer<UInt8>? {
        guard count >= 0, remaining >= count else { return nil }
        defer { offset += count }
        return UnsafeBufferPointer(rebasing: bytes[offset..<offset + count])
    }

    private mutating func fixed<Value: FixedWidthInteger & UnsignedInteger>() -> Value? {
        let width = Value.bitWidth / 8
        guard remaining >= width else { return nil }
        var value: Value = 0
        for index in offset..<offset + width { value = value << 8 | Value(truncatingIfNeeded: bytes[index]) }
        offset += width
        return value
    }
}
