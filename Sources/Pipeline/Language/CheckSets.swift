import Pipeline

extension Checker {
    func checkSets(_ entries: [EntrySyntax]) {
        var first: [String: SourceSpan] = [:]
        for entry in entries where !reporter.isFull {
            guard let name = blockName(of: entry, what: "set") else { continue }
            if isDuplicate("the set \(quoted(name.value))", name.span, firstAt: first[name.value]) { continue }
            first[name.value] = name.span
            if BuiltInSets.named(name.value) != nil {
                reporter.error(name.span, "`\(name.value)` is built in", help: "choose another name for this set")
            }
            // Kept even if some prefix is wrong: uses of the name are right.
            sets[name.value] = AddressSet(name: "@\(name.value)", prefixes: prefixes(of: entry, name))
        }
    }

    private func prefixes(of entry: EntrySyntax, _ name: Located<String>) -> [Prefix] {
        if entry.body == nil { return filePrefixes(of: entry, name) }
        var result: [Prefix] = []
        var places: [Prefix: SourceSpan] = [:]
        for line in entry.body?.entries ?? [] where !reporter.isFull {
            if let body = line.body {
                reporter.error(body.opening, "a set holds prefixes, not blocks", help: "remove this block")
            }
            for word in line.words where !reporter.isFull {
                guard let prefix = memberPrefix(word, of: name.value) else { continue }
                if isDuplicate("the prefix \(quoted(word.text))", word.span, firstAt: places[prefix]) { continue }
                places[prefix] = word.span
                result.append(prefix)
            }
        }
        if entry.body?.entries.isEmpty == true {
            reporter.warning(name.span, "the set `\(name.value)` is empty: it contains no address")
        }
        return result
    }

    private func filePrefixes(of entry: EntrySyntax, _ name: Located<String>) -> [Prefix] {
        guard let path = filePath(of: entry) else { return [] }
        var result: [Prefix] = []
        let isRead = forEachLine(of: path) { line throws(ValueProblem) in
            guard let prefix = Prefix(ascii: line) else {
                // Slow, and only for what is wrong: says what, as for a prefix in the config itself.
                _ = try Value.prefix(String(decoding: line, as: UTF8.self))
                throw ValueProblem(message: "this is no prefix")
            }
            result.append(prefix)
        }
        // Kept empty for the day that it is needed.
        if isRead, result.isEmpty { reporter.note(path.span, "\(path.value) is empty: it contains no address") }
        return result
    }

    private func memberPrefix(_ word: WordSyntax, of set: String) -> Prefix? {
        if word.text.hasPrefix("@") || BuiltInSets.named(word.text) != nil {
            reporter.error(
                word.span, "a set can't contain the set \(quoted(word.text))", expected: "a prefix",
                help: "name both sets in the stage: one clause each")
            return nil
        }
        return parsed(word) { text throws(ValueProblem) in try Value.prefix(text) }?.value
    }
}
