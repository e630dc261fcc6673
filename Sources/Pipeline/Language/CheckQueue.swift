import Pipeline

/// `queue N for T` and `idle_timeout T` of `route` and `backends` blocks.
extension Checker {
    static let queueLimit: ClosedRange<UInt64> = 1...1_000_000
    static let queuePatience = TimeSpan.milliseconds(10)...(.seconds(3600))
    static let idleTimes = TimeSpan.seconds(1)...(.seconds(2_592_000))

    /// `100 for 5s`; located at the line's first word behind the keyword.
    func queue(_ words: [WordSyntax], _ keyword: WordSyntax) -> Located<QueueSpec>? {
        let forms = ["how many connections may wait, like `100`", "`for`", "how long, like `5s`"]
        guard words.count >= 3 else {
            if words.count == 2, words[1].text != "for" { return noFor(words[1]) }
            reporter.error(
                (words.last ?? keyword).span.behind, "`queue` is not complete", expected: forms[words.count],
                help: "write `queue 100 for 5s`: how many connections may wait, and for how long at most")
            return nil
        }
        guard words[1].text == "for" else { return noFor(words[1]) }
        guard words.count == 3 else {
            reporter.error(words[3].span, "unexpected \(quoted(words[3].text))", expected: "the end of the line")
            return nil
        }
        let limit = parsed(words[0]) { text throws(ValueProblem) in
            UInt32(clamping: try ConfigValue.count(text, Checker.queueLimit))
        }
        let patience = parsed(words[2]) { text throws(ValueProblem) in
            try ConfigValue.duration(text, Checker.queuePatience)
        }
        guard let limit, let patience else { return nil }
        return Located(QueueSpec(limit: limit.value, patience: patience.value), limit.span)
    }

    private func noFor(_ word: WordSyntax) -> Located<QueueSpec>? {
        reporter.error(
            word.span, "unexpected \(quoted(word.text))", expected: "`for`",
            help: "write `queue 100 for 5s`: how many connections may wait, and for how long at most")
        return nil
    }

    /// A time, or `off`: zero.
    func idleTimeout(_ word: WordSyntax) -> Located<TimeSpan>? {
        if word.text == "off" { return Located(.zero, word.span) }
        return parsed(word) { text throws(ValueProblem) in
            do throws(ValueProblem) {
                return try ConfigValue.duration(text, Checker.idleTimes)
            } catch {
                throw ValueProblem(
                    message: error.message, expected: error.expected.map { "\($0), or `off`" }, help: error.help)
            }
        }
    }

    /// A queue for limits that can't be reached is a line that does nothing.
    /// - Parameters:
    ///   - what: `the route` or `the block`.
    ///   - backends: those whose limits it waits for.
    func refuseIdleQueue(_ fields: BackendFields, _ backends: [Located<BackendSpec>], of what: String) {
        guard let queue = fields.queue, fields.maxConnections == nil, !Checker.canAllBeFull(backends) else { return }
        reporter.error(
            queue.span, "\(what) has no limit that its connections could wait for",
            help: backends.isEmpty
                ? "add `max_connections N`; for the limits of a `backends` block write `queue` there"
                : "add `max_connections N`, or `max N` behind every backend")
    }

    /// New connections go to the first priority that is up: in one of them each has a limit.
    private static func canAllBeFull(_ backends: [Located<BackendSpec>]) -> Bool {
        let used = backends.map(\.value).filter { $0.weight > 0 }
        return Dictionary(grouping: used, by: \.priority).values.contains { tier in
            tier.allSatisfy { $0.maxConnections > 0 }
        }
    }
}
