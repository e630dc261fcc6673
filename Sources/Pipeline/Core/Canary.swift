/// `canary N% for T`: a reload's new program takes a share of new connections first (R29).
public struct CanarySettings: Sendable, Equatable {
    /// What is given to one program whole.
    public enum Unit: String, Sendable, CaseIterable {
        /// A client's network (/64, IPv4 by /32): one client sees one program.
        case client
        /// Each connection by itself: behind a balancer all peers are a few.
        case connection
    }

    public var percent: Int
    public var time: TimeSpan
    public var unit: Unit

    public init(percent: Int, time: TimeSpan, unit: Unit = .client) {
        (self.percent, self.time, self.unit) = (percent, time, unit)
    }

    /// As the config has it.
    public var text: String {
        "\(percent)% for \(time.configText)" + (unit == .client ? "" : " by \(unit.rawValue)")
    }
}

/// Which new connections run on the new program, and where both programs' outcomes are counted. Trivial.
public struct CanaryShare: @unchecked Sendable {
    /// Unmanaged, as ``Snapshot/program`` is.
    public let program: Unmanaged<Program>
    public let readsWallClock: Bool
    /// Valid as long as the snapshot.
    public let evidence: UnsafePointer<CanaryEvidence>
    private let seed: HashSeed
    /// Of 2^32.
    private let threshold: UInt64
    private let isByConnection: Bool

    /// - Parameter seed: new for each canary, so that another one meets other clients, and none can choose.
    public init(
        program: Program, _ settings: CanarySettings, seed: HashSeed, evidence: UnsafePointer<CanaryEvidence>
    ) {
        self.program = .passUnretained(program)
        readsWallClock = program.capabilities.contains(.readsWallClock)
        self.evidence = evidence
        self.seed = seed
        threshold = UInt64(clamping: settings.percent) << 32 / 100
        isByConnection = settings.unit == .connection
    }

    /// Where a connection belongs; the same for every connection of a client, unless each counts by itself.
    public func place(of peer: Endpoint) -> CanaryPlace {
        let network = peer.address.network
        let port = isByConnection ? UInt64(peer.port) : 0
        // A balancer's connections differ in their ports alone.
        let low = isByConnection ? peer.address.low : network.low
        let hash = SipHash.hash(network.high, low, port, 0, 0, seed: seed)
        return CanaryPlace(
            side: hash >> 32 < threshold ? .canary : .others,
            bucket: Int(truncatingIfNeeded: hash) & (CanaryEvidence.buckets - 1))
    }
}

/// A side of the comparison, and a part of its clients.
public struct CanaryPlace: Sendable, Equatable {
    public let side: CanarySide
    /// Clients are spread over ``CanaryEvidence/buckets``: how much these differ from each other is the noise that a
    /// difference between the sides is compared with.
    public let bucket: Int
}

public enum CanarySide: Int, Sendable, CaseIterable {
    case canary, others
}
