import Pipeline
import PipelineLedger

/// A report, for people, for programs, and for spreadsheets.
package struct EgressReportText {
    private let report: Report
    package init(_ report: Report) { self.report = report }

    /// Columns of a group before the numbers, with what is in them.
    private var columns: [(head: String, key: StaticString, value: (ReportRow) -> String)] {
        switch report.group {
        case .org: [("ORG", "org", \.org)]
        case .env: [("ENV", "env", \.env), ("APP", "app", \.app), ("ORG", "org", \.org)]
        case .instance:
            [("INSTANCE", "instance", \.name), ("ENV", "env", \.env), ("APP", "app", \.app), ("ORG", "org", \.org)]
        case .destination: [("DESTINATION", "destination", \.name)]
        case .port: [("PORT", "port", \.name)]
        }
    }

    // MARK: People

    package var table: String {
        var table = TextTable(columns.map(\.head) + ["-OUT", "-IN", "-SHARE", "-CONNECTIONS", "FIRST", "LAST"])
        for row in report.rows {
            let names = columns.map { column in column.value(row).isEmpty ? "-" : column.value(row) }
            table.add(names + numbers(row.sums))
        }
        let shown = report.rows.reduce(Int64(0)) { $0 + min($1.sums.bytes, Int64.max / 4096) }
        if report.others > 0 {
            let rest = max(0, report.total.bytes - shown)
            table.add(
                ["(\(report.others) more)"] + [String](repeating: "", count: columns.count - 1)
                    + ["", "", share(rest), "", "", ""])
        }
        table.add(["total"] + [String](repeating: "", count: columns.count - 1) + numbers(report.total))
        return "\(LedgerTime.text(report.from)) to \(LedgerTime.text(report.to)), by \(report.group.rawValue)\n\n"
            + table.text
    }

    private func numbers(_ sums: ReportSums) -> [String] {
        [
            plainBytes(sums.bytesOut), plainBytes(sums.bytesIn), share(sums.bytes), String(sums.connections),
            sums.last == 0 ? "-" : LedgerTime.text(sums.first), sums.last == 0 ? "-" : LedgerTime.text(sums.last),
        ]
    }

    private func share(_ bytes: Int64) -> String {
        let total = report.total.bytes
        guard total > 0 else { return "-" }
        let tenths = Int64((Double(bytes) / Double(total) * 1000).rounded())
        return "\(tenths / 10).\(tenths % 10)%"
    }

    // MARK: Programs

    package var json: String {
        var line = JSONLine()
        line.open()
        line.field("from", LedgerTime.text(report.from))
        line.field("to", LedgerTime.text(report.to))
        line.field("by", report.group.rawValue)
        line.list("rows", report.rows) { line, row in
            line.open()
            for column in columns { line.field(column.key, column.value(row)) }
            EgressReportText.fields(&line, row.sums)
            line.close()
        }
        line.field("others", report.others)
        line.key("total")
        line.open()
        EgressReportText.fields(&line, report.total)
        line.close()
        line.close()
        line.newline()
        return line.string
    }

    private static func fields(_ line: inout JSONLine, _ sums: ReportSums) {
        line.field("bytes_out", Int(sums.bytesOut))
        line.field("bytes_in", Int(sums.bytesIn))
        line.field("connections", Int(sums.connections))
        line.field("first", sums.last == 0 ? nil : LedgerTime.text(sums.first))
        line.field("last", sums.last == 0 ? nil : LedgerTime.text(sums.last))
    }

    /// RFC 4180, with a head.
    package var csv: String {
        let head = columns.map { $0.head.lowercased() } + ["bytes_out", "bytes_in", "connections", "first", "last"]
        let rows = report.rows.map { row in
            columns.map { $0.value(row) } + [
                String(row.sums.bytesOut), String(row.sums.bytesIn), String(row.sums.connections),
                LedgerTime.text(row.sums.first), LedgerTime.text(row.sums.last),
            ]
        }
        return ([head] + rows).map { $0.map(EgressReportText.cell).joined(separator: ",") + "\r\n" }.joined()
    }

    /// Quoted where it must be, and where a spreadsheet would take it for a formula.
    private static func cell(_ text: String) -> String {
        let isFormula = text.first.map { "=+-@".contains($0) } ?? false
        guard isFormula || text.contains(where: { ",\"\r\n".contains($0) || $0 == "\r\n" }) else { return text }
        return "\"" + (isFormula ? "'" : "") + text.replacing("\"", with: "\"\"") + "\""
    }
}

/// `1.5 GiB`, `812 B`.
func plainBytes(_ bytes: Int64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    var value = Double(bytes)
    var unit = 0
    while value >= 1023.95, unit + 1 < units.count {
        value /= 1024
        unit += 1
    }
    guard unit > 0 else { return "\(bytes) B" }
    let tenths = Int64((value * 10).rounded())
    return "\(tenths / 10).\(tenths % 10) \(units[unit])"
}
