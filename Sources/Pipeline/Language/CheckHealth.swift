import Pipeline

/// What the lines of a `health` block say, with the defaults of those that are not there.
private struct HealthDraft: Sendable {
    var probe = HealthSettings.Probe.tcp
    var interval = TimeSpan.seconds(2)
    var jitterPercent: UInt8 = 10
    /// Nil: a second, or the interval if that is shorter.
    var timeout: TimeSpan?
    var rise: UInt32 = 2
    var fall: UInt32 = 3
    var probesPerSecond: UInt32 = 1000
    var panic = HealthSettings.Panic.failFast
    var ejection = EjectionPolicy.standard
}

/// One line of a `health` block: how it is written, and what it sets.
private struct HealthSetting: Sendable {
    let keyword: String
    let forms: [ClauseSpec]
    /// True if the line means something only while there are probes.
    let isOfProbes: Bool
    let apply: @Sendable (inout HealthDraft, Clause) throws(ValueProblem) -> Void

    init(
        _ keyword: String, _ forms: [[ClauseSpec.Element]], isOfProbes: Bool = true,
        _ apply: @escaping @Sendable (inout HealthDraft, Clause) throws(ValueProblem) -> Void
    ) {
        self.keyword = keyword
        self.forms = forms.map { ClauseSpec(keyword, $0, summary: "") }
        self.isOfProbes = isOfProbes
        self.apply = apply
    }

    static let times = TimeSpan.milliseconds(100)...(.seconds(3600))

    static let all: [HealthSetting] = [
        HealthSetting(
            "probe",
            [
                [.choice(name: "probe", ["off", "tcp", "tls"])],
                [.choice(name: "probe", ["tls"]), .word("sni"), .text(name: "server name")],
                [.choice(name: "probe", ["expect"]), .text(name: "text that the answer begins with")],
            ]
        ) { draft, clause throws(ValueProblem) in draft.probe = try probe(clause) },
        HealthSetting(
            "interval",
            [
                [.duration(name: "duration", times)],
                [.duration(name: "duration", times), .word("jitter"), .text(name: "percentage like `10%`")],
            ]
        ) { draft, clause throws(ValueProblem) in
            if case .duration(let value)? = clause.values.first { draft.interval = value }
            if case .text(let text)? = clause.values.last { draft.jitterPercent = try Value.percent(text, 0...50) }
        },
        HealthSetting("timeout", [[.duration(name: "duration", TimeSpan.milliseconds(10)...(.seconds(3600)))]]) {
            draft, clause throws(ValueProblem) in
            if case .duration(let value)? = clause.values.first { draft.timeout = value }
        },
        HealthSetting("rise", [[.count(name: "number", 1...100)]]) { draft, clause throws(ValueProblem) in
            if case .count(let value)? = clause.values.first { draft.rise = UInt32(clamping: value) }
        },
        HealthSetting("fall", [[.count(name: "number", 1...100)]]) { draft, clause throws(ValueProblem) in
            if case .count(let value)? = clause.values.first { draft.fall = UInt32(clamping: value) }
        },
        HealthSetting("rate", [[.text(name: "rate like `500/s`")]]) { draft, clause throws(ValueProblem) in
            if case .text(let text)? = clause.values.first {
                draft.probesPerSecond = UInt32(clamping: try Value.perSecond(text, 1...100_000))
            }
        },
        HealthSetting("eject", ejectForms, isOfProbes: false) { draft, clause throws(ValueProblem) in
            draft.ejection = try ejection(clause)
        },
        HealthSetting("panic", [[.choice(name: "panic", ["fail_fast", "use_all"])]], isOfProbes: false) {
            draft, clause throws(ValueProblem) in
            if case .word(let word)? = clause.values.first { draft.panic = word == "use_all" ? .useAll : .failFast }
        },
    ]

    private static let ejectForms: [[ClauseSpec.Element]] = {
        let after: [ClauseSpec.Element] = [
            .word("after"), .count(name: "number", 1...1000), .word("for"), .duration(name: "duration", times),
        ]
        let longest = ClauseSpec.Element.duration(name: "duration", times.lowerBound...(.seconds(86400)))
        return [[.word("off")], after, after + [.word("max"), longest]]
    }()

    private static func probe(_ clause: Clause) throws(ValueProblem) -> HealthSettings.Probe {
        guard case .word(let kind)? = clause.values.first else { return .tcp }
        var text: String?
        if clause.values.count > 1, case .text(let value)? = clause.values.last { text = value }
        switch kind {
        case "off": return .off
        case "tls": return .tls(serverName: try text.map { name throws(ValueProblem) in try Value.sni(name) })
        case "expect":
            let bytes = Array((text ?? "").utf8)
            guard (1...256).contains(bytes.count) else {
                throw ValueProblem(message: "the text is empty or too long", expected: "1 to 256 bytes")
            }
            return .expect(bytes)
        default: return .tcp
        }
    }

    private static func ejection(_ clause: Clause) throws(ValueProblem) -> EjectionPolicy {
        guard case .count(let after)? = clause.values.first else {
            return .none
        }
        let spans = clause.values.compactMap { if case .duration(let span) = $0 { span } else { nil } }
        let base = spans.first ?? .seconds(10)
        let most = spans.count > 1 ? spans[1] : max(base, .seconds(300))
        guard most >= base else {
            throw ValueProblem(
                message: "the longest ejection, \(most.configText), is shorter than the first, \(base.configText)",
                help: "write `max \(base.configText)` or longer")
        }
        return EjectionPolicy(after: UInt32(clamping: after), base: base, max: most)
    }
}

extension Checker {
    static var healthSettings: [String] { HealthSetting.all.map(\.keyword) }

