import Pipeline
import PipelineWire

/// PostgreSQL: an SSLRequest, which a GSSENCRequest may precede ("SSL Session Encryption", "GSSAPI Session Encryption").
extension StartTLSFilter {
    /// What the client was answered so far.
    struct PostgreSQLOpening: BitwiseCopyable {
        var hasDeclinedGSS = false
    }

    /// What is no such request is for the stages below: TLS from the first byte (PostgreSQL 17), a session without TLS, a
    /// request to cancel a query.
    static func answerPostgreSQL(_ settings: Settings, _ view: ConnectionView, _ effects: Effects) -> Verdict {
        let opening = effects.kept { PostgreSQLOpening() }
        let stream = stream(view)
        guard !view.facts.isUpgraded else { return pass(effects) }
        switch FirstBytes.look(at: stream) {
        case .incomplete(let needs):
            guard view.input == .open, stream.first ?? 0 == 0 else { return pass(effects) }
            return .needBytes(view.facts.consumed + needs)
        case .postgresql(.tls):
            // CVE-2021-23214: they could be of somebody who saw the request pass.
            guard stream.count == PostgreSQLStart.headLength else { return refuse(.pipelined) }
            effects.say("S")
            effects.upgradeBackend(within: settings.backendTimeout)
            return take(PostgreSQLStart.headLength, view, effects)
        case .postgresql(.gss):
            guard !opening.pointee.hasDeclinedGSS else { return refuse(.malformed) }
            guard stream.count == PostgreSQLStart.headLength else { return refuse(.pipelined) }
            opening.pointee.hasDeclinedGSS = true
            effects.say("N")
            return take(PostgreSQLStart.headLength, view, effects)
        case .postgresql, .ssh, .other: return pass(effects)
        }
    }

    static func askPostgreSQL(_ answer: UnsafeBufferPointer<UInt8>, _ effects: Effects) -> UpgradeStep {
        guard !answer.isEmpty else {
            PostgreSQLStart.withTLSRequest { effects.say($0) }
            return .more
        }
        return switch PostgreSQLTLSAnswer(answer) {
        case .willing: .done
        case .unwilling: refuseBackend(.backendRefused)
        case .malformed: refuseBackend(.backendMalformed)
        }
    }
}
