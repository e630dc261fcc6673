import Pipeline
import PipelineResolve
import PipelineText

/// Names of backends in `status`.
enum NameRows {
    /// The most addresses of a name in a table; JSON has all.
    private static let shown = 4

    static func problems(_ names: [NameStatus]) -> [String] {
        names.compactMap { name in
            let rest = name.addresses.isEmpty ? "routes have no backends from it" : "its last addresses are kept"
            if let emptiness = name.emptiness { return "\(name.name.host): \(emptiness); \(rest)" }
            return name.problem.map { "\(name.name.host) can't be looked up: \($0); \(rest)" }
        }
    }

    static func write(_ line: inout JSONLine, _ name: NameStatus) {
        line.open()
        line.field("name", name.name.host)
        line.field("records", name.name.kind == .service ? "SRV" : "A, AAAA")
        line.list("addresses", name.addresses) { $0.string($1.text) }
        if let age = name.age { line.field("age_ms", age.milliseconds) } else { line.nullField("age_ms") }
        if let next = name.next { line.field("next_ms", next.milliseconds) } else { line.nullField("next_ms") }
        line.field("error", name.problem ?? name.emptiness)
        line.field("refused", name.refused)
        line.field("omitted", name.omitted)
        line.close()
    }

    static func text(_ names: [NameStatus]) -> String {
        guard !names.isEmpty else { return "" }
        var table = TextTable(["NAME", "ADDRESSES", "-AGE", "-NEXT", "ERROR"])
        for name in names {
            let rest = name.addresses.count - min(name.addresses.count, shown)
            let addresses = name.addresses.prefix(shown).map(\.text).joined(separator: " ")
            table.add([
                "\(name.name)", addresses.isEmpty ? "none" : addresses + (rest > 0 ? " +\(rest)" : ""),
                name.age.map { plainDuration($0.milliseconds / 1000) } ?? "never",
                name.next.map { plainDuration($0.milliseconds / 1000) } ?? "asking",
                name.problem ?? name.emptiness ?? "",
            ])
        }
        return "\n" + table.text
    }
}
