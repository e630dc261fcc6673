/// Columns for people: a head, rows, two spaces between. Numbers are right-aligned.
package struct TextTable {
    private let head: [String]
    private let rightAligned: Set<Int>
    private var rows: [[String]] = []
    /// Of each column, in characters.
    private var widths: [Int]

    /// - Parameter head: `-` in front of a name: the column is right-aligned.
    package init(_ head: [String]) {
        rightAligned = Set(head.indices.filter { head[$0].hasPrefix("-") })
        self.head = head.map { $0.hasPrefix("-") ? String($0.dropFirst()) : $0 }
        widths = self.head.map(\.count)
    }

    /// One cell a column. Characters that a terminal might act upon are replaced.
    package mutating func add(_ row: [String]) {
        let row = row.map(TextTable.harmless)
        for (column, cell) in row.enumerated() where column < widths.count {
            widths[column] = max(widths[column], cell.count)
        }
        rows.append(row)
    }

    package var count: Int { rows.count }

    package static func harmless(_ cell: String) -> String {
        // As JSONLine has them: controls, line separators and direction overrides.
        let isFit = { (scalar: Unicode.Scalar) in
            switch scalar.value {
            case 0..<0x20, 0x7F..<0xA0, 0x200E...0x200F, 0x2028...0x202E, 0x2066...0x2069: false
            default: true
            }
        }
        guard !cell.unicodeScalars.allSatisfy(isFit) else { return cell }
        return String(String.UnicodeScalarView(cell.unicodeScalars.map { isFit($0) ? $0 : "\u{FFFD}" }))
    }

    package var text: String { headLine + lines(rows.indices) }

    package var headLine: String { line(head) }
    package func lines(_ range: Range<Int>) -> String { rows[range].map(line).joined() }

    private func line(_ row: [String]) -> String {
        var line = ""
        for (column, cell) in row.enumerated() {
            let padding = String(repeating: " ", count: max(0, widths[column] - cell.count))
            line += rightAligned.contains(column) ? padding + cell : cell + padding
            line += "  "
        }
        while line.last == " " { line.removeLast() }
        return line + "\n"
    }
}
