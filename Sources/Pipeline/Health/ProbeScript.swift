import FilterBackendSelect
import Pipeline

/// What a probe says to a backend, and what it makes of the answers. Pure: a byte of an answer in, the next step out; so
/// an answer means the same however it is cut into segments.
///
/// ``ProbeConversation`` bounds the bytes and the time.
struct ProbeScript: Sendable {
    enum Next: Equatable {
        /// More bytes decide.
        case more
        /// Send these; the following bytes answer them.
        case say([UInt8])
        case end(ProbeResult)
    }

    let opening: [UInt8]
    /// The verdict if the stream ends, or the time is over, before one is reached; nil: none yet.
    private(set) var lastWord: ProbeResult?
    /// What an agent has said of the backend's share.
    private(set) var percent: UInt8?
    private let probe: HealthSettings.Probe
    /// The answer to what was said last.
    private(set) var answer: [UInt8] = []
    private var step = 0

    /// - Parameter place: of the backend, as a client would write it.
    init(_ probe: HealthSettings.Probe, place: String) {
        self.probe = probe
        opening =
            switch probe {
            case .off, .tcp, .expect, .mysql, .smtp, .agent: []
            case .tls(let name): ProbeHello.bytes(serverName: name.map { Array($0.utf8) })
            case .http(let http): http.request(to: place)
            case .exchange(let exchanges): exchanges.first?.send ?? []
            case .postgresql(let user): PostgreSQLProbe.startup(user: user)
            case .redis: RedisProbe.ping
            }
        if case .tcp = probe { lastWord = .good }
        if case .off = probe { lastWord = .good }
    }

    /// The connect alone decides.
    var isOver: Bool { probe == .tcp || probe == .off }

    mutating func read(_ byte: UInt8) -> Next {
        answer.append(byte)
        switch probe {
        case .off, .tcp: return .end(.good)
        case .expect(let wanted): return ProbeAnswer.begins(answer, with: wanted)
        case .tls: return TLSAnswer.judged(answer).map(Next.end) ?? .more
        case .http(let http): return http.judge(answer)
        case .exchange(let exchanges): return exchange(exchanges)
        case .postgresql: return PostgreSQLProbe.judge(answer)
        case .mysql(let user): return mysql(user)
        case .redis: return RedisProbe.judge(answer)
        case .smtp(let name): return smtp(name)
        case .agent: return agent(byte)
        }
    }

    private mutating func say(_ bytes: [UInt8]) -> Next {
        answer = []
        step += 1
        return .say(bytes)
    }

    /// Each answer begins with its text. The rest of its line belongs to it, so that the next answer begins with a line.
    private mutating func exchange(_ exchanges: [ProbeExchange]) -> Next {
        guard exchanges.indices.contains(step) else { return .end(.unexpected) }
        let next = ProbeAnswer.begins(answer, with: exchanges[step].expect)
        guard case .end(.good) = next, step + 1 < exchanges.count else { return next }
        return answer.last == UInt8(ascii: "\n") ? say(exchanges[step + 1].send) : .more
    }

    private mutating func mysql(_ user: String?) -> Next {
        let next = step == 0 ? MySQLProbe.judgeGreeting(answer) : MySQLProbe.judgeLogin(answer)
        guard step == 0, let user, case .end(.good) = next else { return next }
        // The reply to a greeting that is read half would be taken for the rest of it.
        guard let size = MySQLProbe.packetSize(answer), answer.count >= size else { return .more }
        return say(MySQLProbe.login(user: user))
    }

    private mutating func agent(_ byte: UInt8) -> Next {
        guard byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") else { return .more }
        guard let said = AgentAnswer(answer.dropLast()) else { return .end(.unexpected) }
        percent = said.percent
        return .end(said.result)
    }

    /// RFC 5321 §3.1: 220, EHLO, 250, QUIT.
    private mutating func smtp(_ name: String) -> Next {
        guard step < 2 else { return .end(.good) }
        let next = SMTPProbe.judge(answer, expecting: step == 0 ? "220" : "250")
        guard case .end(.good) = next else { return next }
        if step == 1 { lastWord = .good }
        return say(step == 0 ? Array("EHLO \(name)\r\n".utf8) : Array("QUIT\r\n".utf8))
    }
}

enum ProbeAnswer {
    static func begins(_ answer: [UInt8], with wanted: [UInt8]) -> ProbeScript.Next {
        guard answer.starts(with: wanted.prefix(answer.count)) else { return .end(.unexpected) }
        return answer.count >= wanted.count ? .end(.good) : .more
    }
}

/// The records that a TLS server's answer begins with.
enum TLSAnswer {
    private static let alertBytes = 7

    /// RFC 8446 §5.1, §4: a handshake record whose first message is a ServerHello (which a HelloRetryRequest is, too).
    /// Warnings may go before it: that the name is unknown (RFC 6066 §3). Nil: more is needed.
    static func judged(_ answer: [UInt8]) -> ProbeResult? {
        let rest = behindWarnings(answer)
        guard let type = rest.first else { return nil }
        if type == 0x15 {
            guard rest.count >= 2 else { return nil }
            guard rest[rest.startIndex + 1] == 3 else { return .unexpected }
            // A warning's level tells it from what ends the handshake.
            return rest.count >= alertBytes ? .alert : nil
        }
        let wanted: [UInt8?] = [0x16, 3, nil, nil, nil, 2]
        for (byte, wanted) in zip(rest, wanted) {
            if let wanted, byte != wanted { return .unexpected }
        }
        return rest.count >= wanted.count ? .good : nil
    }

    /// The answer without warnings at its front, each whole and in a record of its own.
    private static func behindWarnings(_ answer: [UInt8]) -> ArraySlice<UInt8> {
        var rest = answer[...]
        while rest.count >= alertBytes, rest.starts(with: [0x15, 3]), rest[rest.startIndex + 5] == 1,
            // close_notify: nothing comes behind it.
            rest[rest.startIndex + 6] != 0
        { rest = rest.dropFirst(alertBytes) }
        return rest
    }
}
