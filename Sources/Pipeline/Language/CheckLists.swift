import Pipeline

/// `set NAME { PREFIX ... }`, `names NAME file PATH`: blocks of members.
extension Checker {
    func checkLists(_ entries: [EntrySyntax], _ descriptor: BlockDescriptor, _ members: BlockDescriptor.Members) {
        var first: [String: SourceSpan] = [:]
        for entry in entries where !reporter.isFull {
            guard let name = newName(of: entry, descriptor.what, &first),
                var list = descriptor.list(isDistinct: entry.body != nil)
            else { continue }
            if members.makesSets, BuiltInSets.named(name.value) != nil {
                reporter.error(name.span, "`\(name.value)` is built in", help: "choose another name for this set")
            }
            if entry.body == nil {
                readFile(of: entry, members, into: &list)
            } else {
                readMembers(of: entry, name, descriptor.what, members, into: &list)
            }
            // Kept even if some member is wrong: uses of the name are right.
            blocks.add(list.block(name.value), descriptor.kind)
        }
    }

    private func readFile(of entry: EntrySyntax, _ members: BlockDescriptor.Members, into list: inout any MemberList) {
        guard let path = filePath(of: entry) else { return }
        var taken = list
        let isRead = forEachLine(of: path) { line, _ throws(ValueProblem) in
            // Lists overlap: duplicates are allowed.
            _ = try taken.add(line)
        }
        list = taken
        // An empty set is allowed, with a note.
        if isRead, list.count == 0 {
            reporter.note(path.span, "\(path.value) is empty: it contains no \(members.contained)")
        }
    }

    private func readMembers(
        of entry: EntrySyntax, _ name: Located<String>, _ what: String, _ members: BlockDescriptor.Members,
        into list: inout any MemberList
    ) {
        var places: [String: SourceSpan] = [:]
        for line in entry.body?.entries ?? [] where !reporter.isFull {
            if let body = line.body {
                reporter.error(body.opening, "a \(what) holds \(members.plural), not blocks", help: "remove this block")
            }
            for word in line.words where !reporter.isFull {
                if members.makesSets, refusesSet(word, members) { continue }
                guard let isNew = added(word, to: &list) else { continue }
                if isNew {
                    places[word.text] = word.span
                } else if !isDuplicate(
                    "the \(members.singular) \(quoted(word.text))", word.span, firstAt: places[word.text])
                {
                    reporter.error(
                        word.span, "the \(members.singular) \(quoted(word.text)) is given twice",
                        help: "remove one of them")
                }
            }
        }
        if entry.body?.entries.isEmpty == true {
            reporter.warning(
                name.span, "the \(what) `\(name.value)` is empty: it contains no \(members.contained)")
        }
    }

    /// Nil, reported, if the word is no member.
    private func added(_ word: WordSyntax, to list: inout any MemberList) -> Bool? {
        var text = word.text
        var problem: ValueProblem?
        let isNew = text.withUTF8 { bytes in
            do throws(ValueProblem) {
                return try list.add(bytes)
            } catch {
                problem = error
                return false
            }
        }
        guard let problem else { return isNew }
        reporter.error(word.span, problem.message, expected: problem.expected, help: problem.help)
        return nil
    }

    private func refusesSet(_ word: WordSyntax, _ members: BlockDescriptor.Members) -> Bool {
        guard word.text.hasPrefix("@") || BuiltInSets.named(word.text) != nil else { return false }
        reporter.error(
            word.span, "a set can't contain the set \(quoted(word.text))", expected: "a \(members.singular)",
            help: "name both sets in the stage: one clause each")
        return true
    }
}
