import FilterBackendSelect
import Pipeline
import PipelineWire

/// The protocol of one probe after the connect. Pure: bytes, ends and times in, verdict out.
///
/// Without a PROXY header the operator's probe alone decides, as early as it can. With one (R18), the backend's answer
/// to the header is watched for a short while besides: see `HeaderReply`.
package struct ProbeConversation: Sendable {
    /// How long after the connect an answer to the header is awaited, at most.
    package static let settleTime = TimeSpan.milliseconds(500)
    /// The bytes of a probe's answers that are read, all together (R27): more are never needed to judge.
    package static let answerLimit = HeaderReply.limit

    package struct Outcome: Equatable, Sendable {
        package let result: ProbeResult
        /// Nil: no header was sent, or the answer says nothing about it.
        package let proxy: ProxyAnswer?
        /// An agent's word: the share of new connections that the backend wants. Nil: none.
        package var percent: UInt8?
        package init(_ result: ProbeResult, _ proxy: ProxyAnswer? = nil, percent: UInt8? = nil) {
            self.result = result
            self.proxy = proxy
            self.percent = percent
        }
    }

    private let isTLS: Bool
    private let usesProxy: Bool
    private let header: [UInt8]
    private let timeout: Instant
    private var isConnected = false
    /// While an answer to the header is awaited: until when.
    private var settled: Instant?
    private var script: ProbeScript
    /// The configured probe's verdict; nil: more is needed.
    private var result: ProbeResult?
    private var reply = HeaderReply()
    /// How many bytes of answers were looked at.
    private var seen = 0
    /// Something of the probe was sent, besides the header.
    private var hasSpoken: Bool
    private var outgoing: [UInt8] = []

    /// - Parameters:
    ///   - begun: when the connect was begun; the timeout is for the whole probe.
    ///   - place: of the backend, for a request that must name it.
    package init(
        _ probe: HealthSettings.Probe, usesProxy: Bool, isText: Bool = false, timeout: TimeSpan, begun: Instant,
        place: String = "localhost"
    ) {
        if case .tls = probe { isTLS = true } else { isTLS = false }
        script = ProbeScript(probe, place: place)
        self.usesProxy = usesProxy
        header = isText ? ProxyV1Writer.unknown : ProxyV2Writer.local
        self.timeout = begun + timeout
        hasSpoken = !script.opening.isEmpty
        if script.isOver { result = .good }
    }

    /// What to send once connected: the LOCAL header (of version 1: `UNKNOWN`), then what the probe begins with.
    package var opening: [UInt8] { (usesProxy ? header : []) + script.opening }

    /// What is to be sent since the last call.
    package mutating func takeOutgoing() -> [UInt8] {
        defer { outgoing = [] }
        return outgoing
    }

    /// The beginning of the last answer, for people: as far as it has come when the verdict is reached.
    package private(set) var heard: [UInt8] = []
    private static let heardLimit = 80

    /// When ``timePassed(_:)`` must be called if nothing else happens.
    package var deadline: Instant { settled.map { min($0, timeout) } ?? timeout }

    package mutating func connected(_ now: Instant) -> Outcome? {
        isConnected = true
        if usesProxy { settled = now + ProbeConversation.settleTime }
        guard !usesProxy, script.isOver else { return nil }
        return Outcome(.good)
    }

    package mutating func received(_ bytes: some Collection<UInt8>) -> Outcome? {
        var rest = Array(bytes.prefix(ProbeConversation.answerLimit - seen))[...]
        while let byte = rest.popFirst() {
            seen += 1
            if heard.count < ProbeConversation.heardLimit { heard.append(byte) }
            let sent: HeaderReply.Sent = isTLS ? .hello : hasSpoken ? .bytes : .nothing
            if result == nil { advance(byte) }
            if usesProxy, read(byte, behind: sent) == .rejected { return ended(as: nil) }
            if result != nil, !usesProxy { break }
        }
        heard += rest.prefix(ProbeConversation.heardLimit - heard.count)
        // Whoever says so much without an answer in it would go on.
        if result == nil, seen >= ProbeConversation.answerLimit { result = .unexpected }
        guard let result else { return nil }
        // A line protocol greets before it has read the header, and an answer comes in pieces: only a ServerHello
        // settles it at once.
        let isCertain = isTLS && result == .good
        if settled != nil, !isCertain, seen < ProbeConversation.answerLimit { return nil }
        return Outcome(result, headerVerdict, percent: script.percent)
    }

    private mutating func advance(_ byte: UInt8) {
        switch script.read(byte) {
        case .more: break
        case .say(let bytes):
            outgoing += bytes
            hasSpoken = true
            heard = []
        case .end(let result): self.result = result
        }
    }

    /// - Parameter reset: by RST, not FIN.
    package mutating func ended(reset: Bool) -> Outcome { ended(as: reset ? .reset : .closed) }

    package mutating func timePassed(_ now: Instant) -> Outcome? {
        guard now >= deadline else { return nil }
        // The settle time is over, but the configured probe is undecided: it has until its timeout.
        if now < timeout, settled != nil, result == nil {
            settled = nil
            return nil
        }
        return conclude()
    }

    // MARK: Judging

    private mutating func read(_ byte: UInt8, behind sent: HeaderReply.Sent) -> HeaderReply.Finding {
        withUnsafeBytes(of: byte) { reply.read($0, behind: sent) }
    }

    /// The finding about the header so far; nil: no header, or undecided. A server that has greeted long ago would have
    /// complained by now.
    private var headerVerdict: ProxyAnswer? { usesProxy ? ProxyAnswer(reply.finding) : nil }

    /// At the end of the time: the operator's probe is good or has timed out.
    private func conclude() -> Outcome {
        guard isConnected else { return Outcome(.timeout) }
        return Outcome(result ?? script.lastWord ?? .timeout, headerVerdict, percent: script.percent)
    }

    /// At the end of the stream; nil: the header was rejected while it was open.
    private func ended(as end: ProbeResult?) -> Outcome {
        Outcome(
            result ?? script.lastWord ?? end ?? .unexpected, usesProxy ? ProxyAnswer(reply.ended) : nil,
            percent: script.percent)
    }
}

/// R18: whether a backend accepted a PROXY header.
package enum ProxyAnswer: UInt8, Sendable, Equatable {
    // The numbers of `BackendCell.proxy`.
    case accepted = 1
    case rejected = 2

    /// Nil: it says nothing.
    init?(_ finding: HeaderReply.Finding) {
        switch finding {
        case .taken, .greeted: self = .accepted
        case .rejected: self = .rejected
        case .undecided, .unclear: return nil
        }
    }
}
