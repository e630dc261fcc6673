import Pipeline

/// The result of a probe, as named in logs and admin reports.
package enum ProbeResult: UInt8, Sendable, Equatable, CaseIterable {
    case good
    case refused
    case timeout
    case unreachable
    /// Reset before the answer was complete.
    case reset
    /// Closed before the answer was complete.
    case closed
    case unexpected
    case alert
    /// HTTP: a code other than those that are good.
    case status
    /// It speaks the protocol, and says that it does not serve now.
    case notReady
    /// This node could not probe (no descriptor, no port), which says nothing about the backend.
    case node

    package var name: String {
        switch self {
        case .good: "good"
        case .refused: "refused"
        case .timeout: "timeout"
        case .unreachable: "unreachable"
        case .reset: "reset"
        case .closed: "closed without an answer"
        case .unexpected: "unexpected answer"
        case .alert: "TLS alert"
        case .status: "HTTP status"
        case .notReady: "answers that it is not ready"
        case .node: "not probed: this node has no free file descriptor, port or memory"
        }
    }

    /// - Parameter error: an errno of `connect`.
    package init(connectError error: Int32) {
        switch error {
        case 111: self = .refused
        case 104: self = .reset
        case 110: self = .timeout
        // ENETUNREACH, EHOSTUNREACH, ENETDOWN, EHOSTDOWN, EINVAL for an address that can't be a peer. EPERM and EACCES are a
        // firewall of this node's, and no fault of the backend's (R13).
        case 22, 100, 101, 112, 113: self = .unreachable
        default: self = .node
        }
    }
}

/// One target's verdict from its probes, with rise and fall (R12). Pure.
package struct ProbeCounts: Sendable, Equatable {
    /// Not probed counts as up, here as in the cell.
    package private(set) var verdict = BackendCell.Probe.unknown
    /// When the verdict last changed.
    package private(set) var since: Instant
    package private(set) var last: ProbeResult?
    package private(set) var goodInARow: UInt32 = 0
    package private(set) var badInARow: UInt32 = 0

    package enum Change: Sendable, Equatable {
        case wentDown
        case cameUp(after: TimeSpan)
    }

    package init(since: Instant) { self.since = since }

    /// Counts a result. A first good one makes the verdict up at once; from down to up it takes `rise` in a row, and
    /// `fall` bad ones in a row make it down.
    package mutating func add(_ result: ProbeResult, rise: UInt32, fall: UInt32, now: Instant) -> Change? {
        last = result
        switch result {
        case .node: return nil
        case .good:
            badInARow = 0
            goodInARow = goodInARow == .max ? .max : goodInARow + 1
            if verdict == .unknown { become(.up, now) }
            guard verdict == .down, goodInARow >= rise else { return nil }
            let length = now.since(since)
            become(.up, now)
            return .cameUp(after: length)
        default:
            goodInARow = 0
            badInARow = badInARow == .max ? .max : badInARow + 1
            guard verdict != .down, badInARow >= fall else { return nil }
            become(.down, now)
            return .wentDown
        }
    }

    private mutating func become(_ verdict: BackendCell.Probe, _ now: Instant) {
        self.verdict = verdict
        since = now
    }
}

/// Spreads times over targets, to avoid a thundering herd.
extension SplitMix64 {
    /// 0..<span.
    package mutating func within(_ span: TimeSpan) -> TimeSpan {
        TimeSpan(nanoseconds: span.nanoseconds == 0 ? 0 : next() % span.nanoseconds)
    }

    /// `span`, longer or shorter by up to `percent` (0...50) of it.
    package mutating func jittered(_ span: TimeSpan, percent: UInt8) -> TimeSpan {
        let reach = span.nanoseconds / 100 * UInt64(min(percent, 50))
        return TimeSpan(
            nanoseconds: span.nanoseconds - reach + within(TimeSpan(nanoseconds: 2 * reach + 1)).nanoseconds)
    }
}

/// A strict rate limit: no one-second window has more. Pure; a burst of 10 ms lets a slightly late thread reach the
/// full rate.
package struct ProbeRate: Sendable {
    private static let burst: UInt64 = 10_000_000
    private var bucket: TokenBucket

    /// - Parameter perSecond: at least 1.
    package init(perSecond: UInt32) {
        let count = UInt64(max(1, perSecond))
        // Rounded up: `count` of these, less the burst, are a second or more.
        let cost = (1_000_000_000 + ProbeRate.burst + count - 1) / count
        bucket = TokenBucket(cost: cost, burst: ProbeRate.burst + cost)
    }

    /// When the next one may begin.
    package var next: Instant { bucket.next }
    /// True, and counted, if one may begin now.
    package mutating func take(_ now: Instant) -> Bool { bucket.take(now) }
}
