/// Diagnostics as one JSON object for programs. `end_column` is the first column that is not underlined.
///
///     {"file":"…","errors":1,"warnings":0,"diagnostics":[{"severity":"error","line":3,"column":5,"end_line":3,
///      "end_column":9,"message":"…","expected":"…"|null,"help":["…"],"related":[{"line":…,"message":"…"}]}]}
package func renderJSON(_ diagnostics: [Diagnostic], source: SourceText) -> String {
    let count = { (severity: Diagnostic.Severity) in diagnostics.count { $0.severity == severity } }
    let items = diagnostics.map { diagnostic in
        let related = diagnostic.related.map {
            "{\(place($0.span, source)),\"message\":\(jsonString($0.message))}"
        }
        return "{\"severity\":\(jsonString(diagnostic.severity.rawValue)),\(place(diagnostic.span, source)),"
            + "\"message\":\(jsonString(diagnostic.message)),"
            + "\"expected\":\(diagnostic.expected.map(jsonString) ?? "null"),"
            + "\"help\":[\(diagnostic.help.map(jsonString).joined(separator: ","))],"
            + "\"related\":[\(related.joined(separator: ","))]}"
    }
    return "{\"file\":\(jsonString(source.file)),\"errors\":\(count(.error)),\"warnings\":\(count(.warning)),"
        + "\"diagnostics\":[\(items.joined(separator: ","))]}"
}

private func place(_ span: SourceSpan, _ source: SourceText) -> String {
    let start = source.position(of: span.start)
    let end = source.position(of: span.end)
    return "\"line\":\(start.line),\"column\":\(start.column),"
        + "\"end_line\":\(end.line),\"end_column\":\(end.column)"
}

/// A JSON string literal, RFC 8259 §7.
func jsonString(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": result += "\\\""
        case "\\": result += "\\\\"
        case "\n": result += "\\n"
        case "\r": result += "\\r"
        case "\t": result += "\\t"
        case _ where scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value):
            let hex = String(scalar.value, radix: 16)
            result += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result + "\""
}
