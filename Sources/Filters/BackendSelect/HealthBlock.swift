import Pipeline

/// `health NAME { … }`, its lines.
extension HealthSettings: SettingsBlock {
    static let block = BlockDescriptor(
        "health", .named, what: "health block", of: HealthSettings.self,
        "how this node checks ready backends, and what it does when all are out",
        use: { "write `backend health \($0)` in a pipeline" })

    public static let initial = Values()
    public static let lines: [Setting<Values>] = probes + failures

    private static let times = TimeSpan.milliseconds(100)...(.seconds(3600))

    private static let probes: [Setting<Values>] = [
        Setting(
            SettingLine(
                "probe", ProbeWords.forms,
                "the probe: a connect; a ClientHello answered by a ServerHello; a request and its status; a protocol's own "
                    + "greeting; texts that are sent, and what the answers begin with; or none"),
            text: { ProbeWords.text($0.probe) },
            apply: { $0.probe = ProbeWords.probe($1) }),
        Setting(
            SettingLine(
                "port", [[.value(port)]], "probe this port instead of the backend's", without: "the backend's"),
            text: { $0.port.map { "\($0)" } },
            apply: { $0.port = $1.custom() }),
        Setting(
            SettingLine(
                "address", [[.value(address)]], "probe this address instead of the backend's", without: "the backend's"),
            text: { $0.address.map { "\($0)" } },
            apply: { $0.address = $1.custom() }),
        Setting(
            SettingLine(
                "interval",
                [
                    [.duration(name: "duration", times)],
                    [.duration(name: "duration", times), .word("jitter"), .value(.percent(0...50))],
                ],
                "from the start of one probe of a backend to the next; each is longer or shorter by up to the jitter"
            ),
            text: { "\($0.interval.configText) jitter \($0.jitterPercent)%" },
            apply: { values, clause in
                if let interval = clause.duration() { values.interval = interval }
                if let percent = clause.count(1) { values.jitterPercent = UInt8(clamping: percent) }
            }),
        Setting(
            SettingLine(
                "timeout", [[.duration(name: "duration", TimeSpan.milliseconds(10)...(.seconds(3600)))]],
                "for the whole probe; at most the interval", without: "`1s`, or the interval if that is shorter"),
            text: { $0.wholeTimeout.configText },
            apply: { $0.timeout = $1.duration() }),
        .count("rise", \.rise, 1...100, "good probes in a row that bring a backend back"),
        .count("fall", \.fall, 1...100, "failed probes in a row that take it out"),
        Setting(
            SettingLine(
                "rate", [[.value(.perSecond(1...100_000, like: "500/s"))]],
                "the most probes started a second, over all backends of the block"),
            text: { "\($0.probesPerSecond)/s" },
            apply: { if let rate = $1.count() { $0.probesPerSecond = UInt32(clamping: rate) } }),
        .choice(
            "on_down", \.onDown, "established connections of a backend whose probes take it out: go on, or are reset"),
        .choice(
            "on_up", \.onUp,
            "established connections of backends of later priorities, when probes bring one of an earlier back: go on, or "
                + "are reset"),
    ]

    private static let failures: [Setting<Values>] = [
        Setting(
            SettingLine(
                "eject", ejectForms,
                "connect failures in a row that eject a backend, and for how long; each ejection in a row doubles the "
                    + "time, up to `max`"),
            text: { values in
                let policy = values.ejection
                return policy.after == 0
                    ? "off" : "after \(policy.after) for \(policy.base.configText) max \(policy.max.configText)"
            },
            apply: { values, clause throws(ValueProblem) in values.ejection = try ejection(clause) }),
        .choice(
            "panic", \.panic, "when all ready backends of a route are out: reset at once, or try them anyway"),
    ]

    private static let ejectForms: [[ClauseSpec.Element]] = {
        let after: [ClauseSpec.Element] = [
            .word("after"), .count(name: "number", 1...1000), .word("for"), .duration(name: "duration", times),
        ]
        let longest = ClauseSpec.Element.duration(name: "duration", times.lowerBound...(.seconds(86400)))
        return [[.word("off")], after, after + [.word("max"), longest]]
    }()

    public static func make(_ values: Values, _ context: BlockContext) -> BlockOutcome {
        var remarks: [BlockRemark] = []
        if values.probe == .off {
            for setting in probes.map(\.line.name) where setting != "probe" && context.said.contains(setting) {
                remarks.append(
                    BlockRemark(
                        .warning, at: setting, "`\(setting)` has no effect with `probe off`", help: "remove this line"))
            }
        }
        if let timeout = values.timeout, timeout > values.interval {
            remarks.append(
                BlockRemark(
                    .error, at: "timeout", "`timeout` is longer than the interval of \(values.interval.configText)",
                    expected: "at most \(values.interval.configText)",
                    help: "a backend has one probe in flight at most: make the timeout shorter or the interval longer"
                ))
        }
        return BlockOutcome(HealthSettings(context.name, values), remarks)
    }
}

// MARK: Values

extension HealthSettings {
    private static func ejection(_ clause: Clause) throws(ValueProblem) -> EjectionPolicy {
        guard let after = clause.count(), let base = clause.duration(1) else { return .none }
        let most = clause.duration(2) ?? max(base, .seconds(300))
        guard most >= base else {
            throw ValueProblem(
                message: "the longest ejection, \(most.configText), is shorter than the first, \(base.configText)",
                help: "write `max \(base.configText)` or longer")
        }
        return EjectionPolicy(after: UInt32(clamping: after), base: base, max: most)
    }

    private static let port = ValueKind("PORT", expected: "a port", range: "1–65535") { text throws(ValueProblem) in
        .custom(try ConfigValue.port(text))
    }

    private static let address = ValueKind("ADDRESS", expected: "an address") { text throws(ValueProblem) in
        guard let address = IPAddress(text), !address.isUnspecified else {
            throw ValueProblem(
                message: "\(quoted(text)) is not an address", expected: "an address like `fd00::10`, without a port")
        }
        return .custom(address)
    }
}
