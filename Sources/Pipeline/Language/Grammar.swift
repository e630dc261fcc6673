import Pipeline

/// The top-level entries of the language and a build's filters, for parsing and formatting.
struct Grammar {
    struct Entry {
        let keyword: String
        /// As messages write it.
        let form: String
        let isBlock: Bool
        /// What the keyword was before.
        var formerly: String?
    }

    /// In the order of messages.
    let topLevel: [Entry]
    /// The keywords of ``topLevel``, former ones included: they reveal a forgotten `}`.
    let keywords: Set<String>
    /// Blocks that hold lists of words in place of directives, by keyword.
    let lists: [String: BlockDescriptor.Members]
    let blocks: [BlockDescriptor]
    let foreignWords: ForeignWords

    init(_ catalog: [any Filter.Type]) {
        blocks = catalog.blocks
        foreignWords = ForeignWords(catalog)
        var entries = [Entry(keyword: "node", form: "node NAME { ... }", isBlock: true)]
        var lists: [String: BlockDescriptor.Members] = [:]
        for block in blocks {
            if var entry = block.entry {
                entry.formerly = block.formerly
                entries.append(entry)
            }
            if case .list(let members) = block.shape { lists[block.keyword] = members }
        }
        entries += [
            Entry(keyword: "pipeline", form: "pipeline NAME { ... }", isBlock: true),
            Entry(keyword: "backends", form: "backends NAME { ... }", isBlock: true),
            Entry(keyword: "route", form: "route [HOSTNAME ...|file PATH] { ... }", isBlock: true),
            Entry(
                keyword: "listen",
                form:
                    "listen ADDRESS:PORT[-LAST] tls_passthrough|tcp_raw|transparent|redirect via PIPELINE [OPTION ...]",
                isBlock: false),
            Entry(
                keyword: "expose",
                form: "expose ADDRESS|dedicated_ipv4 ports FIRST-LAST [HINT] via PIPELINE [OPTION ...]",
                isBlock: false),
            Entry(keyword: "routes", form: "routes file PATH [watch] | push", isBlock: false),
            Entry(keyword: IncludeRun.keyword, form: "include GLOB", isBlock: false),
        ]
        topLevel = entries
        keywords = Set(entries.map(\.keyword) + entries.compactMap(\.formerly))
        self.lists = lists
    }
}

extension BlockDescriptor {
    /// Its form as a top-level entry; nil: it belongs inside `node`.
    var entry: Grammar.Entry? {
        switch shape {
        case .named: Grammar.Entry(keyword: keyword, form: "\(keyword) NAME { ... }", isBlock: true)
        case .single: Grammar.Entry(keyword: keyword, form: "\(keyword) { ... }", isBlock: true)
        case .line: Grammar.Entry(keyword: keyword, form: lineForm, isBlock: false)
        case .nodeLine: nil
        case .list(let members):
            members.mayStandInConfig
                ? Grammar.Entry(
                    keyword: keyword, form: "\(keyword) NAME { \(members.singular.uppercased()) ... }", isBlock: true)
                : Grammar.Entry(keyword: keyword, form: "\(keyword) NAME file PATH", isBlock: false)
        }
    }

    /// For a line that is a block: its form, as the fallback help.
    var wholeForm: String? { if case .line = shape { "write `\(lineForm)`" } else { nil } }

    /// For a line that is a block: its complete form.
    var lineForm: String { "\(keyword) \(lines.first?.forms.first?.form ?? "")" }
}
