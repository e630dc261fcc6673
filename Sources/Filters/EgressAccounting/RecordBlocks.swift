import Pipeline

/// `export ipfix udp|tcp ADDRESS:PORT …`: a collector for flow records.
public final class ExportBlock: SettingsBlock {
    public let values: ExportSettings
    public var name: String { "\(values.transport.rawValue) \(values.collector)" }

    init(_ values: ExportSettings) { self.values = values }

    static let block = BlockDescriptor(
        "export", .line(limit: ExportSettings.limit, remedy: "let one collector forward the records"),
        of: ExportBlock.self, "where flow records go, as IPFIX (RFC 7011)")

    public static let initial = ExportSettings(transport: .udp, collector: Endpoint(.unspecified, 0))
    public static let lines: [Setting<ExportSettings>] = [
        Setting(
            SettingLine(
                "export",
                [
                    [
                        .word("ipfix"),
                        .choice(name: "transport", ExportSettings.Transport.allCases.map(\.rawValue)),
                        .value(collector), .options(options),
                    ]
                ], "sends flow records to this collector",
                without: "`domain 1`, `enterprise 32473`, `templates 1m`, `queue 65536`"),
            text: { settings in
                var text = "ipfix \(settings.transport.rawValue) \(settings.collector) domain \(settings.domain) "
                text += "enterprise \(settings.enterprise) queue \(countText(UInt64(clamping: settings.queue)))"
                return settings.transport == .udp ? text + " templates \(settings.templates.configText)" : text
            },
            apply: { settings, clause throws(ValueProblem) in settings = try read(clause) })
    ]

    private static let options: [ClauseSpec] = [
        // Domain 0 means that no single domain applies (RFC 7011 §3.1), which does not occur here.
        ClauseSpec("domain", [.word("domain"), .count(name: "number", 1...UInt64(UInt32.max))]),
        ClauseSpec("enterprise", [.word("enterprise"), .value(enterprise)]),
        ClauseSpec("templates", [.word("templates"), .duration(name: "duration", .seconds(1)...(.seconds(3600)))]),
        ClauseSpec("queue", [.word("queue"), .count(name: "number", 1000...4_000_000)]),
    ]

    private static func read(_ clause: Clause) throws(ValueProblem) -> ExportSettings {
        guard let transport = clause.word().flatMap(ExportSettings.Transport.init(rawValue:)),
            let collector = clause.custom(1, as: Endpoint.self)
        else { throw ValueProblem(message: "`export` is incomplete") }
        var settings = ExportSettings(transport: transport, collector: collector)
        if let domain = clause.option("domain")?.count() { settings.domain = UInt32(clamping: domain) }
        if let number = clause.option("enterprise")?.count() { settings.enterprise = UInt32(clamping: number) }
        if let queue = clause.option("queue")?.count() { settings.queue = Int(clamping: queue) }
        guard let templates = clause.option("templates")?.duration() else { return settings }
        guard transport == .udp else {
            throw ValueProblem(
                message: "over TCP, templates are sent once per connection", help: "remove `templates`",
                word: "templates"
            )
        }
        settings.templates = templates
        return settings
    }

    public static func make(_ values: ExportSettings, _ context: BlockContext) -> BlockOutcome {
        BlockOutcome(ExportBlock(values))
    }

    private static let collector = ValueKind("ADDRESS:PORT", expected: "the collector, like `[::1]:4739`") {
        text throws(ValueProblem) in
        let endpoint = try ConfigValue.endpoint(text)
        guard !endpoint.address.isUnspecified else {
            throw ValueProblem(message: "\(quoted(text)) is not a host's address", expected: "the collector's address")
        }
        return .custom(endpoint)
    }

    private static let enterprise = ValueKind("NUMBER", expected: "a number like `32473`", range: "1–4294967295") {
        text throws(ValueProblem) in
        let number = try ConfigValue.count(text, 1...UInt64(UInt32.max))
        guard number != 29305 else {
            throw ValueProblem(
                message: "29305 is reserved for the reverse direction (RFC 5103)",
                expected: "your own enterprise "
                    + "number")
        }
        return .count(number)
    }
}

/// `ledger PATH [minutes T] [hours T] [days T]` in `node`.
public final class LedgerBlock: SettingsBlock {
    public let name = ""
    public let values: LedgerSettings

    init(_ values: LedgerSettings) { self.values = values }

    static let block = BlockDescriptor(
        "ledger", .nodeLine, of: LedgerBlock.self, "where flows are stored, and for how long (R21)")

