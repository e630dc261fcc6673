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
    /// More than this is never needed to judge an answer.
    package static let answerLimit = HeaderReply.limit

    package struct Outcome: Equatable, Sendable {
        package let result: ProbeResult
        /// Nil: no header was sent, or the answer says nothing about it.
        package let proxy: ProxyAnswer?
        package init(_ result: ProbeResult, _ proxy: ProxyAnswer? = nil) {
            self.result = result
            self.proxy = proxy
        }
    }

    private let probe: HealthSettings.Probe
    private let usesProxy: Bool
    private let timeout: Instant
    private var isConnected = false
    /// While an answer to the header is awaited: until when.
    private var settled: Instant?
    private var answer: [UInt8] = []
    private var reply = HeaderReply()

    /// - Parameter begun: when the connect was begun; the timeout is for the whole probe.
    package init(_ probe: HealthSettings.Probe, usesProxy: Bool, timeout: TimeSpan, begun: Instant) {
        self.probe = probe
        self.usesProxy = usesProxy
        self.timeout = begun + timeout
    }

    /// What to send once connected: the LOCAL header, then the ClientHello.
    package var opening: [UInt8] {
        var bytes = usesProxy ? ProbeConversation.localHeader : []
        if case .tls(let name) = probe { bytes += ProbeHello.bytes(serverName: name.map { Array($0.utf8) }) }
        return bytes
    }

    /// When ``timePassed(_:)`` must be called if nothing else happens.
    package var deadline: Instant { settled.map { min($0, timeout) } ?? timeout }

    package mutating func connected(_ now: Instant) -> Outcome? {
        isConnected = true
        if usesProxy { settled = now + ProbeConversation.settleTime }
        guard !usesProxy, probe == .tcp else { return nil }
        return Outcome(.good)
    }

    package mutating func received(_ bytes: some Collection<UInt8>) -> Outcome? {
        for byte in bytes.prefix(ProbeConversation.answerLimit - answer.count) {
            answer.append(byte)
            if usesProxy, read(byte) == .rejected { return ended(as: nil) }
        }
        guard let result = judged else { return nil }
        // A line protocol greets before it has read the header, and an answer comes in pieces: only a ServerHello
        // settles it at once.
        let isCertain = isTLS && result == .good
        if settled != nil, !isCertain, answer.count < ProbeConversation.answerLimit { return nil }
        return Outcome(result, headerVerdict)
    }

    /// - Parameter reset: by RST, not FIN.
    package mutating func ended(reset: Bool) -> Outcome { ended(as: reset ? .reset : .closed) }

    package mutating func timePassed(_ now: Instant) -> Outcome? {
        guard now >= deadline else { return nil }
        // The settle time is over, but the configured probe is undecided: it has until its timeout.
        if now < timeout, settled != nil, judged == nil {
            settled = nil
            return nil
        }
        return conclude()
    }

    // MARK: Judging

    private var isTLS: Bool { if case .tls = probe { true } else { false } }

    /// The configured probe's verdict on the answer so far; nil: more is needed.
    private var judged: ProbeResult? {
        switch probe {
        case .off, .tcp: return .good
        case .expect(let wanted):
            guard answer.starts(with: wanted.prefix(answer.count)) else { return .unexpected }
            return answer.count >= wanted.count ? .good : nil
        case .tls: return tlsJudged
        }
    }

    /// RFC 8446 §5.1, §4: a handshake record whose first message is a ServerHello (which a HelloRetryRequest is, too). Warnings may
    /// go before it: that the name is unknown (RFC 6066 §3).
    private var tlsJudged: ProbeResult? {
        let rest = TLSAnswer.behindWarnings(answer)
        guard let type = rest.first else { return nil }
        if type == 0x15 {
            guard rest.count >= 2 else { return nil }
            guard rest[rest.startIndex + 1] == 3 else { return .unexpected }
            // A warning's level tells it from what ends the handshake.
            return rest.count >= TLSAnswer.alertBytes ? .alert : nil
        }
        let wanted: [UInt8?] = [0x16, 3, nil, nil, nil, 2]
        for (byte, wanted) in zip(rest, wanted) {
            if let wanted, byte != wanted { return .unexpected }
        }
        return rest.count >= wanted.count ? .good : nil
    }

    private mutating func read(_ byte: UInt8) -> HeaderReply.Finding {
        withUnsafeBytes(of: byte) { reply.read($0, behind: isTLS ? .hello : .nothing) }
    }

    /// The finding about the header so far; nil: no header, or undecided. A server that has greeted long ago would have
    /// complained by now.
    private var headerVerdict: ProxyAnswer? { usesProxy ? ProxyAnswer(reply.finding) : nil }

    /// At the end of the time: the operator's probe is good or has timed out.
    private func conclude() -> Outcome {
        guard isConnected else { return Outcome(.timeout) }
        return Outcome(judged ?? .timeout, headerVerdict)
    }

    /// At the end of the stream; nil: the header was rejected while it was open.
    private func ended(as end: ProbeResult?) -> Outcome {
        Outcome(judged ?? end ?? .unexpected, usesProxy ? ProxyAnswer(reply.ended) : nil)
    }

    private static let localHeader: [UInt8] = {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 16) { memory in
            var writer = ProxyV2Writer(localIn: memory)
            return writer.finish().map(Array.init) ?? []
        }
    }()
}

/// The records that a TLS server's answer begins with.
private enum TLSAnswer {
    static let alertBytes = 7

    /// The answer without warnings at its front, each whole and in a record of its own.
    static func behindWarnings(_ answer: [UInt8]) -> ArraySlice<UInt8> {
        var rest = answer[...]
        while rest.count >= alertBytes, rest.starts(with: [0x15, 3]), rest[rest.startIndex + 5] == 1,
            // close_notify: nothing comes behind it.
            rest[rest.startIndex + 6] != 0
        { rest = rest.dropFirst(alertBytes) }
        return rest
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
