import Pipeline

/// The `alerts` block. Without one, the defaults apply if a pipeline records flows.
public final class AlertsBlock: SettingsBlock {
    public let name = ""
    public let values: AlertSettings
    public var wantsConnectionRecords: Bool { true }

    public init(_ values: AlertSettings) { self.values = values }

    static let block = BlockDescriptor(
        "alerts", .single, formerly: "hints", of: AlertsBlock.self,
        "thresholds above which an instance's traffic raises an alert",
        absent: { $0.contains(.recordsFlows) ? AlertsBlock(AlertSettings()) : nil })

    public static let initial = AlertSettings()
    public static let lines: [Setting<AlertSettings>] = [
        threshold("fan_out", \.fanOut, "destinations that are new to the instance"),
        threshold("smtp", \.smtp, "connections to mail ports, refused ones included"),
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
                "bytes of both directions: more than FACTOR times the instance's usual volume, and more than SIZE"),
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
            "repeat", \.repeatEvery, .seconds(10)...(.seconds(86400)), "how often an ongoing alert is logged again"),
    ]

    /// Without a block, all alerts are off.
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
            SettingLine(keyword, [[.word("off")], more], "the most in a window before an alert: " + summary),
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
                message: "\(quoted(text)) is not a factor from \(range.lowerBound)x to \(range.upperBound)x",
                expected: "a whole number and `x`, like `10x`")
        }
        return .count(UInt64(value))
    }
}
