import Pipeline

/// The `alerts` block. Without one, the defaults hold where a pipeline records flows.
public final class AlertsBlock: SettingsBlock {
    public let name = ""
    public let values: AlertSettings
    public var wantsConnectionRecords: Bool { true }

    public init(_ values: AlertSettings) { self.values = values }

    static let block = BlockDescriptor(
        "alerts", .single, formerly: "hints", of: AlertsBlock.self,
        "from when on an instance's traffic is worth an operator's look",
        absent: { $0.contains(.recordsFlows) ? AlertsBlock(AlertSettings()) : nil })

    public static let initial = AlertSettings()
    public static let lines: [Setting<AlertSettings>] = [
        threshold("fan_out", \.fanOut, "destinations that the instance did not talk to before"),
        threshold("smtp", \.smtp, "connections to the ports of mail, also refused ones"),
        threshold("port_scan", \.portScan, "distinct addresses and ports that refused, or were refused"),
        Setting(
            SettingLine(
                "volume",
                [
                    [.word("off")],
                    [
                        .value(factor), .word("over"), .size(name: "size", (64 << 10)...(1 << 40)), .word("in"),
                        .duration(name: "window", windows),
                    ],
                ],
                "more bytes, both ways together, than so many times what is usual for the instance, and than the size"),
            text: { settings in
                settings.volume.map { "\($0.factor)x over \(sizeText($0.floor)) in \($0.window.configText)" } ?? "off"
            },
            apply: { settings, clause in
                guard let factor = clause.count(), let floor = clause.size(1), let window = clause.duration(2) else {
                    settings.volume = nil
                    return
                }
                settings.volume = AlertSettings.Volume(factor: UInt32(clamping: factor), floor: floor, in: window)
            }),
        .duration(
            "repeat", \.repeatEvery, .seconds(10)...(.seconds(86400)), "how often a alert that goes on is said again"),
    ]

    /// Nothing is to be looked for: there is no block.
    public static func make(_ values: AlertSettings, _ context: BlockContext) -> BlockOutcome {
        BlockOutcome(values.isOff ? nil : AlertsBlock(values))
    }

    private static let windows = TimeSpan.seconds(1)...(.seconds(3600))

    private static func threshold(
        _ keyword: String, _ path: any WritableKeyPath<AlertSettings, AlertSettings.Threshold?> & Sendable,
        _ summary: String
    ) -> Setting<AlertSettings> {
        let more: [ClauseSpec.Element] = [
            .count(name: "number", 0...UInt64(AlertSettings.countLimit)), .word("in"),
            .duration(name: "window", windows),
        ]
        return Setting(
            SettingLine(keyword, [[.word("off")], more], "more than so many of these in a window: " + summary),
            text: { settings in
                settings[keyPath: path].map { "\($0.count) in \($0.window.configText)" } ?? "off"
            },
            apply: { settings, clause in
                guard let count = clause.count(), let window = clause.duration(1) else {
                    settings[keyPath: path] = nil
                    return
                }
                settings[keyPath: path] = AlertSettings.Threshold(UInt32(clamping: count), in: window)
            })
    }

    /// `10x`, a whole number of times.
    private static let factor = ValueKind("FACTOR", expected: "a factor like `10x`", range: "2x–1000x") {
        text throws(ValueProblem) in
        let digits = text.dropLast()
        let range: ClosedRange<UInt32> = 2...1000
        guard text.hasSuffix("x"), let value = UInt32(digits), String(value) == digits, range.contains(value) else {
            throw ValueProblem(
                message: "\(quoted(text)) is no factor from \(range.lowerBound)x to \(range.upperBound)x",
                expected: "a whole number and `x`, like `10x`")
        }
        return .count(UInt64(value))
    }
}
