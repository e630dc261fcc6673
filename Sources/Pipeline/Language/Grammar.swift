import Pipeline

/// What stands outside of blocks, of the language itself and of a build's filters: what parsing and formatting need to know.
struct Grammar {
    struct Entry {
        let keyword: String
        /// As messages write it.
        let form: String
        let isBlock: Bool
        /// What the keyword was before.
        var formerly: String?
    }

    /// In the order in which messages offer them.
    let topLevel: [Entry]
    /// The keywords of ``topLevel``, former ones too: where a forgotten `}` may be noticed.
    let keywords: Set<String>
    /// Blocks that hold lists of words in place of directives, by keyword.
    let lists: [String: BlockDescriptor.Members]
    let blocks: [BlockDescriptor]

    init(_ catalog: [any Filter.Type]) {
        blocks = catalog.blocks
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
            Entry(keyword: "route", form: "route [HOSTNAME] { ... }", isBlock: true),
            Entry(
                keyword: "listen",
                form: "listen ADDRESS:PORT tls_passthrough|tcp_raw|transparent|redirect via PIPELINE",
                isBlock: false),
            Entry(
                keyword: "expose", form: "expose ADDRESS|dedicated_ipv4 ports FIRST-LAST [HINT] via PIPELINE",
                isBlock: false),
            Entry(keyword: "routes", form: "routes file PATH", isBlock: false),
        ]
        topLevel = entries
        keywords = Set(entries.map(\.keyword) + entries.compactMap(\.formerly))
        self.lists = lists
    }
}

extension BlockDescriptor {
    /// As an entry of the file; nil: it stands inside of `node`.
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

    /// Of a line that is a block of its own: what to write, where no better help is known.
    var wholeForm: String? { if case .line = shape { "write `\(lineForm)`" } else { nil } }

    /// Of a line that is a block of its own: the whole of it.
    var lineForm: String { "\(keyword) \(lines.first?.forms.first?.form ?? "")" }
}
