import Pipeline

/// The groups of users of the host that a config is checked on.
package struct HostGroups: Sendable {
    /// False: the host has none of this name or number.
    let isKnown: @Sendable (String) -> Bool
    /// Names, for a hint.
    let names: @Sendable () -> [String]

    package init(isKnown: @escaping @Sendable (String) -> Bool, names: @escaping @Sendable () -> [String]) {
        self.isKnown = isKnown
        self.names = names
    }

    /// Every one counts as known.
    package static let unasked = HostGroups(isKnown: { _ in true }, names: { [] })
}

extension Checker {
    /// The group of `admin`: without it nobody could be let in.
    func checkAdminGroup(_ entries: [EntrySyntax]) {
        for entry in entries where entry.keyword.text == "admin" && entry.clauses.count == 1 {
            let words = entry.clauses[0].words
            guard words.count == 3, words[1].text == "group", !reporter.isFull else { continue }
            let name = words[2]
            guard !groupsOfHost.isKnown(name.text) else { continue }
            reporter.error(
                name.span, "this host has no group \(quoted(name.text))", expected: "a group's name, or its number",
                help: misspelling(of: name.text, among: groupsOfHost.names()) ?? "`getent group` has them all")
        }
    }
}
