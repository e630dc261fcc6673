/// A stage's verdict on a connection. Waiting and refusing are always different verdicts.
@frozen public enum Verdict: Equatable, Sendable {
    /// Go on with the next stage.
    case next
    /// Ask again when `total` bytes have arrived, or when none will (see ``InputState``). Only a stage with a
    /// ``PeekNeed`` may answer this, and only while the input is ``InputState/open``.
    case needBytes(Int)
    /// Non-blocking inspection: ask again when `total` bytes have arrived. Meanwhile later stages run, the backend is
    /// connected and may send, and only the client's bytes are held back (R17). Only a stage whose descriptor says
    /// ``FilterDescriptor/isNonBlocking`` may answer this. In a chain that has to wait anyway it acts as
    /// ``needBytes(_:)`` until the deadline; after ``InputState/timedOut`` the inspection stays open while the
    /// connection proceeds.
    case inspect(Int)
    /// Close the connection. The number is the index into the filter's ``FilterDescriptor/reasons``.
    case refuse(UInt8)
    /// Ask again when a place of a limit may be free: in the queue that ``Effects/setQueue(_:)`` has named. The connection
    /// holds nothing of that limit meanwhile. Only the stage that gives the route may answer this.
    case wait

    /// How many bytes it waits for, blocking or not; nil: it doesn't.
    @inlinable public var wanted: Int? {
        switch self {
        case .needBytes(let total), .inspect(let total): total
        case .next, .refuse, .wait: nil
        }
    }
}

/// Whether more of the client's first bytes may still come.
@frozen public enum InputState: UInt8, Equatable, Sendable {
    /// More may come.
    case open
    /// The client sent FIN.
    case ended
    /// The pipeline's peek timeout has passed.
    case timedOut
    /// The pipeline's peek budget is used up: no more bytes will come.
    case full
}

/// A stage's need for the client's first bytes.
public struct PeekNeed: Equatable, Sendable {
    /// The most bytes it will ever ask for, 1...65536.
    public let bytes: Int
    /// The deadline from accept; nil: none, which is allowed only for a stage that provides no fact to a later one.
    public let timeout: TimeSpan?
    /// The stage may consume what it looked at, so that later stages look at what comes behind it.
    public let consumes: Bool
    public init(bytes: Int, timeout: TimeSpan?, consumes: Bool = false) {
        self.bytes = bytes
        self.timeout = timeout
        self.consumes = consumes
    }
    /// The largest budget that any stage may ask for.
    public static let limit = 65536
}

/// What sniffing found (R7).
@frozen public enum SniffOutcome: UInt8, Equatable, Sendable, CaseIterable {
    case notAsked, ok, noSNI, notTLS, timeout, tooLarge, malformed
    /// Its end came, or something else refused it, before there was enough of it.
    case incomplete

    public var name: String {
        switch self {
        case .notAsked: "not_asked"
        case .ok: "ok"
        case .noSNI: "no_sni"
        case .notTLS: "not_tls"
        case .timeout: "timeout"
        case .tooLarge: "too_large"
        case .malformed: "malformed"
        case .incomplete: "incomplete"
        }
    }
}

/// What a stage's worker memory still keeps after a flush (``Filter/flush(_:_:isLast:)``).
@frozen public enum FlushOutcome: Int, Sendable {
    /// Nothing: no flush is needed before the next report of a connection.
    case done
    /// Some data could not be handed over: flush again a tick later.
    case waits
    /// There is more to hand over: flush again in the next iteration.
    case more
}
