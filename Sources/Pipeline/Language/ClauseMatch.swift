import Pipeline

extension ClauseSpec.Element {
    /// The alternatives that a message lists as expected.
    var expectations: [String] {
        switch self {
        case .word(let word): ["`\(word)`"]
        case .choice(_, let words), .optional(_, let words): words.map { "`\($0)`" }
        case .duration: ["a duration like `3s`"]
        case .size: ["a size like `16KiB`"]
        case .count: ["a number like `400`"]
        case .optionalByte(let name, let range):
            ["a \(name) from \(ConfigValue.byteText(range.lowerBound)) to \(ConfigValue.byteText(range.upperBound))"]
        case .set: ["`@NAME`", "a prefix"] + BuiltInSets.names.map { "`\($0)`" }
        case .block(_, let kind): ["the name of a `\(kind.keyword)` block"]
        case .text(let name): ["a \(name)"]
        case .value(let kind), .list(let kind, _): [kind.expected]
        case .options(let options): options.map { "`\($0.name)`" }
        case .several(let elements, _): elements.first?.expectations ?? []
        }
    }
}

/// Why words don't fit a clause, and how many did.
struct ClauseFailure: Error {
    /// The number of matching words.
    var progress: Int
    /// The word is of the right kind, but invalid.
    var isValue = false
    /// Nil: words are missing.
    var message: String?
    var expected: [String] = []
    var candidates: [String] = []
    var help: String?
    /// The index of a related word: the first of two duplicates.
    var first: Int?
    /// Further problems of the same words.
    var others: [ClauseFailure] = []

    static let endOfLine = "the end of the line"

    static func twice(_ word: String, at index: Int, _ first: Int) -> ClauseFailure {
        ClauseFailure(
            progress: index, isValue: true, message: "\(quoted(word)) is given twice", help: "remove one of them",
            first: first)
    }

    /// The failure with more progress; at equal progress, the one about a value; else the union of both.
    func merged(with other: ClauseFailure) -> ClauseFailure {
        if progress != other.progress { return progress > other.progress ? self : other }
        if isValue || other.isValue { return isValue ? self : other }
        var result = self
        result.expected += other.expected.filter { !expected.contains($0) }
        let end = result.expected.filter { $0.hasSuffix(ClauseFailure.endOfLine) }
        result.expected = result.expected.filter { !end.contains($0) } + end
        result.candidates += other.candidates
        result.help = help ?? other.help
        return result
    }
}

/// Fits the words of one clause to one ``ClauseSpec``.
struct ClauseMatcher {
    /// The blocks of the file, sets among them.
    var blocks = BlockTable()
    /// Further clauses may follow after a comma.
    var isOneOfSeveral = true

    func match(_ words: [WordSyntax], _ spec: ClauseSpec) throws(ClauseFailure) -> Clause {
        var run = ClauseRun()
        for element in spec.elements { try match(words, element, &run) }
        guard run.index == words.count else {
            let word = quoted(words[run.index].text)
            throw ClauseFailure(
                progress: run.index,
                message: isOneOfSeveral ? "\(word) is too much for the clause" : "unexpected \(word)",
                expected: run.passed.flatMap(\.expectations)
                    + [isOneOfSeveral ? "`,` or the end of the line" : ClauseFailure.endOfLine],
                candidates: run.passed.flatMap(\.words))
        }
        return Clause(name: spec.name, values: run.values)
    }

    /// How far the words of a clause have fitted.
    private struct ClauseRun {
        var values: [ArgumentValue] = []
        var index = 0
        /// Optional words that were skipped: a later misfit may be meant as one of them.
        var passed: [ClauseSpec.Element] = []

        mutating func take(_ value: ArgumentValue?) {
            if let value { values.append(value) }
            index += 1
            passed = []
        }
        mutating func pass(_ element: ClauseSpec.Element) {
            values.append(.absent)
            passed.append(element)
        }
    }

    private func match(
        _ words: [WordSyntax], _ element: ClauseSpec.Element, _ run: inout ClauseRun
    ) throws(ClauseFailure) {
        let word = run.index < words.count ? words[run.index].text : nil
        switch element {
        case .optional(_, let options):
            if let word, options.contains(word) { run.take(.word(word)) } else { run.pass(element) }
            return
        case .optionalByte where word?.first?.isNumber != true: return run.pass(element)
        case .options(let options):
            run.values.append(.options(try self.options(words, from: &run.index, options)))
            return
        case .several(let elements, let limit): return try several(words, elements, limit, &run)
        default: break
        }
        guard let word else { throw mismatch(nil, at: run.index, run.passed + [element]) }
        switch element {
        case .word(let wanted):
            guard word == wanted else { throw mismatch(word, at: run.index, run.passed + [element]) }
            run.take(nil)
        case .choice(_, let options):
            guard options.contains(word) else { throw mismatch(word, at: run.index, run.passed + [element]) }
            run.take(.word(word))
        case .list(let kind, let limit):
            run.values += try list(words, from: run.index, kind, limit)
            run.index = words.count
        default: run.take(try value(word, element, at: run.index, run.passed))
        }
    }

