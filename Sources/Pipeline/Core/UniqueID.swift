/// The name of one connection among all connections of all nodes: in the `PP2_TYPE_UNIQUE_ID` that backends get, and in
/// the log line. Sixteen bytes: eight drawn at random when the process started, then the connection's serial number.
package struct UniqueID: Sendable, Equatable {
    /// Bytes of one.
    package static let length = 16
    /// This process's half.
    package static let processPrefix = UInt64.random(in: .min ... .max)

    package let prefix: UInt64
    package let serial: UInt64

    package init(prefix: UInt64 = UniqueID.processPrefix, serial: UInt64) {
        self.prefix = prefix
        self.serial = serial
    }

    /// Byte `index` (0...15): both halves in network order, so that the last eight are the log's `id`.
    package func byte(_ index: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: (index < 8 ? prefix : serial) >> UInt64((7 - (index & 7)) * 8))
    }
}
