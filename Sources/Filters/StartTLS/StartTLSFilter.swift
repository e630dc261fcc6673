import Pipeline
import PipelineWire

/// `starttls postgresql|smtp|imap|ldap`: answers a client's request for TLS in its server's place, so that the ClientHello comes, and
/// `sni` can read the name; then asks the backend for the same, before the hello goes there. Nothing is decrypted.
public enum StartTLSFilter: Filter {
    public struct Settings: Sendable {
        let opening: Opening
        /// How long the client may take, from accept.
        let timeout: TimeSpan
        /// How long the backend may take for its part, from its accept.
        let backendTimeout: TimeSpan
        /// SMTP: how the node calls itself.
        let name: FrozenArray<UInt8>
    }

    /// How clients say that they want TLS.
    enum Opening: String, CaseIterable {
        case postgresql, smtp, imap, ldap
    }

    enum Refusal: UInt8, CaseIterable {
        case pipelined, malformed, noTLS, timeout, closed, backendRefused, backendMalformed
    }

    public static let defaultTimeout = TimeSpan.seconds(10)
    public static let defaultBackendTimeout = TimeSpan.seconds(5)
    private static let times = TimeSpan.milliseconds(100)...TimeSpan.seconds(60)

    public static let descriptor = FilterDescriptor(
        keyword: "starttls",
        summary:
            "answers requests for TLS in the clear, so that the name in the ClientHello is read, and asks backends "
            + "for the same",
        reads: [.client],
        gives: [.upgrade],
        clauses: [
            ClauseSpec(
                "protocol", [.choice(name: "protocol", Opening.allCases.map(\.rawValue))], required: true,
                summary: "whose request for TLS is answered"),
            ClauseSpec(
                "timeout", [.word("timeout"), .duration(name: "time", times)],
                summary: "how long the client may take for its request, from accept; default 10s"),
            ClauseSpec(
                "name", [.word("name"), .text(name: "hostname")],
                summary: "with `smtp`: how the node calls itself, to clients and to backends"),
            ClauseSpec(
                "backend_timeout", [.word("backend_timeout"), .duration(name: "time", times)],
                summary: "how long a backend may take to answer the same request, from its accept; default 5s"),
        ],
        reasons: [
            ReasonSpec("pipelined", .client, "Bytes came behind the request for TLS before it was answered."),
            ReasonSpec("malformed", .client, "The client's requests are not of the protocol."),
            ReasonSpec("no_tls", .client, "The client wants something else than TLS, or says too much before it."),
            ReasonSpec("timeout", .client, "The client did not ask for TLS in time."),
            ReasonSpec("closed", .client, "The client left before it asked for TLS."),
            ReasonSpec("backend_refused", .upstream, "The backend does not begin TLS."),
            ReasonSpec(
                "backend_malformed", .upstream,
                "The backend's answer is not of the protocol, or more came behind it."),
        ],
        endings: [
            .upgradeTimeout: "backend_timeout", .upgradeClosed: "backend_closed", .answerUntaken: "answer_untaken",
        ])

    public static func settings(_ directive: Directive) throws(SettingsError) -> Settings {
        var opening = Opening.postgresql
        if case .word(let name)? = directive.first("protocol")?.values.first, let known = Opening(rawValue: name) {
            opening = known
        }
        return Settings(
            opening: opening, timeout: directive.duration("timeout") ?? defaultTimeout,
            backendTimeout: directive.duration("backend_timeout") ?? defaultBackendTimeout,
            name: FrozenArray(Array(try name(directive, opening).utf8)))
    }