    /// Checks all of them, and reports each problem.
    private func list(
        _ words: [WordSyntax], from start: Int, _ kind: ValueKind, _ limit: Int
    ) throws(ClauseFailure) -> [ArgumentValue] {
        var values: [ArgumentValue] = []
        var failures: [ClauseFailure] = []
        var places: [String: Int] = [:]
        for index in start..<words.count {
            let word = words[index].text
            if let first = places[word] {
                failures.append(.twice(word, at: index, first))
                continue
            }
            places[word] = index
            guard values.count < limit else {
                failures.append(ClauseFailure(progress: index, isValue: true, message: "more than \(limit) of them"))
                break
            }
            do throws(ClauseFailure) {
                values.append(try value(word, .value(kind), at: index, []))
            } catch {
                failures.append(error)
            }
        }
        guard var first = failures.first else { return values }
        first.others = Array(failures.dropFirst())
        throw first
    }

    private func several(
        _ words: [WordSyntax], _ elements: [ClauseSpec.Element], _ limit: Int, _ run: inout ClauseRun
    ) throws(ClauseFailure) {
        var count = 0
        while run.index < words.count {
            guard count < limit else {
                throw ClauseFailure(
                    progress: run.index, isValue: true, message: "more than \(limit) further ones",
                    help: "remove the rest")
            }
            for element in elements { try match(words, element, &run) }
            count += 1
        }
    }

    /// Up to the end of the words, or to a word that begins no option.
    private func options(
        _ words: [WordSyntax], from index: inout Int, _ options: [ClauseSpec]
    ) throws(ClauseFailure) -> [Clause] {
        var found: [Clause] = []
        var places: [String: Int] = [:]
        while index < words.count {
            let word = words[index].text
            guard let option = options.first(where: { $0.name == word }) else {
                throw ClauseFailure(
                    progress: index, message: "unexpected \(quoted(word))",
                    expected: options.map { "`\($0.name)`" } + [ClauseFailure.endOfLine],
                    candidates: options.map(\.name))
            }
            if let first = places[word] { throw .twice(word, at: index, first) }
            places[word] = index
            var run = ClauseRun(index: index)
            for element in option.elements { try match(words, element, &run) }
            index = run.index
            found.append(Clause(name: option.name, values: run.values))
        }
        return found
    }

    /// The first of `specs` that fits, or the failure with the most progress.
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
            case .duration(_, let range): return .duration(try ConfigValue.duration(word, range))
            case .size(_, let range): return .size(try ConfigValue.size(word, range))
            case .count(_, let range): return .count(try ConfigValue.count(word, range))
            case .optionalByte(let name, let range):
                return .count(UInt64(try ConfigValue.byte(word, range, what: name)))
            case .block(_, let kind): return .block(try block(word, kind))
            case .text: return .text(word)
            case .value(let kind): return try kind.read(word)
            default: return .set(try addressSet(word, orOneOf: passed.flatMap(\.words)))
            }
        } catch {
            let isValue = ClauseMatcher.looksLikeValue(word, element, error)
            let others = isValue ? [] : passed
            let own = error.expected.map { [$0] } ?? (isValue ? [] : element.expectations)
            throw ClauseFailure(
                progress: index, isValue: isValue, message: error.message,
                expected: others.flatMap(\.expectations) + own,
                candidates: others.flatMap(\.words) + element.words, help: error.help)
        }
    }

    /// True if the author meant a value here, so that its problem is more useful than a list of alternatives.
    private static func looksLikeValue(
        _ word: String, _ element: ClauseSpec.Element, _ problem: ValueProblem
    ) -> Bool {
        if case .value = element { return !problem.mayBeOther }
        guard case .set = element else { return word.first?.isNumber == true }
        return word.contains { $0 == "@" || $0 == "." || $0 == ":" || $0 == "/" }
    }

    private func block(_ word: String, _ kind: BlockKind) throws(ValueProblem) -> any ConfigBlock {
        if let block = blocks.find(kind, word) { return block }
        throw ValueProblem(
            message: "no \(kind.keyword) is named \(quoted(word))",
            help: misspelling(of: word, among: blocks.names(kind)) ?? "add `\(kind.keyword) \(word) { ... }`")
    }

    /// `@name`, a prefix, or a built-in set.
    private func addressSet(_ word: String, orOneOf others: [String]) throws(ValueProblem) -> AddressSet {
        if word.hasPrefix("@") {
            if let set = blocks.set(String(word.dropFirst())) { return set }
            let near = nearest(to: String(word.dropFirst()), among: blocks.all(of: NamedSet.self).map(\.name).sorted())
            let builtIn = BuiltInSets.named(String(word.dropFirst())) != nil
            throw ValueProblem(
                message: "no set is named \(quoted(String(word.dropFirst())))",
                help: builtIn
                    ? "a built-in set has no `@`: write `\(word.dropFirst())`"
                    : near.map { "did you mean `@\($0)`?" } ?? "add `set \(word.dropFirst()) { PREFIX ... }`")
        }
        if let set = BuiltInSets.named(word) { return set }
        if word.contains(where: { $0 == "." || $0 == ":" || $0 == "/" }) {
            return AddressSet(name: word, prefixes: [try ConfigValue.prefix(word)])
        }
        throw ValueProblem(
            message: "unexpected \(quoted(word))",
            help: blocks.set(word) != nil
                ? "write `@\(word)`" : misspelling(of: word, among: others + BuiltInSets.names))
    }
}

extension ClauseSpec.Element {
    /// The fixed words that may stand here.
    var words: [String] {
        switch self {
        case .word(let word): [word]
        case .choice(_, let words), .optional(_, let words): words
        case .set: BuiltInSets.names
        case .options(let options): options.map(\.name)
        case .several(let elements, _): elements.first?.words ?? []
        case .value(let kind), .list(let kind, _): kind.candidates
        default: []
        }
    }
}
