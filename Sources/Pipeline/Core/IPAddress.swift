/// An IPv6 or IPv4 address in one canonical form: IPv4 is held IPv4-mapped (`::ffff:a.b.c.d`), so the same
/// host never compares unequal to itself, whichever socket family reported it.
@frozen public struct IPAddress: Hashable, Sendable {
    /// The first eight bytes, in host order.
    public let high: UInt64
    /// The last eight bytes, in host order.
    public let low: UInt64

    @inlinable public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// An IPv4 address from its 32 bits in host order.
    @inlinable public init(v4 bits: UInt32) {
        self.init(high: 0, low: 0xFFFF_0000_0000 | UInt64(bits))
    }

    /// `::`.
    public static let unspecified = IPAddress(high: 0, low: 0)
    /// `0.0.0.0`.
    public static let unspecifiedV4 = IPAddress(v4: 0)

    /// True for IPv4 and IPv4-mapped addresses, which are the same thing here.
    @inlinable public var isIPv4: Bool { high == 0 && low >> 32 == 0xFFFF }

    /// The 32 bits of an IPv4 address in host order; meaningless unless ``isIPv4``.
    @inlinable public var v4Bits: UInt32 { UInt32(truncatingIfNeeded: low) }

    /// `::` or `0.0.0.0`: as a listener, every address of its family.
    @inlinable public var isUnspecified: Bool { self == .unspecified || (isIPv4 && v4Bits == 0) }

    /// The one of its own family.
    @inlinable public var unspecifiedOfFamily: IPAddress {
        isIPv4 ? IPAddress(v4: 0) : IPAddress(high: 0, low: 0)
    }

    /// The network that stands for one client: the /64, or the IPv4 address itself.
    public var network: IPAddress { isIPv4 ? self : IPAddress(high: high, low: 0) }

    /// Byte `index` (0...15) of the IPv6 form, in network order.
    @inlinable public func byte(_ index: Int) -> UInt8 {
        let word = index < 8 ? high : low
        return UInt8(truncatingIfNeeded: word >> UInt64((7 - (index & 7)) * 8))
    }
}

extension IPAddress: Comparable {
    @inlinable public static func < (a: IPAddress, b: IPAddress) -> Bool {
        a.high != b.high ? a.high < b.high : a.low < b.low
    }
}

/// An address and a TCP port; of a backend also a Unix socket (``UnixSockets``). The data path uses the roles below instead of
/// the bare type.
@frozen public struct Endpoint: Hashable, Sendable {
    public let address: IPAddress
    public let port: UInt16

    @inlinable public init(_ address: IPAddress, _ port: UInt16) {
        self.address = address
        self.port = port
    }
}

/// The remote endpoint of an accepted socket.
@frozen public struct PeerAddress: Hashable, Sendable {
    public let endpoint: Endpoint
    @inlinable public init(_ endpoint: Endpoint) { self.endpoint = endpoint }
}

/// The client: the peer, or the source in a trusted sender's PROXY header.
@frozen public struct ClientAddress: Hashable, Sendable {
    public let endpoint: Endpoint
    @inlinable public init(_ endpoint: Endpoint) { self.endpoint = endpoint }
}

/// The endpoint that the client connected to.
@frozen public struct DestinationAddress: Hashable, Sendable {
    public let endpoint: Endpoint
    @inlinable public init(_ endpoint: Endpoint) { self.endpoint = endpoint }
}

/// The endpoint that the node connects to.
@frozen public struct BackendAddress: Hashable, Sendable {
    public let endpoint: Endpoint
    @inlinable public init(_ endpoint: Endpoint) { self.endpoint = endpoint }
}
