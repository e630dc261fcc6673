/// One comma-separated part of a directive: `timeout 3s`, `deny to @platform`, `round_robin`.
public struct ClauseSpec: Sendable {
    /// One word or value of a clause, in order.
    public enum Element: Sendable {
        /// Exactly this word.
        case word(String)
        /// One of these words; the value is the word.
        case choice(name: String, [String])
        /// One of these words or nothing; the value is the word or ``ArgumentValue/absent``.
        case optional(name: String, [String])
        /// `200ms`, `3s`, `5m`, `1h`; bounds in the same units.
        case duration(name: String, ClosedRange<TimeSpan>)
        /// `8192`, `16KiB`, `1MiB`; bounds in bytes.
        case size(name: String, ClosedRange<UInt64>)
        /// `400`, `10k`, `1M`.
        case count(name: String, ClosedRange<UInt64>)
        /// `0xE0` or `224`, or nothing, at the end of a clause; the value is a ``ArgumentValue/count(_:)`` or
        /// ``ArgumentValue/absent``.
        case optionalByte(name: String, ClosedRange<UInt8>)
        /// `@name`, a prefix, or a built-in set's name.
        case set(name: String)
        /// The name of a block of the config: `limit per_client { … }`.
        case block(name: String, BlockKind)
        /// One word, quoted or not, verbatim.
        case text(name: String)
        /// One word that the filter parses.
        case value(ValueKind)
        /// One or more such words up to the end of the clause, without duplicates; one value for each.
        case list(ValueKind, limit: Int)
        /// Options in any order up to the end of the clause, each at most once and starting with its name; the value is
        /// ``ArgumentValue/options(_:)``, with a clause for each given option.
        case options([ClauseSpec])
        /// These elements, none or more times, up to the end of the clause.
        indirect case several([Element], limit: Int)
    }

    /// Names the clause in ``Directive``; unique in its filter.
    public let name: String
    public let elements: [Element]
    public let summary: String
    public let required: Bool
    public let repeats: Bool

    public init(
        _ name: String, _ elements: [Element], required: Bool = false, repeats: Bool = false, summary: String = ""
    ) {
        self.name = name
        self.elements = elements
        self.required = required
        self.repeats = repeats
        self.summary = summary
    }
}

/// A checked value of a clause.
public enum ArgumentValue: Sendable {
    case absent
    case word(String)
    case duration(TimeSpan)
    case size(UInt64)
    case count(UInt64)
    case set(AddressSet)
    case block(any ConfigBlock)
    case text(String)
    case options([Clause])
    /// A value parsed by a filter's own ``ValueKind``.
    case custom(any Sendable)
}

/// A filter's own kind of word: its name, and its parser.
public struct ValueKind: Sendable {
    /// Its name in a form, such as `PERCENT` in `jitter PERCENT`.
    public let form: String
    /// After "expected": `a percentage like `10%``.
    public let expected: String
    /// The range for the reference page: `0%–50%`; empty: none.
    public let range: String
    /// Candidates for a "did you mean" suggestion.
    public let candidates: [String]
    public let read: @Sendable (String) throws(ValueProblem) -> ArgumentValue

    public init(
        _ form: String, expected: String, range: String = "", candidates: [String] = [],
        read: @escaping @Sendable (String) throws(ValueProblem) -> ArgumentValue
    ) {
        self.form = form
        self.expected = expected
        self.range = range
        self.candidates = candidates
        self.read = read
    }
}

/// A clause as written, checked against its ``ClauseSpec``. `values` has one entry per element that isn't a fixed word.
public struct Clause: Sendable {
    public let name: String
    public let values: [ArgumentValue]
    public init(name: String, values: [ArgumentValue]) {
        self.name = name
        self.values = values
    }
}

extension Clause {
    private func value(_ index: Int) -> ArgumentValue? { values.indices.contains(index) ? values[index] : nil }

