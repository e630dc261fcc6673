extension ClientHello {
    /// True if the client offers the ALPN protocol `wanted`. Copies nothing, also where the list crosses a record
    /// boundary. `bytes` must be what the hello was parsed from.
    public func offers(_ wanted: UnsafeBufferPointer<UInt8>, in bytes: UnsafeBufferPointer<UInt8>) -> Bool {
        guard let alpn, var cursor = HelloFieldCursor(alpn, in: bytes) else { return false }
        while let length = cursor.next() {
            var isWanted = Int(length) == wanted.count
            for index in 0..<Int(length) {
                guard let byte = cursor.next() else { return false }
                if isWanted, byte != wanted[index] { isWanted = false }
            }
            if isWanted { return true }
        }
        return false
    }
}

/// Reads a field byte by byte, over the record headers in it.
private struct HelloFieldCursor {
    private let bytes: UnsafeBufferPointer<UInt8>
    private var position: Int
    /// Where the record ends that ``position`` is in.
    private var recordEnd: Int
    private var left: Int

    /// Nil if the field is not in `bytes`.
    init?(_ field: HelloField, in bytes: UnsafeBufferPointer<UInt8>) {
        guard field.offset >= 0, field.length >= 0, field.recordEnd <= bytes.count else { return nil }
        self.bytes = bytes
        position = field.offset
        recordEnd = field.recordEnd
        left = field.length
    }

    /// Nil at the end of the field.
    mutating func next() -> UInt8? {
        guard left > 0 else { return nil }
        if position == recordEnd {
            let body = recordEnd + TLSRecord.headerLength
            guard body <= bytes.count else { return nil }
            position = body
            recordEnd = body + (Int(bytes[body - 2]) << 8 | Int(bytes[body - 1]))
        }
        guard position < recordEnd, position < bytes.count else { return nil }
        defer {
            position += 1
            left -= 1
        }
        return bytes[position]
    }
}
