import Pipeline

/// What the lines of a `route` or a `backends` block say, each with its place.
struct RouteDraft: Sendable {
    var id: Located<String>?
    var owner: Located<RouteBlock.Owner>?
    var ports: [Located<UInt16>] = []
    var group: Located<BackendsBlock>?
    var allowNonTLS: Located<Bool>?
    /// Each is a claim of its own; nil: none.
    var conditions: Located<[RouteCondition]>?
    /// In a `backends` block this alone.
    var backend = BackendFields()

    init() {}

    init(_ fields: BackendFields) { backend = fields }

    /// As the source has it: what its `backends` block says stands there.
    init(_ route: RouteBlock) {
        (id, owner, ports, group, allowNonTLS) = (route.id, route.owner, route.ports, route.group, route.allowNonTLS)
        conditions = route.conditions
        backend = route.own
    }
}

/// A line of `route` and `backends` blocks: its syntax, its row of the reference, what it does, and how it is printed.
///
/// It is a ``SettingLine`` as those of other blocks. What it says keeps its place, which the rules of routing need.
struct RouteSetting: Sendable {
    enum Reading: Sendable {
        /// By the line's forms.
        case clause(@Sendable (inout RouteDraft, Clause, SourceSpan) -> Void)
        /// For what forms can't say, and messages of its own. Such a line may be given twice if the flag is set.
        case words(repeats: Bool, @Sendable (Checker, WordSyntax, [WordSyntax], inout RouteDraft) -> Void)
    }

    let line: SettingLine
    /// A `backends` block has it as well; what it is there if it is not given. Nil: it has none.
    let withoutInGroup: String?
    /// Where the `backends` block of a route says it, so that the route can't: a `route file` never can, since its file names
    /// blocks. Nil: both may.
    let saidByGroup: (@Sendable (BackendsBlock) -> SourceSpan?)?
    let read: Reading
    /// What follows the keyword, a line each.
    let text: @Sendable (RouteDraft) -> [String]

    var keyword: String { line.keyword }
    var isOfGroups: Bool { withoutInGroup != nil }
    var repeats: Bool { if case .words(true, _) = read { true } else { false } }

    init(
        _ line: SettingLine, inGroup withoutInGroup: String? = nil,
        saidByGroup: (@Sendable (BackendsBlock) -> SourceSpan?)? = nil, read: Reading,
        text: @escaping @Sendable (RouteDraft) -> [String]
    ) {
        self.line = line
        self.withoutInGroup = withoutInGroup
        self.saidByGroup = saidByGroup
        self.read = read
        self.text = text
    }

    /// One of two words.
    static func flag(
        _ keyword: String, _ words: (yes: String, no: String),
        _ path: any WritableKeyPath<RouteDraft, Located<Bool>?> & Sendable, _ summary: String, inGroup: String? = nil,
        saidByGroup: (@Sendable (BackendsBlock) -> SourceSpan?)? = nil
    ) -> RouteSetting {
        RouteSetting(
            SettingLine(
                keyword, [[.choice(name: "value", [words.yes, words.no])]], summary, without: "`\(words.no)`"),
            inGroup: inGroup, saidByGroup: saidByGroup,
            read: .clause { $0[keyPath: path] = Located($1.word() == words.yes, $2) },
            text: { $0[keyPath: path].map { [$0.value ? words.yes : words.no] } ?? [] })
    }
}

/// The lines of both blocks, in the order of messages and of the reference.
enum RouteSettings {
    static let route = Block(keyword: "route", lines: all)
    static let group = Block(keyword: "backends", lines: all.filter(\.isOfGroups))

    struct Block: Sendable {
        let keyword: String
        let lines: [RouteSetting]
        var names: [String] { lines.map(\.keyword) }
    }

    private static let all = [id, owner, listen, when, backend, namedGroup] + shared
    private static let shared = [
        proxy, expectsProxy, allowNonTLS, balance, maxConnections, queue, idleTimeout, health, source,
    ]

    private static let id = RouteSetting(
        SettingLine(
            "id",
            [
                [
                    .value(
                        ValueKind("NAME", expected: "a name") { text throws(ValueProblem) in
                            .text(try ConfigValue.identifier(text))
                        })
                ]
            ], "names the route in logs, status and counters: letters, digits, `_ - . :`, at most 128",
            missing: .init("has no `id`", remedy: "add a line like `id rt_web`: a name for logs and status")),
        read: .clause { draft, clause, span in draft.id = clause.text().map { Located($0, span) } },
        text: { $0.id.map { [$0.value] } ?? [] })

