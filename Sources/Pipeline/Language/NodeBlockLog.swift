import Pipeline

/// Settings of `node` about its logs.
extension NodeBlock {
    static let logs: [Setting<NodeSettings>] = [
        Setting(
            SettingLine(
                "log",
                [
                    [.choice(name: "what", ["connections", "off"])],
                    [
                        .choice(name: "what", ["connections"]), .word("refusals"),
                        .value(.perSecond(0...1_000_000, like: "100/s")),
                    ],
                ],
                "one JSON line for each connection that ends; refused ones are limited to this many a second per "
                    + "reason",
                needsRestart: true),
            text: { $0.logConnections ? "connections refusals \($0.loggedRefusals)/s" : "off" },
            kept: { $0.logConnections ? "connections" : "off" },
            apply: { settings, clause in
                settings.logConnections = clause.word() == "connections"
                if let rate = clause.count(1) { settings.loggedRefusals = Int(clamping: rate) }
            }),
        Setting(
            SettingLine(
                "log",
                [
                    [.value(sampleKind)],
                    [.value(sampleKind), .word("of"), .choice(name: "which", LogSample.Population.names)],
                ],
                "one of N connections has a line, which says so: of those that ended in good order (`closed`), of all "
                    + "that reached a backend, or of refused ones, too",
                qualifier: "sample", without: "`1/1 of closed`"),
            text: {
                $0.log.sample.every == 1 ? nil : "1/\($0.log.sample.every) of \($0.log.sample.population.rawValue)"
            },
            apply: { settings, clause in
                if let every = clause.count() { settings.log.sample.every = every }
                if let which = clause.word(1) { settings.log.sample.population = .init(rawValue: which) ?? .closed }
            }),
        patterns(
            "only", \.log.only,
            "only connections that end so have a line: reasons' names, or `limits.*` for all of a stage", "all"),
        patterns("except", \.log.except, "connections that end so have no line", "none"),
        destination(
            "connection_log", \.log.connections, "stdout", like: "connections", "where lines of connections go"),
        destination(
            "event_log", \.log.events, "stderr", like: "events", "where the node's events go, once it is ready"),
    ]

    static func logRemarks(_ values: NodeSettings, _ said: Set<String>) -> [BlockRemark] {
        let about = ["connection_log", "log sample", "log only", "log except"]
        guard !values.logConnections, let line = about.first(where: said.contains) else { return [] }
        return [
            BlockRemark(
                .warning, at: line, "`\(line)` has no effect: with `log off` there are no lines of connections",
                help: "write `log connections`, or remove the line")
        ]
    }

    private static func patterns(
        _ qualifier: String, _ path: any WritableKeyPath<NodeSettings, [String]> & Sendable, _ summary: String,
        _ usual: String
    ) -> Setting<NodeSettings> {
        Setting(
            SettingLine("log", [[.list(reasonKind, limit: 64)]], summary, qualifier: qualifier, without: usual),
            text: { $0[keyPath: path].isEmpty ? nil : $0[keyPath: path].joined(separator: " ") },
            apply: { $0[keyPath: path] = $1.customs(as: String.self) })
    }

    private static func destination(
        _ keyword: String, _ path: any WritableKeyPath<NodeSettings, LogDestination> & Sendable, _ standard: String,
        like file: String, _ summary: String
    ) -> Setting<NodeSettings> {
        Setting(
            SettingLine(
                keyword,
                [
                    [.word(standard)],
                    [
                        .word("file"),
                        .value(.path("\(keyword) file", of: "file", like: "/var/log/pipelined/\(file).json")),
                    ],
                    [.word("syslog"), .value(syslogKind), .options(syslogOptions)],
                ], summary, without: "`\(standard)`"),
            text: { text(of: $0[keyPath: path]) },
            apply: { $0[keyPath: path] = destination($1) })
    }

    private static func text(of destination: LogDestination) -> String? {
        switch destination {
        case .standard: nil
        case .file(let path): "file \(path)"
        case .syslog(let syslog):
            "syslog \(syslog.address) facility \(syslog.facilityName) format \(syslog.format.rawValue) tag \(syslog.tag)"
        }
    }

