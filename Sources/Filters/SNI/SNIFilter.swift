import Pipeline
import PipelineWire

/// `sni timeout 3s, max 16KiB`: reads the server name of the ClientHello (R6, R7), or sees what else the first bytes are. It
/// only reads; the bytes go to the backend unchanged.
public enum SNIFilter: Filter {
    public struct Settings: Sendable {
        let timeout: TimeSpan
        /// The most bytes that a hello's records may take.
        let max: Int
        /// The `allow`, `deny` and `require` clauses.
        let policy: SNIPolicy
    }

    enum Refusal: UInt8, CaseIterable {
        case noSNI, notTLS, timeout, tooLarge, malformed, invalidName, closed
        case nameDenied, alpnRequired, patternLimit
    }

    public static let defaultTimeout = TimeSpan.milliseconds(200)
    public static let defaultMax: UInt64 = 8192

    public static let descriptor = FilterDescriptor(
        keyword: "sni",
        summary: "reads the server name of a TLS ClientHello",
        gives: [.serverName],
        clauses: [
            ClauseSpec(
                "timeout",
                [.word("timeout"), .duration(name: "time", TimeSpan.milliseconds(1)...TimeSpan.seconds(60))],
                summary: "how long the hello may take from accept; default 200ms"),
            ClauseSpec(
                "max", [.word("max"), .size(name: "bytes", 512...UInt64(PeekNeed.limit))],
                summary: "how large it may be, record headers included; default 8192 bytes"),
        ] + SNIPolicy.clauses,
        reasons: [
            ReasonSpec("no_sni", .client, "The hello carries no server name, and more than one route is possible."),
            ReasonSpec("not_tls", .client, "The first bytes are not TLS, and no route here takes that."),
            ReasonSpec("timeout", .client, "No complete hello came in time, and more than one route is possible."),
            ReasonSpec(
                "too_large", .client, "The hello is larger than `max`, and more than one route is possible."),
            ReasonSpec("malformed", .client, "The bytes begin like TLS but are not a valid ClientHello."),
            ReasonSpec("invalid_name", .client, "The server name is not a hostname: an address, or bad characters."),
            ReasonSpec("closed", .client, "The client closed before its hello was complete."),
            ReasonSpec(
                "name_denied", .client, "A `deny` clause matches the name, or there are `allow` clauses and none does."),
            ReasonSpec("alpn_required", .client, "The hello offers none of the protocols of `require alpn`."),
            ReasonSpec(
                "pattern_limit", .client,
                "A pattern hit its backtracking limit at this name, so the clauses "
                    + "can't decide."),
        ], blocks: [NameMembers.block], foreignWords: foreignWords)

    private static let foreignWords: [String: ForeignWord] = .foreignWords([
        "ssl_preread|req.ssl_sni|req_ssl_sni|req.ssl_hello_type|req_ssl_hello_type": ForeignWord("sni"),
        "tcp-request content": ForeignWord(
            "sni", advice: "names are matched by the stage `sni`: `sni deny name HOSTNAME`"),
        "tcp-request|timeout|idle_timeout|proxy_timeout|idle": firstBytes,
        "tcp-request inspect-delay|preread_timeout|timeout client-hs": firstBytes,
        "preread_buffer_size|tune.bufsize|tune.bufsize.large|tune.bufsize.small|tune.maxrewrite": ForeignWord(
            "sni max 16KiB"),
        "alpn|req.ssl_alpn": ForeignWord("sni require alpn PROTOCOL"),
        "acl": ForeignWord(
            "names", advice: "`names` has hostnames, for the stage `sni`; `sni deny suffix` and `pattern` match parts"),
        "keyval|keyval_zone": ForeignWord("names"),
    ])
    private static let firstBytes = ForeignWord(advice: "for a deadline of the first bytes write `sni timeout 3s`")

    public static func settings(_ directive: Directive) throws(SettingsError) -> Settings {
        Settings(
            timeout: directive.duration("timeout") ?? defaultTimeout,
            max: Int(clamping: directive.size("max") ?? defaultMax), policy: try SNIPolicy(directive))
    }

    public static func makeState(_ settings: Settings) -> PatternScratch {
        PatternScratch(isNeeded: settings.policy.hasPatterns)
    }

    public static func dispose(_ settings: Settings) { settings.policy.deallocate() }

    public static func peek(_ settings: Settings) -> PeekNeed? {
        PeekNeed(bytes: settings.max, timeout: settings.timeout)
    }

    public static func evaluate(
        _ settings: Settings, _ state: inout PatternScratch, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        // R2: a raw route is never peeked.
        guard view.facts.hint == .tlsPassthrough else { return .next }
        let stream = stream(view)
        switch look(at: stream, settings, view, effects) {
        case .ok(let hello):
            return checked(found(hello, in: stream, view, effects), hello, settings, state, view)
        case .notTLS: return checked(notTLS(stream, view, effects), nil, settings, state, view)
        case .tooLarge: return checked(withoutName(.tooLarge, .tooLarge, view, effects), nil, settings, state, view)
        case .malformed:
            effects.setSniff(.malformed, name: ServerName())
            return refuse(.malformed)
        case .incomplete(let needs):
            effects.setSniffing()
            switch view.input {
            case .open: return .needBytes(view.facts.consumed + needs)
            case .ended: return refuse(.closed)
            case .timedOut: return checked(timedOut(stream, view, effects), nil, settings, state, view)
            case .full: return checked(withoutName(.tooLarge, .tooLarge, view, effects), nil, settings, state, view)
            }
        }
    }

