import FilterBackendSelect
import Pipeline
import PipelineWire

/// One probe's talk with a backend, from the connected socket on. Pure: bytes, ends and times in, verdict out.
///
/// Without a PROXY header the operator's probe alone decides, as early as it can. With one (R18), the backend's answer
/// to the header is watched for a short while besides: see ``ProxyAnswer``.
package struct ProbeConversation: Sendable {
    /// How long after the connect an answer to the header is awaited, at most.
    package static let settleTime = TimeSpan.milliseconds(500)
    /// More than this is never needed to judge an answer.
    package static let answerLimit = 4096

    package struct Outcome: Equatable, Sendable {
        package let result: ProbeResult
        /// Nil: there was no header, or the answer says nothing about it.
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
        answer += bytes.prefix(ProbeConversation.answerLimit - answer.count)
        if usesProxy, proxyJudged(ended: false) == .rejected { return ended(as: nil) }
        guard let result = judged else { return nil }
        // A line protocol greets before it has read the header, and an answer comes in pieces: only a ServerHello
        // settles it at once.
        let isCertain = isTLS && result == .good
        if settled != nil, !isCertain, answer.count < ProbeConversation.answerLimit { return nil }
        return Outcome(result, proxyJudged(ended: false))
    }

    /// - Parameter reset: by RST, not FIN.
    package mutating func ended(reset: Bool) -> Outcome { ended(as: reset ? .reset : .closed) }

    package mutating func timePassed(_ now: Instant) -> Outcome? {
        guard now >= deadline else { return nil }
        // The settle time is over, and no verdict of the operator's probe is there yet: it has until its timeout.
        if now < timeout, settled != nil, judged == nil {
            settled = nil
            return nil
        }
        return conclude()
    }

    // MARK: Judging

    private var isTLS: Bool { if case .tls = probe { true } else { false } }

    /// What the operator's probe says of the answer so far; nil: more is needed.
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

    /// What the answer so far says of the header; nil: there was none, or nothing is proved.
    private func proxyJudged(ended: Bool) -> ProxyAnswer? {
        guard usesProxy else { return nil }
        // Nobody else says ServerHello to a hello behind a header.
        if isTLS, tlsJudged == .good { return .accepted }
        return ProxyAnswer(answer, ended: ended, behindHello: isTLS)
    }

    /// At the end of the time: the operator's probe is good or has timed out.
    private func conclude() -> Outcome {
        guard isConnected else { return Outcome(.timeout) }
        return Outcome(judged ?? .timeout, proxyJudged(ended: false))
    }

    /// At the end of the stream; nil: the header was rejected while it was open.
    private func ended(as end: ProbeResult?) -> Outcome {
        let proxy = proxyJudged(ended: end != nil)
        if let judged { return Outcome(judged, proxy) }
        return Outcome(end ?? .unexpected, proxy)
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

/// R18: what a backend made of a PROXY header.
package enum ProxyAnswer: UInt8, Sendable, Equatable {
    // The numbers of `BackendCell.proxy`.
    case accepted = 1
    case rejected = 2

    /// What the answer to the 16 bytes of a LOCAL header says of it; nil: nothing. Silence says nothing, nor does a greeting
    /// in no lines, which may come before the header was looked at.
    ///
    /// To a backend that takes them for the client's, the 16 are two empty lines, a line with a NUL, a line `QUIT`, and two
    /// bytes of a next. HTTP says 400. TLS sends an alert, or hangs up. Line protocols greet, complain, and say goodbye.
    /// - Parameters:
    ///   - ended: the stream has ended behind these bytes.
    ///   - behindHello: a ClientHello was sent as well, and an alert may be about that.
    package init?(_ answer: [UInt8], ended: Bool, behindHello: Bool = false) {
        guard let first = answer.first else {
            guard ended else { return nil }
            self = .rejected
            return
        }
        let verdict: ProxyAnswer?
        if first == 0x15 {
            verdict = ProxyAnswer.ofAlert(answer, behindHello: behindHello)
        } else if answer.starts(with: "HTTP/1.".utf8) {
            verdict = answer.dropFirst(8).starts(with: " 400".utf8) ? .rejected : nil
        } else {
            verdict = ProxyAnswer.ofLines(answer)
        }
        guard let verdict else { return nil }
        self = verdict
    }

    private static func ofAlert(_ answer: [UInt8], behindHello: Bool) -> ProxyAnswer? {
        guard answer.count >= TLSAnswer.alertBytes, answer[1] == 3 else { return nil }
        guard behindHello else { return .rejected }
        guard answer[6] != 0 else { return nil }
        // A warning, that the name is unknown.
        if answer[5] == 1 { return .accepted }
        switch BackendCell.HeaderVerdict(alert: answer[6]) {
        case .accepted: return .accepted
        case .rejected: return .rejected
        case .unknown: return nil
        }
    }

    private static func ofLines(_ answer: [UInt8]) -> ProxyAnswer? {
        let lines = answer.split(separator: 0x0A, maxSplits: 32, omittingEmptySubsequences: true)
        if lines.enumerated().contains(where: { isComplaint($1, isFirst: $0 == 0) }) { return .rejected }
        guard answer.contains(0x0A), let greeting = lines.first else { return nil }
        let isCode = greeting.count > 3 && greeting.prefix(3).allSatisfy { $0 >= 0x30 && $0 <= 0x39 }
        let words = ["+OK", "SSH-", "* OK", "* PREAUTH"]
        return isCode || words.contains { greeting.starts(with: $0.utf8) } ? .accepted : nil
    }

    /// A greeting may well begin with a number that refuses (421, 554: too busy); an error for an unknown command is no
    /// greeting.
    private static func isComplaint(_ line: ArraySlice<UInt8>, isFirst: Bool) -> Bool {
        let always = ["500", "501", "502", "503", "-ERR", "ERROR", "BAD ", "* BAD", "Invalid SSH"]
        if always.contains(where: { line.starts(with: $0.utf8) }) { return true }
        guard !isFirst else { return false }
        let digits = line.prefix(3)
        let isCode = digits.count == 3 && digits.allSatisfy { $0 >= 0x30 && $0 <= 0x39 }
        return line.starts(with: "* BYE".utf8)
            || (isCode && (digits.first == 0x34 || digits.first == 0x35 || digits.elementsEqual("221".utf8)))
    }
}
