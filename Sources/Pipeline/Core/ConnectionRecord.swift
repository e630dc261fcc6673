/// One ended connection, as a worker passes it to the log: plain bytes without references, formatted elsewhere.
public struct ConnectionRecord: @unchecked Sendable {
    public var serial: UInt64 = 0
    public var worker: UInt16 = 0
    public var listener: UInt16 = 0
    public var reason = ReasonCode(rawValue: 0)
    public var sniff = SniffOutcome.notAsked
    /// How many backends were tried.
    public var attempts: UInt8 = 0
    public var shadowed: ReasonCode?
    public var peer = Endpoint(.unspecified, 0)
    public var client = Endpoint(.unspecified, 0)
    public var destination = Endpoint(.unspecified, 0)
    public var backend: Endpoint?
    public var bytesToUpstream: UInt64 = 0
    public var bytesToClient: UInt64 = 0
    /// Wall clock at the end, nanoseconds since 1970.
    public var endedAt: UInt64 = 0
    /// Accept to end.
    public var duration = TimeSpan.zero
    /// Accept to backend connected; zero without a connected backend.
    public var timeToConnect = TimeSpan.zero
    /// In queues for a place; part of ``timeToConnect``.
    public var queued = TimeSpan.zero
    /// The route's id, cut to fit.
    public var route = ShortText<48>()
    /// The owner: all three identify an env. Cut to fit.
    public var org = ShortText<48>()
    public var app = ShortText<48>()
    public var env = ShortText<48>()
    public var serverName = ShortText<62>()
    /// The sending instance (R19), if known; without a route, ``org``, ``app`` and ``env`` are the instance's.
    public var instance = ShortText<48>()
    /// The same as a number, see ``InstanceIdentity/number``.
    public var instanceNumber = InstanceIdentity.unknown
    /// The interface index of an intercepted connection without a known instance; else 0.
    public var interface: UInt32 = 0
    /// True if a backend was connected; else it was refused, or given up before.
    public var isRelayed = false
    /// A stage recorded it as a flow as well.
    public var isAccounted = false
    /// How long ``destination`` counts as unreachable from this host (ADR 0049). Zero: not known, or not asked.
    public var unreachableFor = TimeSpan.zero
    public init() {}

    public mutating func setEnv(org: FrozenText, app: FrozenText, env: FrozenText) {
        self.org.set(org.buffer)
        self.app.set(app.buffer)
        self.env.set(env.buffer)
    }
}

/// Text in place, cut to `capacity` bytes.
public struct ShortText<let capacity: Int>: Sendable {
    private var bytes: InlineArray<capacity, UInt8>
    public private(set) var count: UInt8 = 0
    /// True if the text was longer than fits.
    public private(set) var isCut = false

    public init() { bytes = InlineArray(repeating: 0) }

    public mutating func set(_ source: UnsafeBufferPointer<UInt8>) {
        let length = min(source.count, capacity, 255)
        for i in 0..<length { bytes[i] = source[i] }
        count = UInt8(length)
        isCut = source.count > length
    }

    /// Calls `body` with the text's bytes, valid for the call.
    public func withBytes<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        withUnsafePointer(to: bytes) { pointer in
            pointer.withMemoryRebound(to: UInt8.self, capacity: capacity) {
                body(UnsafeBufferPointer(start: $0, count: Int(count)))
            }
        }
    }

    public var string: String { withBytes { String(decoding: $0, as: UTF8.self) } }
}