    private static func name(_ directive: Directive, _ opening: Opening) throws(SettingsError) -> String {
        guard let clause = directive.first("name"), case .text(let name)? = clause.values.first else {
            guard opening != .smtp else {
                throw SettingsError(
                    "`starttls smtp` greets clients, and says no name",
                    remedy: "write `name HOSTNAME`, such as mx.example.com")
            }
            return ""
        }
        guard opening == .smtp else {
            throw SettingsError("`name` is for `smtp` alone", remedy: "remove `name`", clause: "name")
        }
        let isFine = name.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."):
                true
            default: false
            }
        }
        guard isFine, (1...253).contains(name.utf8.count) else {
            throw SettingsError(
                "\(quoted(name)) is not a hostname", remedy: "write a name like mx.example.com", clause: "name")
        }
        return name
    }

    public static func dispose(_ settings: Settings) { settings.name.deallocate() }

    public static func facts(_ settings: Settings) -> StageFacts {
        StageFacts(reads: descriptor.reads, gives: descriptor.gives, capabilities: .upgradesToTLS)
    }

    public static func peek(_ settings: Settings) -> PeekNeed? {
        let bytes =
            switch settings.opening {
            case .postgresql: 2 * PostgreSQLStart.headLength
            case .smtp, .imap: dialogueLimit + lineLimit
            case .ldap: LDAPMessage.limit
            }
        return PeekNeed(bytes: bytes, timeout: settings.timeout, consumes: true)
    }

    public static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        // R2: a raw route is never peeked.
        guard view.facts.hint == .tlsPassthrough else { return .next }
        switch settings.opening {
        case .postgresql: return answerPostgreSQL(settings, view, effects)
        case .smtp, .imap: return answerMail(settings, view, effects)
        case .ldap: return answerLDAP(settings, view, effects)
        }
    }

    public static func upgrade(
        _ settings: Settings, _ answer: UnsafeBufferPointer<UInt8>, _ view: ConnectionView, _ effects: Effects
    ) -> UpgradeStep {
        switch settings.opening {
        case .postgresql: return askPostgreSQL(answer, effects)
        case .smtp: return askSMTP(settings, answer, effects)
        case .imap: return askIMAP(answer, effects)
        case .ldap: return askLDAP(answer, effects)
        }
    }

    /// The client's bytes that nothing has consumed.
    static func stream(_ view: ConnectionView) -> UnsafeBufferPointer<UInt8> {
        UnsafeBufferPointer(rebasing: view.bytes[min(view.facts.consumed, view.bytes.count)...])
    }

    /// So many bytes more were for this node: nobody else reads them.
    static func take(_ length: Int, _ view: ConnectionView, _ effects: Effects) -> Verdict {
        let consumed = view.facts.consumed + length
        effects.consume(consumed)
        return .needBytes(consumed + 1)
    }

    /// Leaves the memory to the stages below.
    static func pass(_ effects: Effects) -> Verdict {
        effects.forgetKept()
        return .next
    }

    static func refuse(_ refusal: Refusal) -> Verdict { .refuse(refusal.rawValue) }
    static func refuseBackend(_ refusal: Refusal) -> UpgradeStep { .refuse(refusal.rawValue) }

    public static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        guard view.facts.hint == .tlsPassthrough else { return "skipped: the listener is raw TCP" }
        switch verdict {
        case .refuse(Refusal.pipelined.rawValue):
            return "bytes follow the request for TLS before it was answered: they could be somebody else's"
        case .refuse(Refusal.noTLS.rawValue):
            return "the client wants something else than TLS, or says too much before it"
        case .refuse(Refusal.timeout.rawValue): return "the client does not ask for TLS in time"
        case .refuse(Refusal.closed.rawValue): return "the client leaves before it asks for TLS"
        case .refuse: return "the client's requests are not \(settings.opening.rawValue)'s"
        case .needBytes where view.facts.isUpgraded:
            return "the client asks for TLS and is told to begin; the backend will be asked for the same"
        case .needBytes: return "waits for a request for TLS"
        case .next, .inspect, .wait:
            return view.facts.isUpgraded
                ? "the client has been told to begin TLS, and the backend will be"
                : "no request for TLS: the bytes are passed on as they are"
        }
    }
}
