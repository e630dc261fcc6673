/// One line of a block: its syntax, effect and text. Everything derives from it: parsing, `check`, `check --print`,
/// what a reload can change, and the tables of docs/LANGUAGE.md.
public struct Setting<Values: Sendable>: Sendable {
    /// The line's syntax and reference text.
    public let line: SettingLine
    /// Applies the line. Called at most once for a line.
    public let apply: @Sendable (inout Values, Clause) throws(ValueProblem) -> Void
    /// The text after the keyword for `values`; nil: no line.
    public let text: @Sendable (Values) -> String?
    /// The part of the text that needs a restart; nil: none.
    public let kept: (@Sendable (Values) -> String?)?

    /// - Parameter kept: where ``SettingLine/needsRestart`` is true of a part of it; else all of it is.
    public init(
        _ line: SettingLine, text: @escaping @Sendable (Values) -> String?,
        kept: (@Sendable (Values) -> String?)? = nil,
        apply: @escaping @Sendable (inout Values, Clause) throws(ValueProblem) -> Void
    ) {
        self.line = line
        self.apply = apply
        self.text = text
        self.kept = line.needsRestart ? kept ?? text : nil
    }
}

/// The syntax of a block's line.
public struct SettingLine: Sendable {
    public let keyword: String
    /// The first word of every form, if lines of one keyword are separate settings: `congestion client`.
    public let qualifier: String?
    /// Any one of these.
    public let forms: [ClauseSpec]
    /// Its meaning, in one line.
    public let summary: String
    /// The default, where the shown value does not tell it: `three quarters of …`.
    public let without: String?
    /// A change needs a restart.
    public let needsRestart: Bool
    /// For a required line: what is missing, and what to write.
    public let missing: Missing?
    /// The former keyword: accepted for one minor version, with a note.
    public let formerly: String?
    /// False: accepted, but not shown in messages or the reference.
    public let isDocumented: Bool

    public struct Missing: Sendable {
        /// The end of "the block NAME …": `has no key`.
        public let problem: String
        public let remedy: String
        public init(_ problem: String, remedy: String) {
            self.problem = problem
            self.remedy = remedy
        }
    }

    /// - Parameter forms: without the keyword.
    public init(
        _ keyword: String, _ forms: [[ClauseSpec.Element]], _ summary: String, qualifier: String? = nil,
        without: String? = nil, needsRestart: Bool = false, missing: Missing? = nil, formerly: String? = nil,
        isDocumented: Bool = true
    ) {
        self.keyword = keyword
        self.qualifier = qualifier
        self.forms = forms.map { form in
            ClauseSpec(keyword, (qualifier.map { [.word($0)] } ?? []) + form)
        }
        self.summary = summary
        self.without = without
        self.needsRestart = needsRestart
        self.missing = missing
        self.formerly = formerly
        self.isDocumented = isDocumented
    }

    /// The keyword, and the qualifier if there is one: names the setting in its block.
    public var name: String { qualifier.map { "\(keyword) \($0)" } ?? keyword }
}

extension Setting {
    public static func duration(
        _ keyword: String, _ path: any WritableKeyPath<Values, TimeSpan> & Sendable, _ range: ClosedRange<TimeSpan>,
        _ summary: String, needsRestart: Bool = false
    ) -> Setting {
        Setting(
            SettingLine(
                keyword, [[.duration(name: "duration", range)]], summary, needsRestart: needsRestart),
            text: { $0[keyPath: path].configText },
            apply: { values, clause in
                if let span = clause.duration() { values[keyPath: path] = span }
            })
    }

    /// - Parameter then: fixed words behind the number.
    public static func count<Number: FixedWidthInteger & Sendable>(
        _ keyword: String, _ path: any WritableKeyPath<Values, Number> & Sendable, _ range: ClosedRange<UInt64>,
        then words: [String] = [], _ summary: String, needsRestart: Bool = false, formerly: String? = nil
    ) -> Setting {
        let elements = [.count(name: "number", range)] + words.map { ClauseSpec.Element.word($0) }
        let rest = words.map { " \($0)" }.joined()
        return Setting(
            SettingLine(keyword, [elements], summary, needsRestart: needsRestart, formerly: formerly),
            text: { countText(UInt64(clamping: $0[keyPath: path])) + rest },
            apply: { values, clause in
                if let count = clause.count() { values[keyPath: path] = Number(clamping: count) }
            })
    }

    /// One of the words that `Choice` has.
    public static func choice<Choice: RawRepresentable<String> & CaseIterable & Sendable>(
        _ keyword: String, _ path: any WritableKeyPath<Values, Choice> & Sendable, _ summary: String,
        needsRestart: Bool = false
    ) -> Setting {
        Setting(
            SettingLine(
                keyword, [[.choice(name: keyword, Choice.allCases.map(\.rawValue))]], summary,
                needsRestart: needsRestart),
            text: { $0[keyPath: path].rawValue },
            apply: { values, clause in
                if let choice = clause.word().flatMap(Choice.init(rawValue:)) { values[keyPath: path] = choice }
            })
    }
}
