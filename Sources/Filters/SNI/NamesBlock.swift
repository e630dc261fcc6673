import Pipeline
import PipelineSets

/// `names NAME { HOSTNAME … }`, `names NAME file PATH`.
struct NameMembers: MemberList {
    static let block = BlockDescriptor(
        "names", BlockDescriptor.Members("hostname", "names", contained: "name"), what: "names block",
        of: NameMembers.self, "names hostnames for `sni` to allow or deny",
        use: { "write `deny names \($0)` in `sni`" },
        shown: { block in
            guard let table = (block as? NameSet)?.table else { return [] }
            return [membersText(table.texts(shownMembers), of: table.count)]
        })

    private var entries = NameEntries()

    /// Duplicate names are allowed.
    init(isDistinct: Bool) {}

    var count: Int { entries.count }

    mutating func add(_ text: UnsafeBufferPointer<UInt8>) throws(ValueProblem) -> Bool {
        guard entries.add(text) else { throw problem(String(decoding: text, as: UTF8.self)) }
        return true
    }

    func block(_ name: String) -> any ConfigBlock { NameSet(name: name, entries: entries) }

    /// Why `text` is not a valid entry.
    private func problem(_ text: String) -> ValueProblem {
        var problem = ValueProblem(
            message: "\(quoted(text)) is not a hostname",
            expected: "a name like `app.example.com`, `*.example.com` (one label) or `.example.com` (all under it)")
        if text.utf8.contains(where: { $0 >= 0x80 }) {
            problem.help = "write its A-label, as it is on the wire: `xn--...`"
        } else if text.dropFirst(2).contains("*") || (text.contains("*") && !text.hasPrefix("*.")) {
            problem.help = "`*` replaces only the first label; for more, use `pattern` in `sni`"
        } else if IPAddress(text) != nil {
            problem.help = "an address is not a server name: use a `set` and the stage `address`"
        }
        return problem
    }
}
