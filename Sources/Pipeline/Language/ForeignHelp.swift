import Pipeline

/// Advice for words of other proxies, wherever they are typed.
extension Checker {
    /// Advice for another proxy's word, or `did you mean ...?` if a candidate is near.
    /// - Parameter following: the words behind it: `client` of `timeout client`.
    func suggestion(
        for name: String, followedBy following: [WordSyntax] = [], among candidates: some Collection<String>
    ) -> String? {
        foreignHelp(for: name, followedBy: following, among: candidates) ?? misspelling(of: name, among: candidates)
    }

    /// Nil: no word of another proxy's.
    func foreignHelp(
        for name: String, followedBy following: [WordSyntax] = [], among candidates: some Collection<String>
    ) -> String? {
        guard let meaning = grammar.foreignWords.meaning(of: [name] + following.prefix(2).map(\.text)) else {
            return nil
        }
        let first = { (words: String) in String(words.prefix { $0 != " " }) }
        if let words = meaning.ours.first(where: { candidates.contains(first($0)) }) { return "write `\(words)`" }
        guard meaning.advice.isEmpty else { return meaning.advice.joined(separator: "; ") }
        let homes = meaning.ours.flatMap { self.homes(of: first($0), $0) }
        return homes.isEmpty ? nil : "write " + orList(Array(homes.prefix(3)))
    }

    /// The same for a line whose keyword is one of ours: `log global`.
    func foreignHelp(forLine words: [WordSyntax]) -> String? {
        grammar.foreignWords.meaning(of: words.map(\.text), least: 2)?.advice.first
    }

    /// Where a word of ours stands, as many places as it has: `` `workers` in `node` ``.
    private func homes(of word: String, _ words: String) -> [String] {
        var homes: [String] = []
        if let entry = grammar.topLevel.first(where: { $0.keyword == word }) {
            homes.append("`\(entry.form)` outside of blocks")
        }
        if has(NodeBlock.descriptor.lines, word) { homes.append("`\(words)` in `node`") }
        let route = RouteSettings.route.names.contains(word)
        let group = RouteSettings.group.names.contains(word)
        if route { homes.append("`\(words)` in a `route`\(group ? " or `backends` block" : "")") }
        if filterIndex[word] != nil { homes.append("`\(words)` in a pipeline") }
        for block in grammar.blocks where block.keyword != word && has(block.lines, word) {
            switch block.shape {
            case .named: homes.append("`\(words)` in a `\(block.keyword)` block")
            case .single: homes.append("`\(words)` in `\(block.keyword) { ... }`")
            case .nodeLine: homes.append("`\(words)` in `node`")
            case .line, .list: break
            }
        }
        for stage in catalog.map({ $0.descriptor })
        where stage.clauses.contains(where: { $0.elements.first?.words.contains(word) == true }) {
            homes.append("`\(words)` in the stage `\(stage.keyword)`")
        }
        if Checker.listenKinds.contains(word) { homes.append("`\(words)` behind the address of a `listen` line") }
        if ListenerWords.settings.contains(where: { $0.line.keyword == word }) {
            homes.append("`\(words)` behind the pipeline of a `listen` line")
        }
        if Checker.backendOptions.contains(word) { homes.append("`\(words)` behind the address of a `backend` line") }
        return homes
    }

    private func has(_ lines: [SettingLine], _ word: String) -> Bool {
        lines.contains { $0.keyword == word && $0.isDocumented }
    }
}