    /// The value at `index`, if it is of that kind; likewise below.
    public func word(_ index: Int = 0) -> String? { if case .word(let word)? = value(index) { word } else { nil } }
    public func text(_ index: Int = 0) -> String? { if case .text(let text)? = value(index) { text } else { nil } }
    public func count(_ index: Int = 0) -> UInt64? { if case .count(let count)? = value(index) { count } else { nil } }
    public func size(_ index: Int = 0) -> UInt64? { if case .size(let size)? = value(index) { size } else { nil } }
    public func duration(_ index: Int = 0) -> TimeSpan? {
        if case .duration(let span)? = value(index) { span } else { nil }
    }
    public func block(_ index: Int = 0) -> (any ConfigBlock)? {
        if case .block(let block)? = value(index) { block } else { nil }
    }
    public func custom<Value: Sendable>(_ index: Int = 0, as type: Value.Type = Value.self) -> Value? {
        if case .custom(let any)? = value(index) { any as? Value } else { nil }
    }
    /// All that a ``ClauseSpec/Element/list(_:limit:)`` of a filter's own kind holds.
    public func customs<Value: Sendable>(as type: Value.Type = Value.self) -> [Value] {
        values.compactMap { if case .custom(let any) = $0 { any as? Value } else { nil } }
    }
    /// The option of that name; nil: not given.
    public func option(_ name: String) -> Clause? {
        for case .options(let options) in values { return options.first { $0.name == name } }
        return nil
    }
}

/// A stage's directive, checked clause by clause.
public struct Directive: Sendable {
    public let keyword: String
    public let clauses: [Clause]

    public init(keyword: String, clauses: [Clause]) {
        self.keyword = keyword
        self.clauses = clauses
    }

    public func first(_ name: String) -> Clause? { clauses.first { $0.name == name } }

    public func duration(_ name: String) -> TimeSpan? {
        first(name)?.duration()
    }
    public func size(_ name: String) -> UInt64? {
        first(name)?.size()
    }
    public func count(_ name: String) -> UInt64? {
        first(name)?.count()
    }
    public func block(_ name: String) -> (any ConfigBlock)? {
        first(name)?.block()
    }
    public func text(_ name: String) -> String? {
        first(name)?.text()
    }
    public func word(_ name: String) -> String? {
        first(name)?.word()
    }
}

/// A directive that fits the grammar but is invalid: what is wrong, and what to write instead.
public struct SettingsError: Error, Equatable, Sendable {
    public let problem: String
    public let remedy: String
    /// The clause to point at; nil: the whole directive.
    public let clause: String?
    /// Which of ``Directive/clauses`` to point at, at its last word, where clauses of one name repeat.
    public let clauseIndex: Int?
    public init(_ problem: String, remedy: String, clause: String? = nil, clauseIndex: Int? = nil) {
        self.clauseIndex = clauseIndex
        self.problem = problem
        self.remedy = remedy
        self.clause = clause
    }
}

extension ClauseSpec {
    /// The clause as help and messages write it: `timeout DURATION`, `deny|allow [from|to] SET`.
    public var form: String { elements.map(\.form).joined(separator: " ") }
}

extension ClauseSpec.Element {
    public var form: String {
        switch self {
        case .word(let word): word
        case .choice(_, let words): words.joined(separator: "|")
        case .optional(_, let words): "[" + words.joined(separator: "|") + "]"
        case .duration(let name, _), .size(let name, _), .count(let name, _): name.uppercased()
        case .optionalByte(let name, _): "[\(name.uppercased())]"
        case .set(let name), .block(let name, _), .text(let name): name.uppercased()
        case .value(let kind): kind.form
        case .list(let kind, _): "\(kind.form) ..."
        case .options(let options): options.map { "[\($0.form)]" }.joined(separator: " ")
        case .several(let elements, _): "[\(elements.map(\.form).joined(separator: " ")) ...]"
        }
    }

    /// The range for the reference; nil: none.
    public var range: String? {
        switch self {
        case .duration(_, let range): "\(range.lowerBound.configText)–\(range.upperBound.configText)"
        case .size(_, let range): "\(sizeText(range.lowerBound))–\(sizeText(range.upperBound))"
        case .count(_, let range): "\(countText(range.lowerBound))–\(countText(range.upperBound))"
        case .value(let kind), .list(let kind, _): kind.range.isEmpty ? nil : kind.range
        case .options(let options):
            options.flatMap(\.elements).compactMap(\.range).isEmpty
                ? nil
                : options.compactMap { option in
                    let ranges = option.elements.compactMap(\.range)
                    return ranges.isEmpty ? nil : "`\(option.name)` \(ranges.joined(separator: ", "))"
                }.joined(separator: ", ")
        case .word, .choice, .optional, .optionalByte, .set, .block, .text, .several: nil
        }
    }
}
