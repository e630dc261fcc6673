import Pipeline

/// One line of the `node` block: how it is written, and what it sets.
private struct NodeSetting: Sendable {
    let keyword: String
    /// One form or several; the clause's name tells them apart.
    let forms: [ClauseSpec]
    let apply: @Sendable (inout NodeSettings, Clause) -> Void

    static func duration(
        _ keyword: String, _ range: ClosedRange<TimeSpan>,
        _ path: @escaping @Sendable (inout NodeSettings, TimeSpan) -> Void
    ) -> NodeSetting {
        NodeSetting(keyword: keyword, forms: [ClauseSpec(keyword, [.duration(name: "duration", range)], summary: "")]) {
            if case .duration(let value)? = $1.values.first { path(&$0, value) }
        }
    }

    static func count(
        _ keyword: String, _ range: ClosedRange<UInt64>, then words: [String] = [],
        _ path: @escaping @Sendable (inout NodeSettings, Int) -> Void
    ) -> NodeSetting {
        let elements = [.count(name: "number", range)] + words.map { ClauseSpec.Element.word($0) }
        return NodeSetting(keyword: keyword, forms: [ClauseSpec(keyword, elements, summary: "")]) {
            if case .count(let value)? = $1.values.first { path(&$0, Int(clamping: value)) }
        }
    }

    private static let conntrackForms: [ClauseSpec] = {
        let every: [ClauseSpec.Element] = [
            .word("every"), .duration(name: "duration", .seconds(1)...(.seconds(3600))),
        ]
        let table: [ClauseSpec.Element] = [.word("table"), .count(name: "connections", 1000...16_000_000)]
        return [
            ClauseSpec("every", every, summary: ""), ClauseSpec("table", every + table, summary: ""),
        ]
    }()

    static let all: [NodeSetting] = [
        NodeSetting(
            keyword: "workers",
            forms: [
                ClauseSpec("auto", [.word("auto")], summary: ""),
                ClauseSpec("workers", [.count(name: "number", 1...1024)], summary: ""),
            ]
        ) {
            if case .count(let value)? = $1.values.first { $0.workers = Int(clamping: value) } else { $0.workers = 0 }
        },
        .count("connections", 1...1_000_000, then: ["per", "worker"]) { $0.maxConnections = $1 },
        .count("unrouted", 1...1_000_000, then: ["per", "worker"]) { $0.maxUnrouted = $1 },
        NodeSetting(keyword: "conntrack", forms: conntrackForms) {
            guard case .duration(let interval)? = $1.values.first else { return }
            $0.conntrack = ConntrackCounting(interval: interval)
            if $1.values.count > 1, case .count(let limit) = $1.values[1] {
                $0.conntrack?.tableLimit = Int(clamping: limit)
            }
        },
        .count("backlog", 1...65535) { $0.backlog = $1 },
        NodeSetting(
            keyword: "descriptors",
            forms: [ClauseSpec("descriptors", [.choice(name: "tables", ["per_worker", "shared"])], summary: "")]
        ) {
            if case .word(let word)? = $1.values.first { $0.ownDescriptors = word == "per_worker" }
        },
        .duration("coalesce", .zero...(.milliseconds(100))) { $0.coalesce = $1 },
        .count("spare_sockets", 0...65535, then: ["per", "worker"]) { $0.spareSockets = $1 },
        .duration("connect_timeout", .milliseconds(10)...(.seconds(120))) { $0.connectTimeout = $1 },
        .duration("half_close_timeout", .seconds(1)...(.seconds(86400))) { $0.halfCloseTimeout = $1 },
        .duration("drain_timeout", .zero...(.seconds(86400))) { $0.drainTimeout = $1 },
        .duration("keepalive", .seconds(1)...(.seconds(32400))) { $0.keepaliveIdle = $1 },
        .duration("user_timeout", .seconds(1)...(.seconds(3600))) { $0.userTimeout = $1 },
    ]

    /// Taken, and without any effect: no message offers them.
    static let idle = ["state"]

    static let keywords =
        all.map(\.keyword) + [
            "log", "admin", "congestion", "denied_ports", "intercept", "mark", "nat64", "ledger", "memory",
        ]
}

extension Checker {
    static var nodeSettings: [String] { NodeSetting.keywords }

