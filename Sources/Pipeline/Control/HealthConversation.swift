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
        if case .tls(let name) = probe { bytes += SyntheticHello.hello(serverName: name.map { Array($0.utf8) }) }
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
        if usesProxy, ProxyAnswer.isRejection(answer, ended: false) { return ended(as: nil) }
        guard let result = judged else { return nil }
        // A line protocol greets before it has read the header, and an answer comes in pieces: only a ServerHello
        // settles it at once.
        let isCertain = isTLS && result == .good
        if settled != nil, !isCertain, answer.count < ProbeConversation.answerLimit { return nil }
        return Outcome(result, usesProxy && result == .good ? .accepted : nil)
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

    /// RFC 8446 §5.1, §4: a handshake record whose first message is a ServerHello (which a HelloRetryRequest is, too).
    private var tlsJudged: ProbeResult? {
        guard let type = answer.first else { return nil }
        if type == 0x15 { return answer.count < 2 ? nil : answer[1] == 3 ? .alert : .unexpected }
        let wanted: [UInt8?] = [0x16, 3, nil, nil, nil, 2]
        for (byte, wanted) in zip(answer, wanted) {
            if let wanted, byte != wanted { return .unexpected }
        }
        return answer.count >= wanted.count ? .good : nil
    }

    /// At the end of the time: the operator's probe is good or has timed out; silence took the header.
    private func conclude() -> Outcome {
        guard isConnected, let judged else { return Outcome(.timeout) }
        return Outcome(judged, usesProxy && judged == .good ? .accepted : nil)
    }

    /// At the end of the stream; nil: the header was rejected while it was open.
    private func ended(as end: ProbeResult?) -> Outcome {
        let proxy: ProxyAnswer? = usesProxy && ProxyAnswer.isRejection(answer, ended: end != nil) ? .rejected : nil
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

/// R18: what a backend made of a PROXY header.
package enum ProxyAnswer: UInt8, Sendable, Equatable {
    // The numbers of `BackendCell.proxy`.
    case accepted = 1
    case rejected = 2

    /// Whether a backend that got the 16 bytes of a LOCAL header answers like one that took them for the client's.
    ///
    /// To such a one they are two empty lines, a line with a NUL, a line `QUIT`, and two bytes of a next. HTTP says 400. TLS
    /// sends an alert, or hangs up. Line protocols greet, complain, and say goodbye.
    /// - Parameter ended: the stream has ended behind these bytes.
    package static func isRejection(_ answer: [UInt8], ended: Bool) -> Bool {
        guard let first = answer.first else { return ended }
        if first == 0x15 { return answer.count >= 2 && answer[1] == 3 }
        if answer.starts(with: "HTTP/1.".utf8) { return answer.dropFirst(8).starts(with: " 400".utf8) }
        let lines = answer.split(separator: 0x0A, maxSplits: 32, omittingEmptySubsequences: true)
        let complaints = lines.enumerated().filter { isComplaint($1, isFirst: $0 == 0) }
        return !complaints.isEmpty
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
