import Pipeline

extension ClauseSpec {
    /// The clause as help and messages write it: `timeout DURATION`, `deny|allow [from|to] SET`.
    package var form: String { elements.map(\.form).joined(separator: " ") }
}

extension ClauseSpec.Element {
    package var form: String {
        switch self {
        case .word(let word): word
        case .choice(_, let words): words.joined(separator: "|")
        case .optional(_, let words): "[" + words.joined(separator: "|") + "]"
        case .duration(let name, _): name.uppercased()
        case .size(let name, _): name.uppercased()
        case .count(let name, _): name.uppercased()
        case .optionalByte(let name, _): "[\(name.uppercased())]"
        case .set(let name): name.uppercased()
        case .block(let name, _), .text(let name): name.uppercased()
        }
    }

    /// What a message says was expected: any of these.
    var expectations: [String] {
        switch self {
        case .word(let word): ["`\(word)`"]
        case .choice(_, let words), .optional(_, let words): words.map { "`\($0)`" }
        case .duration: ["a duration like `3s`"]
        case .size: ["a size like `16KiB`"]
        case .count: ["a number like `400`"]
        case .optionalByte(let name, let range):
            ["a \(name) from \(Value.byteText(range.lowerBound)) to \(Value.byteText(range.upperBound))"]
        case .set: ["`@NAME`", "a prefix"] + BuiltInSets.names.map { "`\($0)`" }
        case .block(_, let kind): ["the name of a `\(kind.rawValue)` block"]
        case .text(let name): ["a \(name)"]
        }
    }
}

/// Why words don't fit a clause, and how far they did.
struct ClauseFailure: Error {
    /// How many words fitted.
    var progress: Int
    /// The word is of the right kind, and wrong in itself.
    var isValue = false
    /// Nil: words are missing.
    var message: String?
    var expected: [String] = []
    var candidates: [String] = []
    var help: String?

    /// The one that came further; of two as far, the one about a value; else what both expected.
    func merged(with other: ClauseFailure) -> ClauseFailure {
        if progress != other.progress { return progress > other.progress ? self : other }
        if isValue || other.isValue { return isValue ? self : other }
        var result = self
        result.expected += other.expected.filter { !expected.contains($0) }
        result.candidates += other.candidates
        result.help = help ?? other.help
        return result
    }
}

/// Fits the words of one clause to one ``ClauseSpec``.
struct ClauseMatcher {
    /// The sets of the file.
    let sets: [String: AddressSet]
    /// The blocks of the file, by kind and name.
    var blocks: [BlockKind: [String: any ConfigBlock]] = [:]

    func match(_ words: [WordSyntax], _ spec: ClauseSpec) throws(ClauseFailure) -> Clause {
        var values: [ArgumentValue] = []
        var index = 0
        // Optional words that were not there: a later word that doesn't fit may be meant as one of them.
        var passed: [ClauseSpec.Element] = []
        for element in spec.elements {
            let word = index < words.count ? words[index].text : nil
            if case .optional(_, let options) = element {
                if let word, options.contains(word) {
                    values.append(.word(word))
                    index += 1
                    passed = []
                } else {
                    values.append(.absent)
                    passed.append(element)
                }
                continue
            }
            if case .optionalByte = element, word?.first?.isNumber != true {
                values.append(.absent)
                passed.append(element)
                continue
            }
            guard let word else { throw mismatch(nil, at: index, passed + [element]) }
            switch element {
            case .word(let wanted):
                guard word == wanted else { throw mismatch(word, at: index, passed + [element]) }
            case .choice(_, let options):
                guard options.contains(word) else { throw mismatch(word, at: index, passed + [element]) }
                values.append(.word(word))
            default: values.append(try value(word, element, at: index, passed))
            }
            index += 1
            passed = []
        }
        guard index == words.count else {
            throw ClauseFailure(
                progress: index, message: "\(quoted(words[index].text)) is more than the clause takes",
                expected: passed.flatMap(\.expectations) + ["`,` or the end of the line"],
                candidates: passed.flatMap(\.words))
        }
        return Clause(name: spec.name, values: values)
    }

