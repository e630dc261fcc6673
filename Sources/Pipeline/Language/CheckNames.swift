import Pipeline
import PipelineSets

/// `names NAME { HOSTNAME ... }`, `names NAME file PATH`.
extension Checker {
    func checkNames(_ entries: [EntrySyntax]) {
        var first: [String: SourceSpan] = [:]
        for entry in entries where !reporter.isFull {
            guard let name = blockName(of: entry, what: "names block") else { continue }
            if isDuplicate("the names block \(quoted(name.value))", name.span, firstAt: first[name.value]) { continue }
            first[name.value] = name.span
            // Kept even if some name is wrong: uses of the block are right.
            let found = entry.body == nil ? fileNames(of: entry) : blockNames(of: entry, name)
            blocks[.names, default: [:]][name.value] = NameSet(name: name.value, entries: found)
        }
    }

    private func fileNames(of entry: EntrySyntax) -> NameEntries {
        var names = NameEntries()
        guard let path = filePath(of: entry) else { return names }
        let isRead = forEachLine(of: path) { line throws(ValueProblem) in
            guard names.add(line) else { throw Value.nameProblem(String(decoding: line, as: UTF8.self)) }
        }
        if isRead, names.count == 0 { reporter.note(path.span, "\(path.value) is empty: it contains no name") }
        return names
    }

    private func blockNames(of entry: EntrySyntax, _ name: Located<String>) -> NameEntries {
        var names = NameEntries()
        for line in entry.body?.entries ?? [] where !reporter.isFull {
            if let body = line.body {
                reporter.error(body.opening, "a names block holds names, not blocks", help: "remove this block")
            }
            for word in line.words where !reporter.isFull {
                var text = word.text
                if !text.withUTF8({ names.add($0) }) {
                    let problem = Value.nameProblem(word.text)
                    reporter.error(word.span, problem.message, expected: problem.expected, help: problem.help)
                }
            }
        }
        if entry.body?.entries.isEmpty == true {
            reporter.warning(name.span, "the names block `\(name.value)` is empty: it contains no name")
        }
        return names
    }

    func remarkOnUnusedNames(_ entries: [EntrySyntax]) {
        for name in entries.compactMap(\.clauses[0].words.first) {
            guard let block = blocks[.names]?[name.text], !usedBlocks.contains(ObjectIdentifier(block)) else {
                continue
            }
            reporter.warning(
                name.span, "nothing uses the names block `\(name.text)`",
                help: "write `deny names \(name.text)` in `sni`, or remove it")
        }
    }
}

extension Value {
    /// Why `text` is no entry of a names block.
    static func nameProblem(_ text: String) -> ValueProblem {
        var problem = ValueProblem(
            message: "\(quoted(text)) is no hostname",
            expected: "a name like `app.example.com`, `*.example.com` (one label) or `.example.com` (all under it)")
        if text.utf8.contains(where: { $0 >= 0x80 }) {
            problem.help = "write its A-label, as it is on the wire: `xn--...`"
        } else if text.dropFirst(2).contains("*") || (text.contains("*") && !text.hasPrefix("*.")) {
            problem.help = "`*` stands for the first label only; for more, use `pattern` in `sni`"
        } else if IPAddress(text) != nil {
            problem.help = "an address is no server name: use a `set` and the stage `address`"
        }
        return problem
    }
}
