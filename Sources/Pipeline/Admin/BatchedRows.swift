import CLinux
import Pipeline
import PipelineText

/// Writes rows as one document, a piece at a time: a large table costs one piece of memory, and each iteration of the
/// control loop one piece's time.
struct BatchedRows<Row> {
    /// Bytes that make a piece; and rows, since what is small may still be costly to look up.
    private static var pieceBytes: Int { 65536 }
    private static var pieceRows: Int { 500 }

    let rows: [Row]

    /// `head`, the rows with commas between, `tail`.
    func json(head: String, tail: String, _ write: @escaping (Row) -> [UInt8]) -> AdminResponse {
        var next = 0
        var isOver = false
        return AdminResponse(Array(head.utf8)) {
            guard !isOver else { return nil }
            let end = min(rows.count, next + BatchedRows.pieceRows)
            var bytes: [UInt8] = []
            while next < end, bytes.count < BatchedRows.pieceBytes {
                if next > 0 { bytes.append(UInt8(ascii: ",")) }
                bytes += write(rows[next])
                next += 1
            }
            isOver = next == rows.count
            return isOver ? bytes + Array(tail.utf8) : bytes
        }
    }

    /// A table for people, and `note` behind it. Columns are as wide as their widest cell, so the cells are made first.
    func text(_ head: [String], note: String, _ cells: @escaping (Row) -> [String]) -> AdminResponse {
        var table = TextTable(head)
        var next = 0
        return AdminResponse(preparing: { until in
            while next < rows.count {
                table.add(cells(rows[next]))
                next += 1
                if next % 16 == 0, Instant(nanoseconds: cl_now()) >= until { return nil }
            }
            var shown = 0
            return AdminResponse(Array("0\n\(table.headLine)".utf8)) {
                guard shown <= table.count else { return nil }
                let end = min(table.count, shown + BatchedRows.pieceRows)
                let text = table.lines(shown..<end) + (end == table.count ? note : "")
                shown = end == table.count ? end + 1 : end
                return Array(text.utf8)
            }
        })
    }
}
