/// Bytes for the backend before the client's first byte.
public struct Prelude {
    /// The most bytes of all stages together. It fits our header with every TLV at its longest, and is small enough
    /// that it, a connection's facts and a usual hello lie on two pages.
    public static let capacity = 2048
    private var storage: InlineArray<2048, UInt8>
    public private(set) var count: Int

    public init() {
        storage = InlineArray(repeating: 0)
        count = 0
    }

    public mutating func reset() { count = 0 }

    public mutating func append(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
        guard bytes.count <= Prelude.capacity - count else { return false }
        for byte in bytes {
            storage[count] = byte
            count += 1
        }
        return true
    }

    /// Lets `write` replace the content. False, and empty, if it returns nil or more than the capacity.
    public mutating func fill(_ write: (UnsafeMutableBufferPointer<UInt8>) -> Int?) -> Bool {
        let written = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: UInt8.self, capacity: Prelude.capacity) {
                write(UnsafeMutableBufferPointer(start: $0, count: Prelude.capacity))
            }
        }
        guard let written, written >= 0, written <= Prelude.capacity else {
            count = 0
            return false
        }
        count = written
        return true
    }

    /// Calls `body` with the bytes, valid for the call.
    public func withBytes<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        withUnsafePointer(to: storage) { pointer in
            pointer.withMemoryRebound(to: UInt8.self, capacity: Prelude.capacity) {
                body(UnsafeBufferPointer(start: $0, count: count))
            }
        }
    }
}
