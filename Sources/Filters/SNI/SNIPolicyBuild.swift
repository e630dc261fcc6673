import Pipeline
import PipelineSets

extension SNIPolicy {
    static let clauses = [
        ClauseSpec(
            "name", [.choice(name: "action", ["allow", "deny"]), .word("name"), .text(name: "hostname")], repeats: true,
            summary: "this name; of all `allow` and `deny` clauses the first that matches decides"),
        ClauseSpec(
            "suffix", [.choice(name: "action", ["allow", "deny"]), .word("suffix"), .text(name: "hostname")],
            repeats: true, summary: "this name and every name under it"),
        ClauseSpec(
            "names",
            [
                .choice(name: "action", ["allow", "deny"]), .word("names"),
                .block(name: "block", NameMembers.block.kind),
            ],
            repeats: true, summary: "the names of a `names` block"),
        ClauseSpec(
            "pattern", [.choice(name: "action", ["allow", "deny"]), .word("pattern"), .text(name: "regex")],
            repeats: true, summary: "names that match a regular expression as a whole"),
        ClauseSpec(
            "alpn", [.word("require"), .word("alpn"), .text(name: "protocol")], repeats: true,
            summary: "the hello must offer this protocol, or one of those listed"),
    ]

    /// - Throws: at the clause that is wrong; nothing is kept then.
    init(_ directive: Directive) throws(SettingsError) {
        var rules: [Rule] = []
        var protocols: [FrozenText] = []
        do throws(SettingsError) {
            for (index, clause) in directive.clauses.enumerated() {
                if clause.name == "alpn" {
                    protocols.append(try SNIPolicy.alpn(clause, index))
                } else if let rule = try SNIPolicy.rule(clause, index) {
                    rules.append(rule)
                }
            }
        } catch {
            for rule in rules { rule.deallocate() }
            for text in protocols { text.deallocate() }
            throw error
        }
        hasAllow = rules.contains { !$0.denies }
        hasPatterns = rules.contains { if case .pattern = $0.matcher { true } else { false } }
        self.rules = FrozenArray(rules)
        self.protocols = FrozenArray(protocols)
    }

    /// Nil for a clause that is not a rule.
    private static func rule(_ clause: Clause, _ index: Int) throws(SettingsError) -> Rule? {
        guard clause.values.count == 2, case .word(let action) = clause.values[0] else { return nil }
        let matcher: Matcher
        let written: String
        switch clause.values[1] {
        case .block(let block):
            guard let names = block as? NameSet else { return nil }
            written = names.name
            matcher = .names(names.table)
        case .text(let text):
            written = text
            switch clause.name {
            case "name": matcher = .name(try hostname(text, index))
            case "suffix": matcher = .suffix(try hostname(text, index))
            default: matcher = .pattern(try pattern(text, index))
            }
        default: return nil
        }
        return Rule(denies: action == "deny", matcher: matcher, text: FrozenText("\(action) \(clause.name) \(written)"))
    }

    /// R3: in canonical form.
    private static func hostname(_ text: String, _ index: Int) throws(SettingsError) -> FrozenText {
        var name = ServerName()
        var copy = text
        guard copy.withUTF8({ name.set(wire: $0) }) else {
            let remedy =
                if text.utf8.contains(where: { $0 >= 0x80 }) {
                    "write its A-label, as it is on the wire: `xn--...`"
                } else if text.hasPrefix("*.") || text.hasPrefix(".") {
                    "write `suffix` and the name behind the dot; a `names` block takes `*.` and `.`"
                } else {
                    "write a name like `app.example.com`"
                }
            throw SettingsError("`\(text)` is not a hostname", remedy: remedy, clauseIndex: index)
        }
        return FrozenText(name.string)
    }

    private static func pattern(_ text: String, _ index: Int) throws(SettingsError) -> NamePattern {
        do throws(PatternProblem) {
            return try NamePattern(text)
        } catch {
            throw SettingsError(error.problem, remedy: error.remedy, clauseIndex: index)
        }
    }

    private static func alpn(_ clause: Clause, _ index: Int) throws(SettingsError) -> FrozenText {
        guard case .text(let text)? = clause.values.first, (1...255).contains(text.utf8.count) else {
            throw SettingsError(
                "an ALPN protocol has 1 to 255 bytes", remedy: "write its name, like `h2`", clauseIndex: index)
        }
        return FrozenText(text)
    }
}