    private static let owner = RouteSetting(
        SettingLine(
            "owner",
            [
                [
                    .value(
                        ValueKind("ORG/APP/ENV", expected: "ORG/APP/ENV") { text throws(ValueProblem) in
                            .custom(try ConfigValue.owner(text))
                        })
                ]
            ],
            "whose traffic it is; a hostname belongs to one env, which is all three: `acme/shop/prod` and "
                + "`acme/blog/prod` are two",
            missing: .init("has no `owner`", remedy: "add a line like `owner acme/shop/prod`: whose traffic this is")),
        read: .clause { draft, clause, span in
            draft.owner = clause.custom(as: RouteBlock.Owner.self).map { Located($0, span) }
        },
        text: { $0.owner.map { ["\($0.value.org)/\($0.value.app)/\($0.value.env)"] } ?? [] })

    private static let listen = RouteSetting(
        SettingLine(
            "listen",
            [[.list(ValueKind("PORT", expected: "ports") { .text($0) }, limit: Checker.portsPerRoute)]],
            "the ports that clients connect to, and ranges of them: `listen 443 30000-30100`; up to "
                + "\(Checker.portsPerName), without hostnames up to \(Checker.portsPerRoute)",
            missing: .init("has no `listen`", remedy: "add a line like `listen 443`")),
        read: .words(repeats: false) { $0.checkPorts($2, $1, &$3.ports) },
        text: { [describe($0.ports.map(\.value))] })

    private static let backend = RouteSetting(
        SettingLine(
            "backend",
            [
                [
                    .list(
                        ValueKind("ADDRESS:PORT", expected: "addresses like `[fd00::10]:8443`") { .text($0) },
                        limit: 1024)
                ],
                [
                    .text(name: "ADDRESS:PORT"),
                    .options([
                        ClauseSpec(
                            "weight", [.word("weight"), .count(name: "N", 0...UInt64(BackendSpec.weightLimit))]),
                        ClauseSpec("max", [.word("max"), .count(name: "N", 1...UInt64(UInt32.max))]),
                        ClauseSpec(
                            "priority", [.word("priority"), .count(name: "N", 0...UInt64(BackendSpec.backupPriority))]),
                        ClauseSpec("backup", [.word("backup")]),
                    ]),
                ],
            ],
            "an address, a name or a path, as below; several on a line or on several lines. For one alone on its "
                + "line: its share, the most connections at once that this node gives it, and when it serves. `weight "
                + "0` means none: no new connections, ever; old ones go on. New connections go to the lowest priority "
                + "with a backend that is up; `backup` is `priority 15` (docs/filters/backend.md, *Priorities*)",
            missing: .init(
                "has no `backend`",
                remedy: "add a line like `backend [fd00::10]:8443`, or `backends NAME` for those of a `backends` block")
        ),
        inGroup: "required", saidByGroup: { $0.name.span },
        read: .words(repeats: true) { $0.checkBackends($2, $1, &$3.backend.backends) },
        text: { $0.backend.backends.map { describe($0.value) } })

    private static let namedGroup = RouteSetting(
        SettingLine(
            "backends", [[.text(name: "NAME")]], "the servers of a [`backends`](#backends) block",
            without: "in place of `backend`"),
        saidByGroup: { _ in nil },
        read: .words(repeats: false) { checker, keyword, words, draft in
            guard
                let word = checker.onlyWord(words, of: keyword, expected: "the name of a `backends` block")
            else { return }
            draft.group = checker.group(word).map { Located($0, word.span) }
        },
        text: { $0.group.map { [$0.value.name.value] } ?? [] })

    private static let proxy = RouteSetting(
        SettingLine(
            "proxy_protocol", [[.choice(name: "version", [SentHeader.v2, .v1, .off].map(\.rawValue))]],
            "put a PROXY header of that version in front; its pipeline has the stage that writes it",
            without: "`off`"),
        inGroup: "as the route says", saidByGroup: { $0.proxyHeader?.span },
        read: .clause { draft, clause, span in
            draft.backend.proxyHeader = SentHeader(rawValue: clause.word() ?? "").map { Located($0, span) }
        },
        text: { $0.backend.proxyHeader.map { [$0.value.rawValue] } ?? [] })