    /// The first of `specs` that fits, or the failure of those that came furthest.
    func match(_ words: [WordSyntax], oneOf specs: [ClauseSpec]) throws(ClauseFailure) -> (ClauseSpec, Clause) {
        var best: ClauseFailure?
        for spec in specs {
            do throws(ClauseFailure) {
                return (spec, try match(words, spec))
            } catch {
                best = best.map { $0.merged(with: error) } ?? error
            }
        }
        throw best ?? ClauseFailure(progress: 0, message: words.first.map { "unexpected \(quoted($0.text))" })
    }

    private func mismatch(_ word: String?, at index: Int, _ wanted: [ClauseSpec.Element]) -> ClauseFailure {
        ClauseFailure(
            progress: index, message: word.map { "unexpected \(quoted($0))" },
            expected: wanted.flatMap(\.expectations), candidates: wanted.flatMap(\.words))
    }

    private func value(
        _ word: String, _ element: ClauseSpec.Element, at index: Int, _ passed: [ClauseSpec.Element]
    ) throws(ClauseFailure) -> ArgumentValue {
        do throws(ValueProblem) {
            switch element {
            case .duration(_, let range): return .duration(try Value.duration(word, range))
            case .size(_, let range): return .size(try Value.size(word, range))
            case .count(_, let range): return .count(try Value.count(word, range))
            case .optionalByte(let name, let range): return .count(UInt64(try Value.byte(word, range, what: name)))
            case .block(_, let kind): return .block(try block(word, kind))
            case .text: return .text(word)
            default: return .set(try addressSet(word, orOneOf: passed.flatMap(\.words)))
            }
        } catch {
            let isValue = ClauseMatcher.looksLikeValue(word, element)
            let others = isValue ? [] : passed
            let own = error.expected.map { [$0] } ?? (isValue ? [] : element.expectations)
            throw ClauseFailure(
                progress: index, isValue: isValue, message: error.message,
                expected: others.flatMap(\.expectations) + own,
                candidates: others.flatMap(\.words), help: error.help)
        }
    }

    /// True if the author meant a value here, so that what is wrong with it is worth more than that others would fit.
    private static func looksLikeValue(_ word: String, _ element: ClauseSpec.Element) -> Bool {
        guard case .set = element else { return word.first?.isNumber == true }
        return word.contains { $0 == "@" || $0 == "." || $0 == ":" || $0 == "/" }
    }

    private func block(_ word: String, _ kind: BlockKind) throws(ValueProblem) -> any ConfigBlock {
        if let block = blocks[kind]?[word] { return block }
        let known = (blocks[kind] ?? [:]).keys.sorted()
        throw ValueProblem(
            message: "no \(kind.rawValue) is named \(quoted(word))",
            help: suggestion(for: word, among: known) ?? "add `\(kind.rawValue) \(word) { ... }`")
    }

    /// `@name`, a prefix, or a built-in set.
    private func addressSet(_ word: String, orOneOf others: [String]) throws(ValueProblem) -> AddressSet {
        if word.hasPrefix("@") {
            if let set = sets[String(word.dropFirst())] { return set }
            let near = nearest(to: String(word.dropFirst()), among: sets.keys.sorted())
            let builtIn = BuiltInSets.named(String(word.dropFirst())) != nil
            throw ValueProblem(
                message: "no set is named \(quoted(String(word.dropFirst())))",
                help: builtIn
                    ? "a built-in set has no `@`: write `\(word.dropFirst())`"
                    : near.map { "did you mean `@\($0)`?" } ?? "add `set \(word.dropFirst()) { PREFIX ... }`")
        }
        if let set = BuiltInSets.named(word) { return set }
        if word.contains(where: { $0 == "." || $0 == ":" || $0 == "/" }) {
            return AddressSet(name: word, prefixes: [try Value.prefix(word)])
        }
        throw ValueProblem(
            message: "unexpected \(quoted(word))",
            help: sets[word] != nil ? "write `@\(word)`" : suggestion(for: word, among: others + BuiltInSets.names))
    }
}

extension ClauseSpec.Element {
    /// The fixed words that may stand here.
    var words: [String] {
        switch self {
        case .word(let word): [word]
        case .choice(_, let words), .optional(_, let words): words
        case .set: BuiltInSets.names
        default: []
        }
    }
}
