import Pipeline

/// Settings of `node` about its reloads.
extension NodeBlock {
    static let reloads: [Setting<NodeSettings>] = [
        Setting(
            SettingLine(
                "canary",
                [
                    [
                        .value(shareKind), .word("for"), .duration(name: "duration", .seconds(1)...(.seconds(604_800))),
                        .options(canaryOptions),
                    ]
                ],
                "a reload's new program takes this share of new connections first (R29): of clients' networks (`client`, "
                    + "/64, IPv4 by /32), or of connections; it goes everywhere after that time, or is rolled back",
                without: "a reload goes everywhere at once"),
            text: { $0.canary?.text },
            apply: { settings, clause in
                guard let percent = clause.count(), let time = clause.duration(1) else { return }
                settings.canary = CanarySettings(
                    percent: Int(clamping: percent), time: time,
                    unit: clause.option("by")?.word().flatMap(CanarySettings.Unit.init(rawValue:)) ?? .client)
            })
    ]

    private static let canaryOptions = [
        ClauseSpec(
            "by", [.word("by"), .choice(name: "unit", CanarySettings.Unit.allCases.map(\.rawValue))])
    ]

    private static let shareKind = ValueKind("PERCENT", expected: "a share like `5%`", range: "1%–50%") {
        text throws(ValueProblem) in
        let wanted = ValueProblem(
            message: "\(quoted(text)) is not a canary's share", expected: "`1%` to `50%`",
            help: "the others are what it is compared with, and must not be fewer")
        guard text.hasSuffix("%"), let percent = UInt64(text.dropLast()), (1...50).contains(percent),
            "\(percent)%" == text
        else { throw wanted }
        return .count(percent)
    }
}