    func checkNodes(_ entries: [EntrySyntax]) {
        var first: SourceSpan?
        for entry in entries where !reporter.isFull {
            // A second one is wrong, and what is in it may be wrong as well.
            if !isDuplicate("`node`", entry.keyword.span, firstAt: first) { first = entry.keyword.span }
            if let name = blockName(of: entry, what: "node") { node.name = name.value }
            var seen: [String: SourceSpan] = [:]
            for setting in entry.body?.entries ?? [] where !reporter.isFull { checkNodeSetting(setting, &seen) }
            checkInterceptIsWhole()
        }
    }

    private func checkNodeSetting(_ entry: EntrySyntax, _ seen: inout [String: SourceSpan]) {
        let keyword = entry.keyword
        guard (NodeSetting.keywords + NodeSetting.idle).contains(keyword.text) else {
            reporter.error(
                keyword.span, "`node` has no setting \(quoted(keyword.text))",
                expected: orList(NodeSetting.keywords.map { "`\($0)`" }),
                help: suggestion(for: keyword.text, among: NodeSetting.keywords))
            return
        }
        if let body = entry.body {
            reporter.error(body.opening, "`\(keyword.text)` takes no block", help: "write its value on the same line")
            return
        }
        guard let words = arguments(of: entry) else { return }
        // `congestion` has one line a side, `intercept` one for each of its words.
        let isMany = keyword.text == "congestion" || keyword.text == "intercept"
        let what = isMany ? "\(keyword.text) \(words.first?.text ?? "")" : keyword.text
        if isDuplicate(quoted(what), entry.headSpan, firstAt: seen[what]) { return }
        seen[what] = entry.headSpan
        switch keyword.text {
        case "log": checkLog(words, keyword)
        case "state": checkState(words, keyword)
        case "admin": checkAdmin(words, keyword)
        case "congestion": checkCongestion(words, keyword)
        case "denied_ports": checkDeniedPorts(words, keyword)
        case "intercept": checkIntercept(words, keyword)
        case "mark": checkMark(words, keyword)
        case "nat64": checkNat64(words, keyword)
        case "ledger": checkLedger(words, keyword)
        case "memory": checkMemory(words, keyword)
        default:
            guard let setting = NodeSetting.all.first(where: { $0.keyword == keyword.text }) else { return }
            do throws(ClauseFailure) {
                let (_, clause) = try ClauseMatcher(sets: [:]).match(words, oneOf: setting.forms)
                setting.apply(&node, clause)
                checkWholeSeconds(clause, keyword.text, words)
            } catch {
                report(error, words, of: keyword)
            }
        }
    }

    /// The kernel takes keepalive times in seconds: a fraction would be lost without a word.
    private func checkWholeSeconds(_ clause: Clause, _ keyword: String, _ words: [WordSyntax]) {
        guard keyword == "keepalive", case .duration(let value)? = clause.values.first, let word = words.first,
            value.nanoseconds % 1_000_000_000 != 0
        else { return }
        reporter.error(word.span, "`keepalive` takes whole seconds", help: "write `\(value.milliseconds / 1000 + 1)s`")
    }

    /// R27: `memory 2GiB`, or a share of what the cgroup or the machine allows.
    private func checkMemory(_ words: [WordSyntax], _ keyword: WordSyntax) {
        let expected = "a size like `2GiB`, or a share like `80%`"
        guard let word = onlyWord(words, of: keyword, expected: expected) else { return }
        if word.text.hasSuffix("%") {
            guard let percent = Int(word.text.dropLast()), (1...100).contains(percent),
                "\(percent)%" == word.text
            else { return reporter.error(word.span, "\(quoted(word.text)) is no share", expected: "`1%` to `100%`") }
            node.memory = .percent(percent)
            return
        }
        let range: ClosedRange<UInt64> = 1 << 20...1 << 50
        guard
            let size = parsed(word, { text throws(ValueProblem) in try Value.size(text, range) })
        else { return }
        node.memory = .bytes(size.value)
        // A node of one worker and no routes has taken some 8 MiB before its first connection.
        if size.value < 16 << 20 {
            reporter.warning(
                word.span, "with `memory \(word.text)` this node may refuse every connection (`limits.memory`)",
                help: "give it `16MiB` or more, and what its routes and connections take")
        }
    }

