import Pipeline

/// A connection's phase: the single source of truth.
enum Phase: UInt8 {
    case free
    /// Waiting for the client's first bytes.
    case peeking
    /// Waiting for a place of a limit, in a queue.
    case queued
    /// A connect to a backend is in progress.
    case connecting
    /// The backend is asked to begin TLS, before it gets the client's bytes.
    case upgrading
    /// Bytes flow. Non-blocking inspections may still hold back the client's.
    case relaying
    // Relaying, and near the end: one side's FIN was passed on, the client's or the backend's first.
    case closingByClient, closingByUpstream
    // A side is gone. Its remaining bytes are passed on, as far as the other side takes them.
    case losingClient, losingUpstream

    static func closing(first: Side) -> Phase { first == .client ? .closingByClient : .closingByUpstream }
    static func losing(_ side: Side) -> Phase { side == .client ? .losingClient : .losingUpstream }

    /// A backend has accepted it.
    @inline(__always) var isRelaying: Bool { rawValue >= Phase.relaying.rawValue }
    /// One direction is over.
    @inline(__always) var isClosing: Bool { rawValue > Phase.relaying.rawValue }
    /// The side that is gone.
    @inline(__always) var lost: Side? {
        switch self {
        case .losingClient: .client
        case .losingUpstream: .upstream
        default: nil
        }
    }

    /// Which phases may follow.
    func leads(to next: Phase) -> Bool {
        switch (self, next) {
        case (.free, .peeking), (.peeking, .connecting), (.connecting, .connecting), (.connecting, .relaying): true
        case (.connecting, .upgrading), (.upgrading, .relaying): true
        // Who waits is asked about again, and may have to wait on.
        case (.peeking, .queued), (.connecting, .queued), (.queued, .queued), (.queued, .peeking),
            (.queued, .connecting):
            true
        case (.relaying, .closingByClient), (.relaying, .closingByUpstream): true
        case (_, .losingClient), (_, .losingUpstream): isRelaying && lost == nil
        case (_, .free): self != .free
        default: false
        }
    }
}