    /// `health NAME { ... }` blocks, into ``blocks``.
    func checkHealth(_ entries: [EntrySyntax]) {
        var first: [String: SourceSpan] = [:]
        for entry in entries where !reporter.isFull {
            guard let name = blockName(of: entry, what: "health block") else { continue }
            if isDuplicate("the health block \(quoted(name.value))", name.span, firstAt: first[name.value]) { continue }
            first[name.value] = name.span
            // Kept even if some line is wrong: uses of the name are right.
            blocks[.health, default: [:]][name.value] = healthBlock(entry, name.value)
        }
    }

    func remarkOnUnusedHealth(_ entries: [EntrySyntax]) {
        for word in entries.compactMap(\.clauses[0].words.first) {
            guard let block = blocks[.health]?[word.text], !usedBlocks.contains(ObjectIdentifier(block)) else {
                continue
            }
            reporter.warning(
                word.span, "nothing uses the health block `\(word.text)`",
                help: "write `backend health \(word.text)` in a pipeline, or remove it")
        }
    }

    private func healthBlock(_ entry: EntrySyntax, _ name: String) -> HealthSettings {
        var draft = HealthDraft()
        var seen: [String: SourceSpan] = [:]
        for line in entry.body?.entries ?? [] where !reporter.isFull { checkHealthLine(line, &draft, &seen) }
        if draft.probe == .off {
            for setting in HealthSetting.all where setting.isOfProbes && setting.keyword != "probe" {
                guard let span = seen[setting.keyword] else { continue }
                reporter.warning(span, "`\(setting.keyword)` means nothing with `probe off`", help: "remove this line")
            }
        }
        if let timeout = draft.timeout, timeout > draft.interval, let span = seen["timeout"] {
            reporter.error(
                span, "`timeout` is longer than the interval of \(draft.interval.configText)",
                expected: "at most \(draft.interval.configText)",
                help: "at most one probe of a backend is under way: make the timeout shorter or the interval longer")
        }
        return HealthSettings(
            name: name, probe: draft.probe, interval: draft.interval, jitterPercent: draft.jitterPercent,
            timeout: draft.timeout ?? min(.seconds(1), draft.interval), rise: draft.rise, fall: draft.fall,
            probesPerSecond: draft.probesPerSecond, panic: draft.panic, ejection: draft.ejection)
    }

    private func checkHealthLine(
        _ entry: EntrySyntax, _ draft: inout HealthDraft, _ seen: inout [String: SourceSpan]
    ) {
        let keyword = entry.keyword
        guard let setting = HealthSetting.all.first(where: { $0.keyword == keyword.text }) else {
            reporter.error(
                keyword.span, "`health` has no setting \(quoted(keyword.text))",
                expected: orList(Checker.healthSettings.map { "`\($0)`" }),
                help: suggestion(for: keyword.text, among: Checker.healthSettings))
            return
        }
        if let body = entry.body {
            reporter.error(body.opening, "`\(keyword.text)` takes no block", help: "write its value on the same line")
            return
        }
        guard let words = arguments(of: entry) else { return }
        if isDuplicate(quoted(keyword.text), entry.headSpan, firstAt: seen[keyword.text]) { return }
        seen[keyword.text] = entry.headSpan
        do throws(ClauseFailure) {
            let (_, clause) = try ClauseMatcher(sets: [:]).match(words, oneOf: setting.forms)
            do throws(ValueProblem) {
                try setting.apply(&draft, clause)
            } catch {
                reporter.error(
                    words.last?.span ?? entry.headSpan, error.message, expected: error.expected, help: error.help)
            }
        } catch {
            report(error, words, of: keyword)
        }
    }
}

extension Value {
    /// `10%`, a whole number.
    static func percent(_ text: String, _ range: ClosedRange<UInt8>) throws(ValueProblem) -> UInt8 {
        let digits = text.dropLast()
        guard text.hasSuffix("%"), let value = UInt8(digits), String(value) == digits, range.contains(value) else {
            throw ValueProblem(
                message: "\(quoted(text)) is no percentage from \(range.lowerBound)% to \(range.upperBound)%",
                expected: "a whole number and `%`, like `10%`")
        }
        return value
    }

    /// `500/s`.
    static func perSecond(_ text: String, _ range: ClosedRange<UInt64>) throws(ValueProblem) -> UInt64 {
        let kind = "a rate from \(countText(range.lowerBound))/s to \(countText(range.upperBound))/s"
        guard text.hasSuffix("/s") else {
            throw ValueProblem(
                message: "\(quoted(text)) is no rate", expected: kind, help: "write it like `500/s`")
        }
        do throws(ValueProblem) {
            return try count(String(text.dropLast(2)), range)
        } catch {
            throw ValueProblem(
                message: "\(quoted(text)): \(error.message)", expected: kind, help: "write it like `500/s`")
        }
    }

    /// A host name to send as SNI (RFC 6066 §3): no address, no wildcard. Lower case comes out.
    static func sni(_ text: String) throws(ValueProblem) -> String {
        let problem = ValueProblem(
            message: "\(quoted(text)) is no host name",
            expected: "a name like `app.example.com`, as it goes over the wire")
        guard (1...253).contains(text.utf8.count), IPAddress(text) == nil else { throw problem }
        for label in text.split(separator: ".", omittingEmptySubsequences: false) {
            let isFit = label.utf8.allSatisfy { c in
                (c | 0x20 >= 0x61 && c | 0x20 <= 0x7A) || (c >= 0x30 && c <= 0x39) || c == 0x2D || c == 0x5F
            }
            guard (1...63).contains(label.utf8.count), isFit else { throw problem }
        }
        return text.lowercased()
    }
}
