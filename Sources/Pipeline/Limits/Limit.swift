import Pipeline

/// The key of a `limit` block.
public enum LimitKey: Sendable, Equatable {
    /// The client's network, with the prefix lengths for IPv6 (1...128) and IPv4 (1...32).
    case client(v6: UInt8, v4: UInt8)
    case route
    /// An env is org, app and env together: envs of different orgs that are called the same don't share an entry.
    case env
    case org
    /// The sending instance if known (R19); else the target instance: the first that is tried.
    case instance
    case listener
    /// Each connection by itself: for byte rates.
    case connection

    /// The facts that a stage needs for this key.
    public var needs: Set<Fact> {
        switch self {
        case .client, .listener, .connection: []
        case .route, .env, .org: [.route]
        case .instance: [.backend]
        }
    }

    /// An alternative to one of ``needs``: the known sender (R19).
    public var instead: [Fact: Fact] {
        switch self {
        case .client, .listener, .connection, .route: [:]
        case .env, .org: [.route: .identity]
        case .instance: [.backend: .identity]
        }
    }
}

/// `200/s burst 400`: the rate of new connections.
public struct ConnectionRate: Sendable, Equatable {
    /// The longest time to refill a burst.
    public static let longestRefill = TimeSpan.seconds(30 * 86400)

    /// At least 1.
    public let count: UInt64
    public let period: TimeSpan
    /// How many may begin together after a pause; at least 1.
    public let burst: UInt64

    /// - Parameter burst: nil: as many as begin in one second, at least 1.
    public init(count: UInt64, period: TimeSpan, burst: UInt64? = nil) {
        self.count = max(1, count)
        self.period = period
        let perSecond = max(1, count) / max(1, period.nanoseconds / 1_000_000_000)
        self.burst = max(1, burst ?? perSecond)
    }

    /// From one connection to the next at the full rate. Rounded up: a limit is never exceeded for a fraction.
    var interval: UInt64 {
        let (whole, rest) = period.nanoseconds.quotientAndRemainder(dividingBy: count)
        return max(1, rest == 0 ? whole : whole + 1)
    }
    /// The time to refill the whole burst.
    public var refill: TimeSpan {
        let (product, overflow) = interval.multipliedReportingOverflow(by: burst)
        return TimeSpan(nanoseconds: overflow ? .max : product)
    }
}

/// `10Mbit/s burst 1MiB`: how many bytes may pass.
public struct ByteRate: Sendable, Equatable {
    /// At least 1.
    public let bytesPerSecond: UInt64
    public let burst: UInt64

    /// - Parameter burst: nil: what passes in one second, at least 64 KiB, which is one read of the relay.
    public init(bytesPerSecond: UInt64, burst: UInt64? = nil) {
        self.bytesPerSecond = max(1, bytesPerSecond)
        self.burst = burst ?? max(65536, bytesPerSecond)
    }
}

/// A `limit` block, compiled. Two blocks with equal settings limit the same.
public struct LimitSettings: Sendable, Equatable {
    /// The most entries that a table may be given.
    public static let entryLimit: UInt64 = 16_000_000

    public var key: LimitKey
    public var rate: ConnectionRate?
    /// Connections at once; nil: any number.
    public var concurrent: UInt32?
    /// Client to backend.
    public var bytesUp: ByteRate?
    /// Backend to client.
    public var bytesDown: ByteRate?
    /// 1...``entryLimit``.
    public var entries: UInt64

    public init(
        key: LimitKey, rate: ConnectionRate? = nil, concurrent: UInt32? = nil, bytesUp: ByteRate? = nil,
        bytesDown: ByteRate? = nil, entries: UInt64
    ) {
        self.key = key
        self.rate = rate
        self.concurrent = concurrent
        self.bytesUp = bytesUp
        self.bytesDown = bytesDown
        self.entries = entries
    }

    public var isPaced: Bool { bytesUp != nil || bytesDown != nil }
    /// A connection counts in its entry until it ends, for the concurrent limit or the byte rates.
    public var isHeld: Bool { concurrent != nil || isPaced }
}

/// Why a connection may not begin.
public enum LimitRefusal: UInt8, Sendable, CaseIterable {
    case rateExceeded, tooManyConnections, tableFull
}

/// A table's decision on one connection.
public enum LimitAnswer: @unchecked Sendable {
    /// `reservation` is counted, and the caller must release it; `bucket` lives as long as the reservation.
    case admitted(reservation: UnsafePointer<ReservationCount>?, bucket: UnsafePointer<ByteBuckets>?)
    case refused(LimitRefusal)

    public var refusal: LimitRefusal? {
        guard case .refused(let refusal) = self else { return nil }
        return refusal
    }
}

/// An entry's state, for `explain`.
public struct LimitState: Sendable, Equatable {
    /// False: the table has no entry for this key, whose burst is full then.
    public let isKnown: Bool
    /// Connections that may begin at once; nil: no rate is set.
    public let available: UInt64?
    /// Connections that count on it now.
    public let active: UInt32
    /// The refusal of the next connection; nil: none.
    public let refusal: LimitRefusal?
}
