import Pipeline

/// The key of a flow (R21). IPv4 is IPv4-mapped.
public struct FlowKey: Hashable, Sendable {
    // index into the snapshot's instance directory, see InstanceDirectory; UInt32.max: unknown
    public var instance: UInt32
    public var source: IPAddress
    public var destination: IPAddress
    public var port: UInt16  // destination port; ICMP: type << 8 | code
    public var proto: UInt8  // IANA protocol number: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6

    public init(instance: UInt32, source: IPAddress, destination: IPAddress, port: UInt16, proto: UInt8) {
        self.instance = instance
        self.source = source
        self.destination = destination
        self.port = port
        self.proto = proto
    }
}
/// Growth of one flow since its last record. (origin, sequence) is unique in a run of the node, so that no record
/// counts twice.
public struct FlowRecord: Sendable {
    public var key: FlowKey
    public var connections: UInt32  // that began since the last record
    public var bytesOut: UInt64  // from the instance
    public var bytesIn: UInt64  // to the instance
    public var firstSeen: UInt64  // wall clock, ns since 1970
    public var lastSeen: UInt64
    public var origin: UInt16  // worker number; 0xFFFF conntrack
    public var sequence: UInt64

    public init(
        key: FlowKey, connections: UInt32, bytesOut: UInt64, bytesIn: UInt64, firstSeen: UInt64, lastSeen: UInt64,
        origin: UInt16, sequence: UInt64
    ) {
        self.key = key
        self.connections = connections
        self.bytesOut = bytesOut
        self.bytesIn = bytesIn
        self.firstSeen = firstSeen
        self.lastSeen = lastSeen
        self.origin = origin
        self.sequence = sequence
    }
}

extension SipHash {
    /// The hash of a flow's key.
    public static func hash(_ key: FlowKey, seed: HashSeed) -> UInt64 {
        hash(
            key.source.high, key.source.low, key.destination.high, key.destination.low,
            UInt64(key.instance) &<< 32 | UInt64(key.port) &<< 8 | UInt64(key.proto), seed: seed)
    }
}
