import Pipeline
import PipelineWire

extension AntiSpoofFilter {
    public static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        let peer = view.facts.peer.endpoint.address
        if settings.requiresAssigned {
            guard let identity = view.instances.identity(of: peer) else {
                return "\(peer) is assigned to no instance of this node"
            }
            let whose =
                "\(peer) is assigned to instance \(identity.pointee.id.string) of \(identity.pointee.owner.path)"
            return identity.pointee.isSuspended ? "\(whose), and the env, or its org, is suspended" : whose
        }
        switch settings.duty(of: view.facts.peer) {
        case .mustNot: return stranger(settings, view, verdict)
        case .may: return "\(peer) may send a PROXY header: " + sender(settings, view, verdict)
        case .must: return "\(peer) must send a PROXY header: " + sender(settings, view, verdict)
        }
    }

    private static func stranger(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        let (stream, before) = stream(settings, view)
        let what = before > 0 ? "the bytes after the PROXY header" : "the first bytes"
        switch (verdict, ProxySignature.check(stream)) {
        case (.refuse, .wait):
            return "\(what) begin a PROXY header's signature, and the rest did not come in time"
        case (.refuse, _):
            return settings.believesAnyone
                ? "\(what) are a PROXY header's signature, which \(view.facts.peer.endpoint.address) may not send"
                : "\(what) are a PROXY header's signature, which clients may not send"
        case (.inspect, _) where view.input == .timedOut:
            return "nothing came in time; \(what) are checked when they come"
        case (.needBytes, _), (.inspect, _):
            return "the \(stream.count) bytes so far could still become a PROXY header"
        case (.next, .wait): return "no more bytes come, and the \(stream.count) so far are not a PROXY header"
        case (.next, _), (.wait, _): return "\(what) are not a PROXY header"
        }
    }

    private static func sender(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        let count = view.bytes.count
        guard case .refuse(let code) = verdict, let refusal = Refusal(rawValue: code) else {
            if case .inspect = verdict, view.input == .timedOut {
                return "none came in time, so the client is the peer itself, and a later one is refused"
            }
            if let total = verdict.wanted { return "\(count) bytes of it so far, looks again at \(total)" }
            return believed(settings, view)
        }
        switch refusal {
        case .spoofed, .spoofedSource, .suspended: return "it forges one"
        case .headerMissing: return "the first bytes are something else"
        case .headerTimeout:
            return "\(count) bytes within \(settings.timeout.milliseconds) ms are not a complete "
                + "header"
        case .headerClosed: return "it closed after \(count) bytes, before the header was complete"
        case .headerMalformed:
            guard case .malformed(let flaw) = ProxyHeader.parse(view.bytes, limit: settings.max) else {
                return "what it sent is larger than \(settings.max) bytes"
            }
            return "what it sent \(flaw.text)\(flaw == .tooLong ? " of \(settings.max) bytes" : "")"
        }
    }

    private static func believed(_ settings: Settings, _ view: ConnectionView) -> String {
        switch ProxyHeader.parse(view.bytes, limit: settings.max) {
        case .ok(let header):
            let size = "its v\(header.version) header of \(header.length) bytes"
            if let source = header.source, let destination = header.destination {
                return "\(size) says that the client is \(source) and went to \(destination)"
            }
            return "\(size) conveys no address, so the client is the peer itself"
        case .notProxy: return "the first bytes are not a header, so the client is the peer itself"
        case .incomplete, .malformed: return "none came, so the client is the peer itself"
        }
    }
}