    /// The parser's position after the last call.
    struct Look: BitwiseCopyable {
        /// Where the stream began.
        var consumed: Int
        var scan = HelloScan()
    }

    /// Resumes where the last call stopped: a hello may come in thousands of pieces.
    private static func look(
        at stream: UnsafeBufferPointer<UInt8>, _ settings: Settings, _ view: ConnectionView, _ effects: Effects
    ) -> HelloVerdict {
        let look = effects.kept { Look(consumed: view.facts.consumed) }
        if look.pointee.consumed != view.facts.consumed { look.initialize(to: Look(consumed: view.facts.consumed)) }
        let verdict = look.pointee.scan.look(at: stream, limit: settings.max)
        if case .incomplete = verdict { return verdict }
        effects.forgetKept()
        return verdict
    }

    /// Applies the operator's clauses to the name, or to its absence.
    private static func checked(
        _ verdict: Verdict, _ hello: ClientHello?, _ settings: Settings, _ scratch: PatternScratch,
        _ view: ConnectionView
    ) -> Verdict {
        guard case .next = verdict else { return verdict }
        switch settings.policy.decide(view.facts.serverName, hello, in: stream(view), scratch) {
        case .pass: return .next
        case .denied: return refuse(.nameDenied)
        case .alpnRequired: return refuse(.alpnRequired)
        case .limit: return refuse(.patternLimit)
        }
    }

    /// The client's own bytes, after an accepted PROXY header.
    static func stream(_ view: ConnectionView) -> UnsafeBufferPointer<UInt8> {
        UnsafeBufferPointer(rebasing: view.bytes[min(view.facts.consumed, view.bytes.count)...])
    }

    private static func found(
        _ hello: ClientHello, in stream: UnsafeBufferPointer<UInt8>, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        if let alpn = hello.alpn {
            let start = view.facts.consumed
            effects.setALPN(
                offset: start + alpn.offset, length: alpn.length, recordEnd: start + alpn.recordEnd)
        }
        guard hello.serverName != nil else { return withoutName(.noSNI, .noSNI, view, effects) }
        var name = ServerName()
        guard hello.withServerName(in: stream, { name.set(wire: $0) }) == true else {
            // An invalid name is not the same as no name: it matches no route.
            effects.setSniff(.malformed, name: ServerName())
            return refuse(.invalidName)
        }
        effects.setSniff(.ok, name: name)
        return .next
    }

    /// R6: without a name, only if there is exactly one route.
    private static func withoutName(
        _ outcome: SniffOutcome, _ refusal: Refusal, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        effects.setSniff(outcome, name: ServerName())
        return soleRoute(view) != nil ? .next : refuse(refusal)
    }

    /// Silence may be a client that waits for its server.
    private static func timedOut(
        _ stream: UnsafeBufferPointer<UInt8>, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        guard stream.isEmpty, !view.facts.isUpgraded, view.routes.speaking(.silent, at: view.facts.destination) != nil
        else {
            return withoutName(.timeout, .timeout, view, effects)
        }
        effects.setSniff(.timeout, name: ServerName())
        effects.setClientProtocol(.silent)
        return .next
    }

    private static func notTLS(
        _ stream: UnsafeBufferPointer<UInt8>, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        // It was told to begin TLS: nothing else may reach a backend, which was told the same.
        guard !view.facts.isUpgraded else {
            effects.setSniff(.notTLS, name: ServerName())
            return refuse(.notTLS)
        }
        let client: ClientProtocol
        switch FirstBytes.look(at: stream) {
        case .ssh: client = .ssh
        case .postgresql: client = .postgresql
        case .other: client = .plain
        case .incomplete(let needs):
            client = .plain
            if view.input == .open, mayBecome(view) {
                effects.setSniffing()
                return .needBytes(view.facts.consumed + needs)
            }
        }
        effects.setSniff(.notTLS, name: ServerName())
        if view.routes.speaking(client, at: view.facts.destination) != nil {
            effects.setClientProtocol(client)
            return .next
        }
        guard let route = soleRoute(view), route.pointee.flags.contains(.allowNonTLS) else { return refuse(.notTLS) }
        return .next
    }

    /// Whether it matters here what first bytes that are no TLS become.
    private static func mayBecome(_ view: ConnectionView) -> Bool {
        let destination = view.facts.destination
        return view.routes.speaking(.ssh, at: destination) != nil
            || view.routes.speaking(.postgresql, at: destination) != nil
    }

    /// The only possible route for a TLS connection here.
    private static func soleRoute(_ view: ConnectionView) -> FoundRoute? {
        guard let route = view.routes.sole(at: view.facts.destination), !route.pointee.flags.contains(.raw) else {
            return nil
        }
        return route
    }

    private static func refuse(_ refusal: Refusal) -> Verdict { .refuse(refusal.rawValue) }
}
