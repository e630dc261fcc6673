import Pipeline

extension Setting where Values == NodeSettings {
    /// `cooldown 1h ipv4 24h`; of one time alone the other stays, but `0s` is for both.
    static var cooldown: Setting<NodeSettings> {
        let range = TimeSpan.zero...TimeSpan.seconds(2_592_000)
        return Setting(
            SettingLine(
                "cooldown",
                [
                    [.duration(name: "duration", range)],
                    [.duration(name: "duration", range), .word("ipv4"), .duration(name: "duration", range)],
                ],
                "how long an address that was another env's is not served; `0s`: it is at once"),
            text: { $0.cooldown.text },
            apply: { settings, clause in
                let spans = clause.values.compactMap { value -> TimeSpan? in
                    if case .duration(let span) = value { span } else { nil }
                }
                guard let first = spans.first else { return }
                settings.cooldown.instances = first
                if spans.count > 1 {
                    settings.cooldown.ipv4 = spans[1]
                } else if first == .zero {
                    settings.cooldown = .off
                }
            })
    }
}