    private static func destination(_ clause: Clause) -> LogDestination {
        if let path = clause.text() { return .file(path) }
        guard let address = clause.custom(as: SyslogSettings.Address.self) else { return .standard }
        var settings = SyslogSettings(address)
        if let facility = clause.option("facility")?.count() { settings.facility = Int(clamping: facility) }
        if let format = clause.option("format")?.word().flatMap(SyslogSettings.Format.init(rawValue:)) {
            settings.format = format
        }
        if let tag = clause.option("tag")?.text() { settings.tag = tag }
        return .syslog(settings)
    }

    private static let syslogOptions: [ClauseSpec] = [
        ClauseSpec(
            "facility",
            [.word("facility"), .value(facilityKind)]),
        ClauseSpec(
            "format", [.word("format"), .choice(name: "format", SyslogSettings.Format.allCases.map(\.rawValue))]),
        ClauseSpec("tag", [.word("tag"), .value(tagKind)]),
    ]

    // MARK: Kinds of words

    private static let sampleKind = ValueKind("1/N", expected: "a share like `1/100`", range: "1/1–1/1M") {
        text throws(ValueProblem) in
        let form = ValueProblem(
            message: "\(quoted(text)) is not a share", expected: "a share like `1/100`",
            help: "`1/100` logs one connection of a hundred")
        guard text.hasPrefix("1/") else { throw form }
        do throws(ValueProblem) {
            return .count(try ConfigValue.count(String(text.dropFirst(2)), 1...1_000_000))
        } catch {
            throw ValueProblem(message: "\(quoted(text)): \(error.message)", expected: error.expected, help: form.help)
        }
    }

    /// Whether there is such a reason, ``Checker/checkLoggedReasons(_:)`` says.
    private static let reasonKind = ValueKind("REASON", expected: "reasons like `relay.idle_timeout`, or `limits.*`") {
        text throws(ValueProblem) in .custom(text)
    }

    private static let syslogKind = ValueKind(
        "unix:PATH|ADDRESS:PORT", expected: "a syslog daemon like `unix:/dev/log` or `192.0.2.1:514`"
    ) { text throws(ValueProblem) in
        guard text.hasPrefix("unix:") || text.hasPrefix("/") else {
            let endpoint = try ConfigValue.endpoint(text)
            guard !endpoint.address.isUnspecified else {
                throw ValueProblem(
                    message: "\(quoted(text)) is not a host's address", expected: "the syslog daemon's address")
            }
            return .custom(SyslogSettings.Address.udp(endpoint))
        }
        let path = text.hasPrefix("unix:") ? String(text.dropFirst(5)) : text
        // sockaddr_un has 108 bytes for it, with its NUL.
        guard text.hasPrefix("unix:"), path.hasPrefix("/"), path.utf8.count <= 107 else {
            throw ValueProblem(
                message: "\(quoted(text)) is not a syslog daemon's socket",
                expected: "`unix:` and an absolute path of at most 107 bytes",
                help: text.hasPrefix("/") && path.utf8.count <= 107 ? "write `unix:\(path)`" : nil)
        }
        return .custom(SyslogSettings.Address.unix(path))
    }

    private static let facilityKind = ValueKind(
        "NAME", expected: "a facility like `daemon` or `local0`", candidates: SyslogSettings.facilities
    ) { text throws(ValueProblem) in
        guard !text.isEmpty, let number = SyslogSettings.facilities.firstIndex(of: text) else {
            throw ValueProblem(
                message: "\(quoted(text)) is no facility", expected: "a facility like `daemon` or `local0`",
                help: misspelling(of: text, among: SyslogSettings.facilities) ?? "docs/OPERATING.md has them all")
        }
        return .count(UInt64(number))
    }

    private static let tagKind = ValueKind("NAME", expected: "a name like `pipelined`") { text throws(ValueProblem) in
        // RFC 3164: at most 32; a daemon takes the tag to end at the first `[`, `:` or blank.
        guard (1...32).contains(text.utf8.count), text.utf8.allSatisfy(isTagByte) else {
            throw ValueProblem(
                message: "\(quoted(text)) can't be a tag", expected: "a name like `pipelined`",
                help: "at most 32 letters, digits, `_`, `-` and `.`")
        }
        return .text(text)
    }

    private static func isTagByte(_ byte: UInt8) -> Bool {
        byte.isASCIILetterOrDigit || [UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_")].contains(byte)
    }
}

extension LogSample.Population {
    fileprivate static var names: [String] { allCases.map(\.rawValue) }
}
