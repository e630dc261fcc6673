import Pipeline
import PipelineWire

extension SNIFilter {
    public static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        guard view.facts.hint == .tlsPassthrough else { return "skipped: the listener is raw TCP" }
        guard case .refuse(let code) = verdict, let refusal = Refusal(rawValue: code) else {
            return passes(settings, view, verdict)
        }
        let destination = view.facts.destination.endpoint
        let ambiguous = "\(destination) does not have exactly one route"
        switch refusal {
        case .noSNI: return "the ClientHello carries no server name, and \(ambiguous)"
        case .notTLS where view.facts.isUpgraded:
            return "the client was told to begin TLS, and what it sends is \(kind(view))"
        case .notTLS: return "the first bytes are \(kind(view)), and no route at \(destination) takes that"
        case .timeout: return "no complete ClientHello within \(settings.timeout.milliseconds) ms, and \(ambiguous)"
        case .tooLarge: return "the ClientHello is larger than \(settings.max) bytes, and \(ambiguous)"
        case .malformed: return flaw(settings, view)
        case .invalidName: return "the ClientHello's server name is not a hostname, so it can match no route"
        case .closed: return "the client closed after \(view.bytes.count) bytes, before its ClientHello was complete"
        case .nameDenied, .alpnRequired, .patternLimit: return policy(settings, view)
        }
    }

    /// Decides again, with separate memory, to find the clause.
    private static func policy(_ settings: Settings, _ view: ConnectionView) -> String {
        let stream = stream(view)
        var hello: ClientHello?
        if case .ok(let found) = ClientHello.parse(stream, limit: settings.max) { hello = found }
        let name = view.facts.serverName
        let scratch = PatternScratch(isNeeded: settings.policy.hasPatterns)
        let who = name.isEmpty ? "a client that names no server" : name.string
        switch settings.policy.decide(name, hello, in: stream, scratch) {
        case .pass: return "the clauses allow \(who)"
        case .denied(nil): return "no `allow` clause matches \(who)"
        case .denied(let index?): return "\(ruleText(settings, index, name)) matches \(who)"
        case .limit(let index):
            return "\(ruleText(settings, index, name)) hit its backtracking limit at \(who)"
        case .alpnRequired:
            let wanted = settings.policy.protocols.buffer.map(\.string).joined(separator: " or ")
            let offered = hello.map { $0.alpnProtocols(in: stream).map { String(decoding: $0, as: UTF8.self) } } ?? []
            return "the client does not offer \(wanted); it offers "
                + (offered.isEmpty ? "no protocol" : offered.joined(separator: ", "))
        }
    }

    /// The clause, with the entry of its block that matched.
    private static func ruleText(_ settings: Settings, _ index: Int, _ name: ServerName) -> String {
        let rule = settings.policy.rules[index]
        guard case .names(let table) = rule.matcher, let match = name.withBytes({ table.match($0) }) else {
            return "`\(rule.text.string)`"
        }
        return "`\(rule.text.string)` (by \(table.text(match)))"
    }

    private static func passes(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        if case .needBytes(let total) = verdict {
            let stream = stream(view)
            let isHello = stream.isEmpty || FirstBytes.look(at: stream) == .other
            let rest = isHello ? "the ClientHello" : "the first bytes"
            return "waits for the rest of \(rest): \(view.bytes.count) bytes so far, looks again at \(total)"
        }
        switch view.facts.clientProtocol {
        case .silent?:
            return "nothing came within \(settings.timeout.milliseconds) ms, and a route takes such clients"
        case .some: return "the first bytes are \(kind(view)), and a route takes that"
        case nil: break
        }
        let only = "\(view.facts.destination.endpoint) has only one route"
        switch view.facts.sniff {
        case .ok: return "the ClientHello asks for \(view.facts.serverName.string)"
        case .noSNI: return "the ClientHello carries no server name, but \(only)"
        case .timeout: return "no complete ClientHello within \(settings.timeout.milliseconds) ms, but \(only)"
        case .tooLarge: return "the ClientHello is larger than \(settings.max) bytes, but \(only)"
        case .notTLS: return "the first bytes are not TLS, but \(only), and it allows that"
        case .malformed, .incomplete, .notAsked: return "no server name"
        }
    }

    private static func kind(_ view: ConnectionView) -> String {
        switch FirstBytes.look(at: stream(view)) {
        case .ssh: "SSH"
        case .postgresql(let start): "PostgreSQL's, \(start.text)"
        case .incomplete, .other: "not TLS"
        }
    }

    private static func flaw(_ settings: Settings, _ view: ConnectionView) -> String {
        guard case .malformed(let flaw) = ClientHello.parse(stream(view), limit: settings.max) else {
            return "the bytes are not a valid ClientHello"
        }
        return "the ClientHello \(flaw.text)"
    }
}
