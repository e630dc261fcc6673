/// What a stage says of a connection. Waiting and refusing are different answers, always.
@frozen package enum Verdict: Equatable, Sendable {
    /// Go on with the next stage.
    case next
    /// Ask again when `total` bytes have arrived, or when none will (see ``InputState``). Only a stage with a
    /// ``PeekNeed`` may answer this, and only while the input is ``InputState/open``.
    case needBytes(Int)
    /// Close the connection. The number is the index into the filter's ``FilterDescriptor/reasons``.
    case refuse(UInt8)
}

/// Whether more of the client's first bytes may still come.
@frozen package enum InputState: UInt8, Equatable, Sendable {
    /// More may come.
    case open
    /// The client sent FIN.
    case ended
    /// The pipeline's peek timeout has passed.
    case timedOut
    /// The pipeline's peek budget is used up: the view holds all that may be looked at.
    case full
}

/// How far a stage wants to look into the client's first bytes.
package struct PeekNeed: Equatable, Sendable {
    /// The most bytes it will ever ask for, 1...65536.
    package let bytes: Int
    /// How long it is willing to wait for them from accept; nil: as long as the connection lives, which only a
    /// stage that gives no fact to a later one may ask for.
    package let timeout: TimeSpan?
    package init(bytes: Int, timeout: TimeSpan?) {
        self.bytes = bytes
        self.timeout = timeout
    }
    /// The largest budget that any stage may ask for.
    package static let limit = 65536
}

/// What sniffing found (R7).
@frozen package enum SniffOutcome: UInt8, Equatable, Sendable, CaseIterable {
    case notAsked, ok, noSNI, notTLS, timeout, tooLarge, malformed

    package var name: String {
        switch self {
        case .notAsked: "not_asked"
        case .ok: "ok"
        case .noSNI: "no_sni"
        case .notTLS: "not_tls"
        case .timeout: "timeout"
        case .tooLarge: "too_large"
        case .malformed: "malformed"
        }
    }
}
