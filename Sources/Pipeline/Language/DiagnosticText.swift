/// Diagnostics as terminal text:
///
///     edge.pipeline:12:5: error: `proxy_v2` needs the backend, which `backend` gives only later
///      12 |     proxy_v2
///         |     ^~~~~~~~
///         = help: move `proxy_v2` (line 12) below `backend` (line 14)
///
/// Control characters of the source never reach the terminal.
package func render(_ diagnostics: [Diagnostic], source: SourceText) -> String {
    var renderer = DiagnosticRenderer(source: source)
    for diagnostic in diagnostics { renderer.add(diagnostic) }
    return renderer.output
}

private struct DiagnosticRenderer {
    /// How much of a line is shown around the underlined part.
    static let excerptWidth = 120

    let source: SourceText
    var output = ""

    mutating func add(_ diagnostic: Diagnostic) {
        addHead(diagnostic.span, diagnostic.severity.rawValue, diagnostic.message)
        let gutter = addExcerpt(diagnostic.span, label: diagnostic.expected.map { "expected \($0)" })
        for help in diagnostic.help { output += "\(gutter) = help: \(printable(help))\n" }
        for related in diagnostic.related {
            addHead(related.span, "note", related.message)
            _ = addExcerpt(related.span, label: nil)
        }
    }

    private mutating func addHead(_ span: SourceSpan, _ kind: String, _ message: String) {
        let place = source.position(of: span.start)
        let file = printable(source.file(of: span.start))
        output += "\(file):\(place.line):\(place.column): \(kind): \(printable(message))\n"
    }

    /// Shows the span's first line with the underlined part. Returns the margin for lines below it.
    private mutating func addExcerpt(_ span: SourceSpan, label: String?) -> String {
        let number = source.lineNumber(of: span.start)
        let digits = String(number)
        let margin = " " + String(repeating: " ", count: max(digits.count, 3))
        let line = source.lineRange(at: span.start)
        guard !line.isEmpty else {
            if let label { output += "\(margin) = \(printable(label))\n" }
            return margin
        }
        let scalars = Array(printable(source.text(line)).unicodeScalars)
        let start = SourceText.scalarCount(source.bytes[line.lowerBound..<clamp(span.start, line)])
        let end = SourceText.scalarCount(source.bytes[line.lowerBound..<clamp(span.end, line)])
        let window = DiagnosticRenderer.window(around: start, of: scalars.count)
        let excerpt = String(String.UnicodeScalarView(scalars[window]))
        output += "\(String(margin.dropLast(digits.count)))\(digits) | \(excerpt)\n"
        let lead = scalars[window.lowerBound..<max(window.lowerBound, min(start, window.upperBound))]
        let pad = String(String.UnicodeScalarView(lead.map { $0 == "\t" ? "\t" : " " }))
        let length = max(1, min(end, window.upperBound) - start)
        let mark = "^" + String(repeating: "~", count: length - 1)
        output += "\(margin) | \(pad)\(mark)\(label.map { " " + printable($0) } ?? "")\n"
        return margin
    }

    private func clamp(_ offset: Int, _ line: Range<Int>) -> Int { min(max(offset, line.lowerBound), line.upperBound) }

    private static func window(around start: Int, of count: Int) -> Range<Int> {
        guard count > excerptWidth else { return 0..<count }
        let first = max(0, min(start - excerptWidth / 3, count - excerptWidth))
        return first..<first + excerptWidth
    }
}

/// The text with control characters and direction overrides replaced, which a terminal might act upon.
func printable(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: isUnprintable) else { return text }
    var result = String.UnicodeScalarView()
    for scalar in text.unicodeScalars { result.append(isUnprintable(scalar) ? "\u{FFFD}" : scalar) }
    return String(result)
}

private func isUnprintable(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x09: false
    case 0...0x1F, 0x7F...0x9F, 0x200E...0x200F, 0x2028...0x202E, 0x2066...0x2069: true
    default: false
    }
}
