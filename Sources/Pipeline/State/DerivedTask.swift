import Pipeline

/// Makes a file of what there is at one moment, on a thread.
public struct DerivedTask: Sendable {
    public typealias Put = (UnsafeRawBufferPointer) throws(StateFault) -> Void

    /// Of what it writes: another one is not read.
    public let version: UInt32
    /// 16 bytes: what it depends on besides the records.
    public let key: [UInt8]
    /// 16 bytes, which are among the records from that moment on: a store that has them has gone through it.
    public let nonce: [UInt8]
    /// Writes the content, a piece at a time. The answer is noted with it, at most 1 KiB; nil: there is nothing to be kept.
    let write: @Sendable (Put) throws(StateFault) -> [UInt8]?

    public init(
        version: UInt32, key: [UInt8], nonce: [UInt8],
        write: @escaping @Sendable (Put) throws(StateFault) -> [UInt8]?
    ) {
        (self.version, self.key, self.nonce, self.write) = (version, key, nonce, write)
    }
}
