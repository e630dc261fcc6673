import PipelineText

/// Which lines of a journal somebody asks for.
package struct AuditFilter: Sendable {
    /// `2026-11-25T03:00:00Z`: from then on, and before then.
    package var since: String?
    package var until: String?
    /// Its `actor`, or its user's number.
    package var actor: String?
    package var source: String?
    package var outcome: JournalEntry.Outcome?
    /// In any of its texts.
    package var contains: String?
    package init() {}

    /// Of an RFC 3339 time in UTC, what both kinds of times have.
    private static let common = 19

    package func matches(_ line: JournalLine) -> Bool {
        let time = line.time.prefix(AuditFilter.common)
        if let since, time < since.prefix(AuditFilter.common) { return false }
        if let until, time >= until.prefix(AuditFilter.common) { return false }
        if let actor, line.text("actor") != actor, line.number("uid").map({ "\($0)" }) != actor { return false }
        if let source, line.text("source") != source { return false }
        if let outcome, line.outcome != outcome { return false }
        guard let contains else { return true }
        return ["actor", "command", "request", "what", "why"].contains { line.text($0)?.contains(contains) == true }
    }
}

/// Lines of a journal as rows of a table.
package struct AuditText {
    /// Rows of one table: more are shown piece by piece.
    private static let most = 10_000
    private static let head = ["TIME", "OUTCOME", "SOURCE", "ACTOR", "-UID", "-REVISION", "WHAT", "WHY"]
    private var table = TextTable(head)
    private var hasHead = false
    package init() {}

    /// - Returns: rows that are shown now.
    package mutating func add(_ line: JournalLine) -> String {
        let who = line.text("actor") ?? line.text("command") ?? ""
        table.add([
            line.time, line.text("outcome") ?? "", line.text("source") ?? "", who,
            line.number("uid").map { "\($0)" } ?? "", line.number("revision").map { "\($0)" } ?? "",
            line.text("what") ?? "", line.text("why") ?? "",
        ])
        return table.count < AuditText.most ? "" : take()
    }

    /// What was added since, below the head of the table the first time.
    package mutating func take() -> String {
        let rows = table
        guard rows.count > 0 || !hasHead else { return "" }
        table = TextTable(AuditText.head)
        defer { hasHead = true }
        return (hasHead ? "" : rows.headLine) + rows.lines(0..<rows.count)
    }
}
