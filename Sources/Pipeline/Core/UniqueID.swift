/// The name of one connection among all connections of all nodes: in the `PP2_TYPE_UNIQUE_ID` that backends get, and in
/// the log line. Sixteen bytes: eight drawn at random when the process started, then the connection's serial number.
public struct UniqueID: Sendable, Equatable {
    /// Bytes of one.
    public static let length = 16
    /// This process's half.
    public static let processPrefix = UInt64.random(in: .min ... .max)

    public let prefix: UInt64
    public let serial: UInt64

    public init(prefix: UInt64 = UniqueID.processPrefix, serial: UInt64) {
        self.prefix = prefix
        self.serial = serial
    }

    /// Byte `index` (0...15): both halves in network order, so that the last eight are the log's `id`.
    public func byte(_ index: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: (index < 8 ? prefix : serial) >> UInt64((7 - (index & 7)) * 8))
    }
}