    private static let expectsProxy = RouteSetting.flag(
        "backend_expects_proxy_protocol", ("true", "false"), \.backend.backendExpectsProxy,
        "must agree with `proxy_protocol`", inGroup: "as the route says", saidByGroup: { $0.backendExpectsProxy?.span })

    private static let allowNonTLS = RouteSetting.flag(
        "allow_non_tls", ("true", "false"), \.allowNonTLS,
        "relay bytes that are no TLS, if this is the only route of its address and port")

    private static let balance = RouteSetting(
        SettingLine(
            "balance", [[.choice(name: "balance", Balance.allCases.map(\.name))]],
            "how connections spread over backends", without: "as the `backend` stage says"),
        inGroup: "as the route or the `backend` stage says", saidByGroup: { $0.balance?.span },
        read: .clause { draft, clause, span in
            draft.backend.balance = Balance.allCases.first { $0.name == clause.word() }.map { Located($0, span) }
        },
        text: { $0.backend.balance.map { [$0.value.name] } ?? [] })

    private static let maxConnections = RouteSetting(
        SettingLine(
            "max_connections", [[.count(name: "N", 1...UInt64(UInt32.max))]],
            "the most connections at once on this node, of the route or over all routes of the block; the newest is "
                + "refused",
            without: "no limit"),
        inGroup: "no limit",
        read: .clause { draft, clause, span in
            draft.backend.maxConnections = clause.count().map { Located(UInt32(clamping: $0), span) }
        },
        text: { $0.backend.maxConnections.map { ["\($0.value)"] } ?? [] })

    private static let queue = RouteSetting(
        SettingLine(
            "queue",
            [
                [
                    .count(name: "N", Checker.queueLimit), .word("for"),
                    .duration(name: "TIME", Checker.queuePatience),
                ]
            ],
            "at `max_connections`, and when every backend in use is at its `max`: up to N connections wait for a place, "
                + "each for TIME at most. For the limits of a `backends` block write it there "
                + "(docs/filters/backend.md, *Waiting for a place*)",
            without: "nobody waits"),
        inGroup: "nobody waits",
        read: .words(repeats: false) { $3.backend.queue = $0.queue($2, $1) },
        text: { $0.backend.queue.map { [$0.value.configText] } ?? [] })

    private static let idleTimeout = RouteSetting(
        SettingLine(
            "idle_timeout", [[.duration(name: "time", Checker.idleTimes)], [.word("off")]],
            "a connection ends once neither side has sent anything for this long (`relay.idle_timeout`); a route's holds "
                + "where its block has one too. A reload changes it for new connections",
            without: "as its `backends` block, else as the `backend` stage says"),
        inGroup: "as the `backend` stage says",
        read: .words(repeats: false) { checker, keyword, words, draft in
            guard let word = checker.onlyWord(words, of: keyword, expected: "a time or `off`") else { return }
            draft.backend.idleTimeout = checker.idleTimeout(word)
        },
        text: { $0.backend.idleTimeout.map { [$0.value == .zero ? "off" : $0.value.configText] } ?? [] })

    private static let health = RouteSetting(
        SettingLine(
            "health", [[.block(name: "NAME", .health)], [.word("off")]],
            "the `health` block that holds for its backends; `off`: neither probed nor ejected",
            without: "as the `backend` stage says"),
        inGroup: "as the route or the `backend` stage says", saidByGroup: { $0.health?.span },
        read: .clause { draft, clause, span in
            draft.backend.health = Located((clause.block() as? any RouteHealthBlock)?.routeHealth ?? .off, span)
        },
        text: { $0.backend.health.map { [$0.value.name ?? "off"] } ?? [] })

    private static let source = RouteSetting(
        SettingLine(
            "source",
            [
                [
                    .list(
                        ValueKind("ADDRESS", expected: ConfigValue.sourceForm) { .text($0) },
                        limit: SourceSpec.wordLimit)
                ],
                [.choice(name: "whose", ["client", "off"])],
            ],
            "where connections to its backends come from: addresses, prefixes or ranges (`192.0.2.10-192.0.2.20`), which "
                + "take turns, each for backends of its family; `client`: the client's own address; `off`: the kernel "
                + "chooses. A route's holds where its block has one too. A reload changes it for new connections "
                + "(docs/filters/backend.md, *Source addresses*)",
            without: "as its `backends` block, else as the `backend` stage says"),
        inGroup: "as the `backend` stage says",
        read: .words(repeats: false) { $3.backend.source = $0.source($2, $1) },
        text: { $0.backend.source.map { [$0.value.configText] } ?? [] })
}
