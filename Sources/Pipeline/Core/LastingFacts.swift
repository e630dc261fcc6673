/// What is known of a connection, and held for it, for as long as it lives. One owner: whoever keeps the connection, a worker
/// in its slot. ``ConnectionFacts`` refer to it, stages read it there and change it through ``Effects``, and nothing of it is
/// copied when the first bytes' block goes.
@frozen public struct LastingFacts: @unchecked Sendable {
    /// Node-unique number of the connection, for unique-id TLVs and logs.
    public var serial: UInt64 = 0
    public var peer = PeerAddress(Endpoint(.unspecified, 0))
    // Each address leaves room for something small behind it.
    /// Index of the listener in its program.
    public var listener: UInt16 = 0
    /// Of the listener.
    public var hint = ProtocolHint.tcpRaw
    public var sniff = SniffOutcome.notAsked
    /// The last refusal of a stage in shadow mode (R28); all ones: there was none.
    public var shadowed = ReasonCode(rawValue: .max)
    /// The peer, unless a stage believes somebody who says otherwise. Settled once all stages have passed that wait: limits and
    /// shares go by it.
    public var client = ClientAddress(Endpoint(.unspecified, 0))
    /// How long it has waited in queues for a place, in milliseconds.
    public var queued: UInt32 = 0
    public var destination = DestinationAddress(Endpoint(.unspecified, 0))
    /// How long both sides may be quiet while the relay is open both ways, in milliseconds; 0: for ever (R14).
    public var idleTimeout: UInt32 = 0
    /// Which instance the connection comes from (R19); nil: unknown, or not asked. Pinned.
    public private(set) var identity: UnsafePointer<InstanceIdentity>?
    public var reservations = Reservations()
    public var buckets = ConnectionBuckets()

    @inlinable public init() {}

    public init(
        peer: PeerAddress, destination: DestinationAddress, listener: UInt16, hint: ProtocolHint, serial: UInt64
    ) {
        self.serial = serial
        self.peer = peer
        self.listener = listener
        self.hint = hint
        client = ClientAddress(peer.endpoint)
        self.destination = destination
    }

    /// Pins an identity until ``release()``. The first one stays: a newer table may name the same instance by another.
    mutating func pin(_ identity: UnsafePointer<InstanceIdentity>) {
        guard self.identity == nil else { return }
        identity.pointee.users.add()
        self.identity = identity
    }

    /// The connection's end: gives back what it holds, once.
    public mutating func release() {
        reservations.release()
        identity?.pointee.users.remove()
        identity = nil
    }
}
