import Pipeline
import PipelineText

/// Diagnostics as one JSON object for programs. `end_column` is the first column that is not underlined; each place has
/// its own `file`, which may be an included one.
///
///     {"file":"…","errors":1,"warnings":0,"diagnostics":[{"severity":"error","file":"…","line":3,"column":5,
///      "end_line":3,"end_column":9,"message":"…","expected":"…"|null,"help":["…"],
///      "related":[{"file":"…","line":…,"message":"…"}]}]}
package func renderJSON(_ diagnostics: [Diagnostic], source: SourceText) -> String {
    var line = JSONLine()
    line.open()
    line.field("file", source.file)
    line.field("errors", diagnostics.count { $0.severity == .error })
    line.field("warnings", diagnostics.count { $0.severity == .warning })
    line.list("diagnostics", diagnostics) { line, diagnostic in
        line.open()
        line.field("severity", diagnostic.severity.rawValue)
        line.fields(diagnostic.span, source)
        line.field("message", diagnostic.message)
        line.field("expected", diagnostic.expected)
        line.list("help", diagnostic.help) { $0.string($1) }
        line.list("related", diagnostic.related) { line, related in
            line.open()
            line.fields(related.span, source)
            line.field("message", related.message)
            line.close()
        }
        line.close()
    }
    line.close()
    return line.string
}

extension JSONLine {
    fileprivate mutating func fields(_ span: SourceSpan, _ source: SourceText) {
        let (start, end) = (source.position(of: span.start), source.position(of: span.end))
        field("file", source.file(of: span.start))
        field("line", start.line)
        field("column", start.column)
        field("end_line", end.line)
        field("end_column", end.column)
    }
}