    public static let initial = LedgerSettings(path: "")
    public static let lines: [Setting<LedgerSettings>] = [
        Setting(
            SettingLine(
                "ledger",
                [[.value(.path("ledger", of: "file", like: "/var/lib/pipelined/ledger.db")), .options(levels)]],
                "where the flows of `account every` are stored, and how long minutes, hours and days are kept",
                without: "none; `2d`, `30d`, `400d`"),
            text: { settings in
                "\(settings.path) minutes \(text(settings.minutes)) hours \(text(settings.hours)) days \(text(settings.days))"
            },
            apply: { settings, clause throws(ValueProblem) in
                settings.path = clause.text() ?? ""
                if let kept = clause.option("minutes")?.duration() { settings.minutes = kept }
                if let kept = clause.option("hours")?.duration() { settings.hours = kept }
                if let kept = clause.option("days")?.duration() { settings.days = kept }
                guard settings.minutes <= settings.hours, settings.hours <= settings.days else {
                    throw ValueProblem(
                        message: "a coarser level of the ledger is kept for less time than a finer one",
                        help: "minutes, hours and days are each a summary of the one before: keep them longer",
                        word: settings.path)
                }
            })
    ]

    public static func make(_ values: LedgerSettings, _ context: BlockContext) -> BlockOutcome {
        BlockOutcome(LedgerBlock(values))
    }

    private static let levels = ["minutes", "hours", "days"].map { level in
        ClauseSpec(level, [.word(level), .value(retention)])
    }

    /// Days where it is whole days: `2d`.
    private static func text(_ span: TimeSpan) -> String {
        let day: UInt64 = 86_400_000_000_000
        return span.nanoseconds % day == 0 ? "\(span.nanoseconds / day)d" : span.configText
    }

    /// `400d`, or hours as durations are written.
    private static let retention = ValueKind("T", expected: "how long to keep them, like `30d`", range: "1h–3650d") {
        text throws(ValueProblem) in
        let expected = "a time from `1h` to `3650d`"
        if text.last == "d", let days = UInt64(text.dropLast()), "\(days)d" == text {
            guard (1...3650).contains(days) else {
                throw ValueProblem(message: "\(quoted(text)) is out of range", expected: expected)
            }
            return .duration(TimeSpan(nanoseconds: days * 86_400_000_000_000))
        }
        guard text.last == "h" else {
            throw ValueProblem(message: "\(quoted(text)) is not a retention time", expected: expected)
        }
        return .duration(try ConfigValue.duration(text, .seconds(3600)...(.seconds(3650 * 86400))))
    }
}

/// `conntrack every DURATION [table N]` in `node`.
public final class ConntrackBlock: SettingsBlock {
    public let name = ""
    public let values: ConntrackCounting

    init(_ values: ConntrackCounting) { self.values = values }

    static let block = BlockDescriptor(
        "conntrack", .nodeLine, of: ConntrackBlock.self,
        "counts traffic that passes no worker, from the kernel's "
            + "conntrack table")

    public static let initial = ConntrackCounting(interval: .seconds(5))
    public static let lines: [Setting<ConntrackCounting>] = [
        Setting(
            SettingLine(
                "conntrack",
                [
                    [
                        .word("every"), .duration(name: "duration", .seconds(1)...(.seconds(3600))),
                        .options([ClauseSpec("table", [.word("table"), .count(name: "n", 1000...16_000_000)])]),
                    ]
                ],
                "how often conntrack is read for UDP, ICMP and other traffic that passes no worker; `table`: the most "
                    + "connections tracked at once", without: "none; `table 1M`"),
            text: { "every \($0.interval.configText) table \($0.tableLimit)" },
            apply: { settings, clause in
                if let interval = clause.duration() { settings.interval = interval }
                if let limit = clause.option("table")?.count() { settings.tableLimit = Int(clamping: limit) }
            })
    ]

    public static func make(_ values: ConntrackCounting, _ context: BlockContext) -> BlockOutcome {
        BlockOutcome(ConntrackBlock(values))
    }
}

extension Program {
    /// The alert thresholds; nil: alerts are off.
    public var alerts: AlertSettings? { blocks.only(AlertsBlock.self)?.values }
    /// The collectors, in source order.
    public var exports: [ExportSettings] { blocks.all(of: ExportBlock.self).map(\.values) }
    /// The ledger; nil: none.
    public var ledger: LedgerSettings? { blocks.only(LedgerBlock.self)?.values }
    /// The conntrack settings; nil: off.
    public var conntrack: ConntrackCounting? { blocks.only(ConntrackBlock.self)?.values }
}
