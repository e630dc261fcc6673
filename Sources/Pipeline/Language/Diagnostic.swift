/// A diagnostic for the author of a config file: what, where, what was expected, and what to do.
package struct Diagnostic: Sendable, Equatable {
    package enum Severity: String, Sendable, CaseIterable { case error, warning, note }

    /// A related position: the first of two duplicates, or the stage to move below.
    package struct Related: Sendable, Equatable {
        package let span: SourceSpan
        package let message: String
        package init(_ span: SourceSpan, _ message: String) {
            self.span = span
            self.message = message
        }
    }

    package let severity: Severity
    package let span: SourceSpan
    package let message: String
    /// Shown beside the underline.
    package let expected: String?
    /// What to write instead, one remedy an entry.
    package let help: [String]
    package let related: [Related]

    package init(
        _ severity: Severity, at span: SourceSpan, _ message: String, expected: String? = nil, help: [String] = [],
        related: [Related] = []
    ) {
        self.severity = severity
        self.span = span
        self.message = message
        self.expected = expected
        self.help = help
        self.related = related
    }
}

/// Collects the diagnostics of one file. Counts every error, keeps the first ``limit`` of them (R27).
final class Reporter {
    static let limit = 100

    private var kept: [Diagnostic] = []
    private var remarks = 0
    private(set) var errorCount = 0

    /// True when further errors would not be shown, so that checks may stop.
    var isFull: Bool { errorCount >= Reporter.limit }

    func report(_ diagnostic: Diagnostic) {
        if diagnostic.severity == .error {
            errorCount += 1
            if errorCount <= Reporter.limit { kept.append(diagnostic) }
        } else {
            remarks += 1
            if remarks <= Reporter.limit { kept.append(diagnostic) }
        }
    }

    func error(
        _ span: SourceSpan, _ message: String, expected: String? = nil, help: String?...,
        related: [Diagnostic.Related] = []
    ) {
        report(
            Diagnostic(
                .error, at: span, message, expected: expected, help: help.compactMap { $0 }, related: related))
    }

    func warning(_ span: SourceSpan, _ message: String, help: String?..., related: [Diagnostic.Related] = []) {
        report(Diagnostic(.warning, at: span, message, help: help.compactMap { $0 }, related: related))
    }

    func note(_ span: SourceSpan, _ message: String, help: String?...) {
        report(Diagnostic(.note, at: span, message, help: help.compactMap { $0 }))
    }

    /// In source order; the number of omitted ones comes last.
    func finish() -> [Diagnostic] {
        var sorted = kept.enumerated().sorted {
            ($0.element.span.start, $0.offset) < ($1.element.span.start, $1.offset)
        }.map(\.element)
        if errorCount >= Reporter.limit, let last = sorted.last {
            let message = "stopped after \(Reporter.limit) errors"
            sorted.append(Diagnostic(.note, at: last.span, message, help: ["fix these and check again"]))
        }
        return sorted
    }
}
