import Pipeline

/// What may follow `via PIPELINE` in `listen` and `expose` lines, in any order: one table for parsing, `check --print` and
/// docs/LANGUAGE.md.
enum ListenerWords {
    static let settings: [Setting<ListenerOptions>] = [
        Setting(
            SettingLine(
                "interface", [[.value(interface)]],
                "only connections that come in by this interface; a reload that changes it opens new sockets",
                without: "any"),
            text: { $0.interface }, apply: { $0.interface = $1.text() }),
        Setting(
            SettingLine(
                "backlog", [[.count(name: "number", 1...65535)]],
                "connections waiting to be accepted, per worker and port; `net.core.somaxconn` caps it",
                without: "as `node` says"),
            text: { $0.backlog.map { countText(UInt64(clamping: $0)) } },
            apply: { $0.backlog = $1.count().map { Int(clamping: $0) } }),
        Setting(
            SettingLine(
                "fastopen", [[.value(fastOpen)]],
                "TCP Fast Open: connections with data in their SYN that may wait for the end of the handshake, per worker "
                    + "and port", without: "`off`"),
            text: { $0.fastOpen > 0 ? countText(UInt64(clamping: $0.fastOpen)) : nil },
            apply: { $0.fastOpen = $1.count().map { Int(clamping: $0) } ?? 0 }),
        Setting(
            SettingLine(
                "multipath", [[.choice(name: "multipath", ["on", "off"])]],
                "Multipath TCP for clients that offer it, plain TCP for others; a reload that changes it opens new sockets",
                without: "`off`"),
            text: { $0.multipath ? "on" : nil }, apply: { $0.multipath = $1.word() == "on" }),
    ]

    /// The options of a line.
    static let spec = ClauseSpec(
        "options",
        [
            .options(
                settings.map { setting in
                    ClauseSpec(
                        setting.line.keyword,
                        [.word(setting.line.keyword)] + (setting.line.forms.first?.elements ?? []))
                })
        ])

    static func read(_ clause: Clause) throws(ValueProblem) -> ListenerOptions {
        var options = ListenerOptions()
        for setting in settings {
            if let given = clause.option(setting.line.keyword) { try setting.apply(&options, given) }
        }
        return options
    }

    /// With a blank in front; empty: nothing but defaults.
    static func text(_ options: ListenerOptions) -> String {
        settings.compactMap { setting in setting.text(options).map { " \(setting.line.keyword) \($0)" } }.joined()
    }

    /// Of an intercepting listener, which has one port for all of its family.
    static let ofIntercepting = ["backlog"]

    private static let interface = ValueKind("NAME", expected: "the name of an interface like `eth0`") {
        text throws(ValueProblem) in
        guard ConfigValue.isInterface(text) else {
            throw ValueProblem(
                message: "\(quoted(text)) can't be the name of an interface",
                expected: "the name of an interface like `eth0`",
                help: "at most 15 letters, digits, `.`, `-` and `_`: see `ip link`")
        }
        return .text(text)
    }

    private static let fastOpen = ValueKind(
        "NUMBER|off", expected: "a number like `256`, or `off`", range: "1–65535", candidates: ["off"]
    ) { text throws(ValueProblem) in
        if text == "off" { return .absent }
        guard text != "on" else {
            throw ValueProblem(
                message: "`fastopen` says how many connections may wait", expected: "a number like `256`, or `off`")
        }
        return .count(try ConfigValue.count(text, 1...65535))
    }
}