    private func checkState(_ words: [WordSyntax], _ keyword: WordSyntax) {
        guard let path = onlyWord(words, of: keyword, expected: "the path of a directory") else { return }
        guard path.text.hasPrefix("/"), path.text.utf8.count <= 4096 else {
            reporter.error(
                path.span, "`state` takes an absolute path", expected: "a directory like `/var/lib/pipelined`")
            return
        }
        node.stateDirectory = path.text
        reporter.warning(
            keyword.span,
            "`state` does nothing yet: nothing is kept there, and a node starts from its config and its state file alone",
            help: "leave the line out")
    }

    private func checkAdmin(_ words: [WordSyntax], _ keyword: WordSyntax) {
        let expected = "a Unix socket like `unix:/run/pipelined/admin.sock`"
        guard let word = onlyWord(words, of: keyword, expected: expected) else { return }
        let path = word.text.hasPrefix("unix:") ? String(word.text.dropFirst(5)) : ""
        guard path.hasPrefix("/"), !path.hasSuffix("/") else {
            reporter.error(word.span, "`admin` takes `unix:` and an absolute path", expected: expected)
            return
        }
        // sockaddr_un has 108 bytes for it, with its NUL.
        guard path.utf8.count <= 107 else {
            reporter.error(
                word.span, "the path has \(path.utf8.count) bytes, and the kernel takes 107 at most",
                help: "use a shorter one")
            return
        }
        node.adminSocket = path
    }

    /// R8: `denied_ports 23 25 137-139`; `denied_ports none` opens them all.
    private func checkDeniedPorts(_ words: [WordSyntax], _ keyword: WordSyntax) {
        let expected = "ports and ranges like `23 25 137-139`, or `none`"
        guard let first = words.first else {
            reporter.error(keyword.span.behind, "`denied_ports` is not complete", expected: expected)
            return
        }
        if first.text == "none" {
            if onlyWord(words, of: keyword, expected: expected) != nil { node.deniedPorts = [] }
            return
        }
        var ranges: [Located<ClosedRange<UInt16>>] = []
        for word in words where !reporter.isFull {
            guard
                let ports = parsed(word, { text throws(ValueProblem) in try Value.ports(text) })
            else { continue }
            let overlapping = ranges.first { $0.value.overlaps(ports.value) }?.span
            if isDuplicate(quoted(word.text), word.span, firstAt: overlapping) { continue }
            guard ranges.count < 1024 else {
                reporter.error(word.span, "more than 1024 ports and ranges in `denied_ports`")
                return
            }
            ranges.append(ports)
        }
        node.deniedPorts = ranges.map(\.value).sorted { $0.lowerBound < $1.lowerBound }
    }

    private func checkCongestion(_ words: [WordSyntax], _ keyword: WordSyntax) {
        guard let side = words.first, side.text == "client" || side.text == "upstream" else {
            report(
                ClauseFailure(
                    progress: 0, message: words.first.map { "unexpected \(quoted($0.text))" },
                    expected: ["`client`", "`upstream`"], candidates: ["client", "upstream"]),
                words, of: keyword)
            return
        }
        let expected = "the kernel's name of a congestion control, like `bbr`"
        guard let name = onlyWord(Array(words.dropFirst()), of: side, expected: expected) else { return }
        let isFit = { (c: UInt8) in (c >= 0x61 && c <= 0x7A) || (c >= 0x30 && c <= 0x39) || c == 0x2D || c == 0x5F }
        // TCP_CA_NAME_MAX is 16, with its NUL.
        guard (1...15).contains(name.text.utf8.count), name.text.utf8.allSatisfy(isFit) else {
            reporter.error(
                name.span, "\(quoted(name.text)) can't be a congestion control", expected: expected,
                help: "see `sysctl net.ipv4.tcp_available_congestion_control`")
            return
        }
        if side.text == "client" { node.congestionClient = name.text } else { node.congestionUpstream = name.text }
    }

    /// The single word of a line; nil, reported, if there are none or several.
    func onlyWord(_ words: [WordSyntax], of keyword: WordSyntax, expected: String) -> WordSyntax? {
        guard let word = words.first else {
            reporter.error(keyword.span.behind, "`\(keyword.text)` is not complete", expected: expected)
            return nil
        }
        guard words.count == 1 else {
            reporter.error(words[1].span, "unexpected \(quoted(words[1].text))", expected: "the end of the line")
            return nil
        }
        return word
    }
}
