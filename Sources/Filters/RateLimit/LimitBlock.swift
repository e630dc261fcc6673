import Pipeline
import PipelineLimits

/// The values of a `limit` block while it is read.
public struct LimitValues: Sendable {
    var key: LimitKey?
    var rate: ConnectionRate?
    var concurrent: UInt32?
    var bytesUp: ByteRate?
    var bytesDown: ByteRate?
    var entries: UInt64?
}

extension LimitTable: SettingsBlock {
    static let block = BlockDescriptor(
        "limit", .named, of: LimitTable.self, "limits of connections and bytes for each key",
        use: { "write `rate_limit \($0)` in a pipeline" })

    public static let initial = LimitValues()

    public var values: LimitValues {
        LimitValues(
            key: settings.key, rate: settings.rate, concurrent: settings.concurrent, bytesUp: settings.bytesUp,
            bytesDown: settings.bytesDown, entries: settings.entries)
    }

    public static let lines: [Setting<LimitValues>] = [
        Setting(
            SettingLine(
                "key", [[.value(LimitWords.key)], [.value(LimitWords.key), .value(LimitWords.v4)]],
                "what is counted: connections by the client's network (prefix lengths for IPv6 and IPv4), by what "
                    + "they go to, by `listen` line, or each by itself; `env`, `org` and `instance` are the sender's where it is known",
                without: "`/64`, `v4/32`",
                missing: SettingLine.Missing(
                    "has no key", remedy: "add a key, for example `key client/64`")),
            text: { $0.key.map(LimitWords.text) },
            apply: { values, clause throws(ValueProblem) in values.key = try key(clause) }),
        Setting(
            SettingLine(
                "rate",
                [
                    [.value(LimitWords.connections)],
                    [.value(LimitWords.connections), .word("burst"), .count(name: "n", 1...1_000_000)],
                ], "new connections; a burst must be refilled within 30 days",
                without: "no limit; burst: one second's connections, at least 1"),
            text: { $0.rate.map(LimitWords.text) },
            apply: { values, clause throws(ValueProblem) in values.rate = try rate(clause) }),
        Setting(
            SettingLine("concurrent", [[.count(name: "n", 1...1_000_000)]], "connections at once", without: "no limit"),
            text: { $0.concurrent.map { countText(UInt64($0)) } },
            apply: { $0.concurrent = $1.count().map { UInt32(clamping: $0) } }),
        bytes("bytes_up", \.bytesUp, "client to backend"),
        bytes("bytes_down", \.bytesDown, "backend to client"),
        Setting(
            SettingLine(
                "table", [[.count(name: "n", 1...LimitSettings.entryLimit)]],
                "the most entries, rounded up to a multiple of 8; each active key needs one",
                missing: SettingLine.Missing(
                    "has no bound",
                    remedy:
                        "write the most entries, for example `table 100k`: one for each key that is active")),
            text: { $0.entries.map(countText) }, apply: { $0.entries = $1.count() }),
        Setting(
            SettingLine(
                "when_full", [[.value(whenFull)]],
                "a full table refuses new keys; evicting an entry would grant its key a fresh burst"),
            text: { _ in "refuse" }, apply: { _, _ in }),
    ]

    private static func bytes(
        _ keyword: String, _ path: any WritableKeyPath<LimitValues, ByteRate?> & Sendable, _ summary: String
    ) -> Setting<LimitValues> {
        Setting(
            SettingLine(
                keyword,
                [
                    [.value(LimitWords.bytes)],
                    [.value(LimitWords.bytes), .word("burst"), .size(name: "size", 4096...(64 << 30))],
                ], summary, without: "no limit; burst: one second's bytes, at least `64KiB`"),
            text: { $0[keyPath: path].map(LimitWords.text) },
            apply: { values, clause in
                guard let rate = clause.custom(as: ByteRate.self) else { return }
                values[keyPath: path] = ByteRate(bytesPerSecond: rate.bytesPerSecond, burst: clause.size(1))
            })
    }

    private static func key(_ clause: Clause) throws(ValueProblem) -> LimitKey? {
        let key = clause.custom(as: LimitKey.self)
        guard let v4 = clause.count(1) else { return key }
        guard case .client(let v6, _)? = key else {
            throw ValueProblem(
                message: "only `client` takes prefix lengths", expected: "the end of the line",
                help: "remove `v4/\(v4)`")
        }
        return .client(v6: v6, v4: UInt8(clamping: v4))
    }

    private static func rate(_ clause: Clause) throws(ValueProblem) -> ConnectionRate? {
        guard let rate = clause.custom(as: ConnectionRate.self), let burst = clause.count(1) else {
            return clause.custom(as: ConnectionRate.self)
        }
        let result = ConnectionRate(count: rate.count, period: rate.period, burst: burst)
        guard result.refill < ConnectionRate.longestRefill else {
            throw ValueProblem(
                message:
                    "a burst of \(burst) takes more than 30 days to refill at \(LimitWords.textWithoutBurst(rate))",
                help: "write a smaller burst, or a higher rate")
        }
        return result
    }

    private static let whenFull = ValueKind("refuse", expected: "`refuse`") { text throws(ValueProblem) in
        guard text == "refuse" else {
            throw ValueProblem(
                message: "a full table can't \(quoted(text))", expected: "`refuse`",
                help: text.hasPrefix("evict")
                    ? "idle entries are reused anyway; evicting others would give their keys a fresh "
                        + "burst" : nil)
        }
        return .word(text)
    }

    /// A block with unchanged settings reuses the running block, so that a reload keeps its table.
    public static func make(_ values: LimitValues, _ context: BlockContext) -> BlockOutcome {
        var remarks: [BlockRemark] = []
        let limits = ["rate", "concurrent", "bytes_up", "bytes_down"]
        if context.said.isDisjoint(with: limits) {
            remarks.append(
                BlockRemark(
                    .error, "the limit `\(context.name)` limits nothing",
                    expected: orList(limits.map { "`\($0)`" }), help: "for example `rate 200/s burst 400`"))
        }
        if values.key == .connection {
            for line in ["rate", "concurrent"] where context.said.contains(line) {
                remarks.append(
                    BlockRemark(
                        .error, at: line, "`\(line)` counts connections, and with `key connection` each is alone",
                        help: "write another key, such as `client/64`, or `bytes_up` and `bytes_down` only"))
            }
        }
        let settings = LimitSettings(
            key: values.key ?? .listener, rate: values.rate, concurrent: values.concurrent, bytesUp: values.bytesUp,
            bytesDown: values.bytesDown, entries: values.entries ?? 1)
        if let running = context.running as? LimitTable, running.settings == settings {
            return BlockOutcome(running, remarks)
        }
        guard let table = LimitTable(name: context.name, settings: settings) else {
            let problem = BlockRemark(
                .error, "not enough memory for \(countText(settings.entries)) entries",
                help: "write a smaller `table`")
            return BlockOutcome(nil, remarks + [problem])
        }
        return BlockOutcome(table, remarks)
    }
}
