import Pipeline

/// What a `limit` block counts by.
public enum LimitKey: Sendable, Equatable {
    /// The believed client's network: the lengths of the IPv6 prefix (1...128) and of the IPv4 one (1...32).
    case client(v6: UInt8, v4: UInt8)
    case route
    /// An env is org, app and env together: envs of different orgs that are called the same don't share an entry.
    case env
    case org
    /// The instance that the connection comes from, where that is known (R19); else the one that it goes to: the first
    /// that is tried.
    case instance
    case listener

    /// What a stage must know before it can be asked.
    public var needs: Set<Fact> {
        switch self {
        case .client, .listener: []
        case .route, .env, .org: [.route]
        case .instance: [.backend]
        }
    }

    /// What does as well as one of ``needs``: whoever sends is known (R19).
    public var instead: [Fact: Fact] {
        switch self {
        case .client, .listener, .route: [:]
        case .env, .org: [.route: .identity]
        case .instance: [.backend: .identity]
        }
    }
}

/// `200/s burst 400`: how many connections may begin.
public struct ConnectionRate: Sendable, Equatable {
    /// The longest that a burst may take to come back.
    public static let longestRefill = TimeSpan.seconds(30 * 86400)

    /// At least 1.
    public let count: UInt64
    public let period: TimeSpan
    /// How many may begin at once after a pause; at least 1.
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
    /// How long it takes until the whole burst is there again.
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
    /// A connection counts on its entry until it ends: it is one of those at once, or obeys the entry's byte rates.
    public var isHeld: Bool { concurrent != nil || isPaced }
}

/// Why a connection may not begin.
public enum LimitRefusal: UInt8, Sendable, CaseIterable {
    case rateExceeded, tooManyConnections, tableFull
}

/// What a table says to one connection.
public enum LimitAnswer: @unchecked Sendable {
    /// `reservation` has been counted, and is the caller's to give back; `bucket` lives as long as it is held.
    case admitted(reservation: UnsafePointer<ReservationCount>?, bucket: UnsafePointer<ByteBuckets>?)
    case refused(LimitRefusal)

    public var refusal: LimitRefusal? {
        guard case .refused(let refusal) = self else { return nil }
        return refusal
    }
}

/// How an entry stands, for people.
public struct LimitState: Sendable, Equatable {
    /// False: the table holds nothing of this key, which then has its whole burst.
    public let isKnown: Bool
    /// Connections that may begin at once; nil: no rate is set.
    public let available: UInt64?
    /// Connections that count on it now.
    public let active: UInt32
    /// What the next connection would be refused for.
    public let refusal: LimitRefusal?
}
