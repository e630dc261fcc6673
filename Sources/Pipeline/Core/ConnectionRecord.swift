/// One ended connection, as a worker hands it to the log: plain bytes, no reference, formatted elsewhere.
package struct ConnectionRecord: @unchecked Sendable {
    package var serial: UInt64 = 0
    package var worker: UInt16 = 0
    package var listener: UInt16 = 0
    package var reason = ReasonCode(rawValue: 0)
    package var sniff = SniffOutcome.notAsked
    /// How many backends were tried.
    package var attempts: UInt8 = 0
    package var shadowed: ReasonCode?
    package var peer = Endpoint(.unspecified, 0)
    package var client = Endpoint(.unspecified, 0)
    package var destination = Endpoint(.unspecified, 0)
    package var backend: Endpoint?
    package var bytesToUpstream: UInt64 = 0
    package var bytesToClient: UInt64 = 0
    /// Wall clock at the end, nanoseconds since 1970.
    package var endedAt: UInt64 = 0
    /// Accept to end.
    package var duration = TimeSpan.zero
    /// Accept to backend connected; zero if it never was.
    package var timeToConnect = TimeSpan.zero
    /// The route's id, and its env, cut to fit.
    package var route = ShortText<48>()
    package var env = ShortText<48>()
    package var serverName = ShortText<62>()
    /// Which instance it came from (R19), if that is known; ``env`` is then its env.
    package var instance = ShortText<48>()
    /// The same as a number, see ``InstanceIdentity/number``.
    package var instanceNumber = InstanceIdentity.unknown
    /// A stage recorded it as a flow as well.
    package var isAccounted = false
    package init() {}
}

/// Text in place, cut to `capacity` bytes.
package struct ShortText<let capacity: Int>: Sendable {
    private var bytes: InlineArray<capacity, UInt8>
    package private(set) var count: UInt8 = 0
    /// True if the text was longer than fits.
    package private(set) var isCut = false

    package init() { bytes = InlineArray(repeating: 0) }

    package mutating func set(_ source: UnsafeBufferPointer<UInt8>) {
        let length = min(source.count, capacity, 255)
        for i in 0..<length { bytes[i] = source[i] }
        count = UInt8(length)
        isCut = source.count > length
    }

    /// Calls `body` with the text's bytes, valid for the call.
    package func withBytes<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        withUnsafePointer(to: bytes) { pointer in
            pointer.withMemoryRebound(to: UInt8.self, capacity: capacity) {
                body(UnsafeBufferPointer(start: $0, count: Int(count)))
            }
        }
    }

    package var string: String { withBytes { String(decoding: $0, as: UTF8.self) } }
}
