import PipelineNode
import PipelineText

extension NodePlan {
    /// For people: a line for each change, ownership first.
    package var text: String {
        var text = notes.map { "note: \($0)\n" }.joined()
        for why in held { text += "held: \(why)\n" }
        for kind in PlannedChange.Kind.allCases {
            for change in changes where change.kind == kind { text += TextTable.harmless(line(change)) + "\n" }
        }
        return text + summary + "\n"
    }

    private static let width = PlannedChange.Kind.allCases.map(\.rawValue.count).max() ?? 0

    private func line(_ change: PlannedChange) -> String {
        let sign =
            switch change.action {
            case .added: "+"
            case .removed: "-"
            case .changed: "~"
            }
        let kind = change.kind.rawValue
        var line = kind + String(repeating: " ", count: NodePlan.width - kind.count) + " \(sign) \(change.subject)"
        switch (change.from, change.to) {
        case (let from?, let to?): line += ": \(from) -> \(to)"
        case (let from?, nil): line += ": \(from)" + (change.kind == .ownership ? " -> nobody" : "")
        case (nil, let to?): line += ": \(to)"
        case (nil, nil): break
        }
        if !change.details.isEmpty {
            line += (change.from == nil && change.to == nil ? ": " : ", ") + change.details.joined(separator: ", ")
        }
        if let connections = change.connections { line += " (\(NodePlan.count(connections)))" }
        return line
    }

    private static func count(_ connections: UInt64) -> String {
        "\(connections) \(connections == 1 ? "connection" : "connections")"
    }

    private var summary: String {
        guard !changes.isEmpty || !held.isEmpty else { return "no changes" }
        let owners = ownershipChanges
        let moved =
            owners == 0
            ? "no name, port or address changes hands"
            : "\(owners) \(owners == 1 ? "name, port or address changes" : "names, ports or addresses change") hands"
        var text = "\(changes.count) \(changes.count == 1 ? "change" : "changes"): \(moved)"
        if !held.isEmpty { text += "; it would be held until it is confirmed" }
        if !countsConnections { text += "; live connections are not counted without --admin" }
        return text
    }

    /// One object for programs.
    package var json: String {
        var line = JSONLine()
        line.open()
        line.field("outcome", changes.isEmpty && held.isEmpty ? "no_changes" : "changes")
        line.field("ownership_changes", ownershipChanges)
        line.field("counts_connections", countsConnections)
        line.list("held", held) { $0.string($1) }
        line.list("notes", notes) { $0.string($1) }
        line.list("changes", changes) { line, change in
            line.open()
            line.field("kind", change.kind.rawValue)
            line.field("action", change.action.rawValue)
            line.field("subject", change.subject)
            if let what = change.what { line.field("what", what) }
            line.field("from", change.from)
            line.field("to", change.to)
            line.list("details", change.details) { $0.string($1) }
            if let connections = change.connections {
                line.field("connections", connections)
            } else {
                line.nullField("connections")
            }
            line.close()
        }
        line.close()
        return line.string
    }
}
