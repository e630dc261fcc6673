import Pipeline
import PipelineLedger
import PipelineText

/// A report, for people, for programs, and for spreadsheets.
package struct EgressReportText {
    private let report: Report
    package init(_ report: Report) { self.report = report }

    /// What stands before the numbers.
    private var columns: [ReportGroup] { ReportColumns.of(report.question.by) }

    private var countsDestinations: Bool { report.question.order == .destinations }

    // MARK: People

    package var table: String {
        let figures = ["-OUT", "-IN", "-SHARE", "-CONNECTIONS"] + (countsDestinations ? ["-DESTINATIONS"] : [])
        var table = TextTable(columns.map { $0.rawValue.uppercased() } + figures + ["FIRST", "LAST"])
        for row in report.rows { table.add(columns.map { ReportColumns.name(row, $0) } + numbers(row.sums)) }
        let blank = [String](repeating: "", count: columns.count - 1)
        if report.others > 0 {
            let rest = report.rows.reduce(report.total.bytes) { max(0, $0 - max(0, $1.sums.bytes)) }
            table.add(
                ["(\(report.others) more)"] + blank + ["", "", share(rest)]
                    + [String](repeating: "", count: figures.count - 1))
        }
        table.add(["total"] + blank + numbers(report.total))
        return
            "\(LedgerTime.text(report.from)) to \(LedgerTime.text(report.to)), by \(by)\(report.question.filterText)\n\n"
            + table.text
    }

    private var by: String { report.question.by.map(\.rawValue).joined(separator: ",") }

    private func numbers(_ sums: ReportSums) -> [String] {
        [plainBytes(sums.bytesOut), plainBytes(sums.bytesIn), share(sums.bytes), String(sums.connections)]
            + (countsDestinations ? [String(sums.destinations)] : [])
            + [sums.last == 0 ? "-" : LedgerTime.text(sums.first), sums.last == 0 ? "-" : LedgerTime.text(sums.last)]
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
        line.field("by", by)
        line.field("sort", report.question.order.rawValue)
        line.key("only")
        line.open()
        for filter in report.question.filters where "\(filter.key)" != "port" { line.field(filter.key, filter.value) }
        if let port = report.question.port { line.field("port", Int(port)) }
        line.close()
        line.list("rows", report.rows) { line, row in
            line.open()
            for column in columns {
                if column == .port {
                    line.fields(row.service)
                } else {
                    line.field(column.key, ReportColumns.name(row, column))
                }
            }
            fields(&line, row.sums)
            line.close()
        }
        line.field("others", report.others)
        line.key("total")
        line.open()
        fields(&line, report.total)
        line.close()
        line.close()
        line.newline()
        return line.string
    }

    private func fields(_ line: inout JSONLine, _ sums: ReportSums) {
        line.field("bytes_out", Int(sums.bytesOut))
        line.field("bytes_in", Int(sums.bytesIn))
        line.field("connections", Int(sums.connections))
        if countsDestinations { line.field("destinations", Int(sums.destinations)) }
        line.field("first", sums.last == 0 ? nil : LedgerTime.text(sums.first))
        line.field("last", sums.last == 0 ? nil : LedgerTime.text(sums.last))
    }

    /// RFC 4180, with a head.
    package var csv: String {
        let names = columns.flatMap { column in
            column == .port ? ["port", "protocol", "icmp_type"] : [column.rawValue]
        }
        let figures = ["bytes_out", "bytes_in", "connections"] + (countsDestinations ? ["destinations"] : [])
        let rows = report.rows.map { row in
            columns.flatMap { $0 == .port ? EgressReportText.cells(row.service) : [ReportColumns.name(row, $0)] }
                + [row.sums.bytesOut, row.sums.bytesIn, row.sums.connections].map { String($0) }
                + (countsDestinations ? [String(row.sums.destinations)] : [])
                + [LedgerTime.text(row.sums.first), LedgerTime.text(row.sums.last)]
        }
        return ([names + figures + ["first", "last"]] + rows)
            .map { $0.map(EgressReportText.cell).joined(separator: ",") + "\r\n" }.joined()
    }

    private static func cells(_ service: ReportService?) -> [String] {
        guard let service, !service.isRest else { return ["", "", ""] }
        return [
            service.port.map { String($0) } ?? "", service.protocolName, service.icmpType.map { String($0) } ?? "",
        ]
    }

    /// Quoted where it must be, and where a spreadsheet would take it for a formula.
    private static func cell(_ text: String) -> String {
        let isFormula = text.first.map { "=+-@".contains($0) } ?? false
        guard isFormula || text.contains(where: { ",\"\r\n".contains($0) || $0 == "\r\n" }) else { return text }
        return "\"" + (isFormula ? "'" : "") + text.replacing("\"", with: "\"\"") + "\""
    }
}

/// What stands before the numbers of a report, and how a group of it is called.
enum ReportColumns {
    /// Whose it is comes with it: an instance's env, its app and its org.
    static func of(_ by: [ReportGroup]) -> [ReportGroup] {
        let owners: [ReportGroup] = [.instance, .env, .app, .org]
        let finest = owners.firstIndex { by.contains($0) }
        return (finest.map { Array(owners[$0...]) } ?? []) + [.destination, .port].filter { by.contains($0) }
    }

    /// Never empty: a source without an instance has its address.
    static func name(_ row: ReportRow, _ group: ReportGroup) -> String {
        let name = row.name(group)
        return name.isEmpty ? ReportQuestion.unknown : name
    }
}

extension ReportGroup {
    /// Its field's name.
    package var key: StaticString {
        switch self {
        case .org: "org"
        case .app: "app"
        case .env: "env"
        case .instance: "instance"
        case .destination: "destination"
        case .port: "port"
        }
    }
}
