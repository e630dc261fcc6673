import Pipeline

/// How the `include` lines of a config reach files. The language itself does no input or output.
package struct ConfigFiles {
    /// The paths that a pattern with `*`, `?` or `[` matches, in any order.
    /// - Parameter directory: where a relative one begins: empty, or with a `/` at its end; no part of the pattern.
    package let match: (_ pattern: String, _ directory: String) throws(UnreadableFile) -> [String]
    /// What a file is, whichever path names it; nil: there is none.
    package let identity: (_ path: String) -> String?
    package let read: FileReader

    package init(
        match: @escaping (_ pattern: String, _ directory: String) throws(UnreadableFile) -> [String],
        identity: @escaping (_ path: String) -> String?, read: @escaping FileReader
    ) {
        self.match = match
        self.identity = identity
        self.read = read
    }

    /// For compiling text without files.
    package static var none: ConfigFiles {
        ConfigFiles(
            match: { pattern, _ throws(UnreadableFile) in
                throw UnreadableFile(
                    path: pattern, problem: "files can't be read here", remedy: "write the text of the file")
            }, identity: { _ in nil }, read: noFiles)
    }
}

/// `path` as seen from the directory of `file`; an absolute one as it is.
package func configPath(_ path: String, from file: String) -> String { directory(for: path, from: file) + path }

/// Where a relative `path` in `file` begins: empty, or with a `/` at its end.
private func directory(for path: String, from file: String) -> String {
    guard !path.hasPrefix("/"), let slash = file.lastIndex(of: "/") else { return "" }
    return String(file[...slash])
}

/// What an `include` line with a pattern has found.
package struct IncludedPattern: Sendable {
    package let pattern: String
    package let files: Int
    init(_ pattern: String, files: Int) {
        self.pattern = pattern
        self.files = files
    }
}

/// `include GLOB`: puts the entries of other files in the place of the line. All files are one program; each place
/// keeps its file (``SourceText``).
struct IncludeRun {
    static let keyword = "include"
    /// How deep files may include files, and how many there may be (R27).
    static let depthLimit = 8
    static let fileLimit = 1024

    private(set) var source: SourceText
    private let reporter: Reporter
    private let grammar: Grammar
    private let files: ConfigFiles
    /// From the config file to the one that is being read: identities and paths.
    private var chain: [(identity: String, path: String)] = []
    /// Where each file was included.
    private var places: [String: SourceSpan] = [:]
    /// The `include` lines so far: each may search folders.
    private var lineCount = 0
    private var isOver = false
    /// The lines with a pattern, as seen from the config file, and how many files each has found.
    private(set) var patterns: [IncludedPattern] = []

    init(_ source: SourceText, _ reporter: Reporter, _ grammar: Grammar, _ files: ConfigFiles) {
        self.source = source
        self.reporter = reporter
        self.grammar = grammar
        self.files = files
    }

    mutating func tree() -> FileSyntax { FileSyntax(body: read(0..<source.bytes.count, source.file)) }

    private mutating func read(_ range: Range<Int>, _ path: String) -> BodySyntax {
        var body = Parser.parse(source, range, reporter, grammar).body
        for index in body.entries.indices { refuseInside(&body.entries[index]) }
        guard body.entries.contains(where: { $0.keyword.text == IncludeRun.keyword }) else { return body }
        chain.append((identity(of: path), path))
        defer { chain.removeLast() }
        var entries: [EntrySyntax] = []
        for entry in body.entries {
            if entry.keyword.text == IncludeRun.keyword {
                entries += included(by: entry)
            } else {
                entries.append(entry)
            }
        }
        body.entries = entries
        return body
    }

    private func identity(of path: String) -> String { files.identity(path) ?? path }

    /// A block is whole in its file: the formatter and a reader see where it ends.
    private func refuseInside(_ entry: inout EntrySyntax) {
        guard grammar.lists[entry.keyword.text] == nil, let body = entry.body else { return }
        let inner = body.entries.filter { $0.keyword.text == IncludeRun.keyword }
        guard !inner.isEmpty else { return }
        for line in inner {
            reporter.error(
                line.keyword.span, "`include` has no place in a block",
                help: "move it out of `\(entry.keyword.text)`: an included file has whole blocks")
        }
        entry.body?.entries.removeAll { $0.keyword.text == IncludeRun.keyword }
    }

    // MARK: One line

    private mutating func included(by entry: EntrySyntax) -> [EntrySyntax] {
        guard !reporter.isFull, !isOver, let pattern = pattern(of: entry) else { return [] }
        lineCount += 1
        guard lineCount <= IncludeRun.fileLimit else {
            isOver = true
            reporter.error(
                entry.keyword.span, "more than \(IncludeRun.fileLimit) `include` lines",
                help: "name several files by a pattern")
            return []
        }
        var entries: [EntrySyntax] = []
        for path in paths(pattern) where !reporter.isFull && !isOver { entries += include(path, pattern.span) }
        return entries
    }

    private func pattern(of entry: EntrySyntax) -> Located<String>? {
        let form = "write `include PATH`, or a pattern like `include conf.d/*.pipeline`"
        if let body = entry.body {
            reporter.error(body.opening, "`include` takes no block", help: form)
            return nil
        }
        guard entry.clauses.count == 1 else {
            reporter.error(entry.clauses[1].span, "`include` takes no `,`", help: "write a line for each")
            return nil
        }
        let words = entry.clauses[0].words
        guard let word = words.first else {
            reporter.error(
                entry.keyword.span.behind, "`include` is not complete", expected: "a path or a pattern", help: form)
            return nil
        }
        guard words.count == 1 else {
            reporter.error(
                words[1].span, "unexpected \(quoted(words[1].text))", expected: "the end of the line",
                help: "write a line for each")
            return nil
        }
        guard (1...4096).contains(word.text.utf8.count) else {
            reporter.error(word.span, "the path is empty or too long", expected: "1 to 4096 bytes")
            return nil
        }
        return Located(word.text, word.span)
    }

    /// In the order of their names, byte by byte, as systemd reads drop-ins.
    private mutating func paths(_ pattern: Located<String>) -> [String] {
        let file = source.file(of: pattern.span.start)
        guard pattern.value.contains(where: { "*?[".contains($0) }) else {
            return [configPath(pattern.value, from: file)]
        }
        do throws(UnreadableFile) {
            let found = try files.match(pattern.value, directory(for: pattern.value, from: file))
            patterns.append(IncludedPattern(configPath(pattern.value, from: file), files: found.count))
            if found.isEmpty { reporter.note(pattern.span, "no file matches \(quoted(pattern.value))") }
            return found.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        } catch {
            report(error, pattern.span)
            return []
        }
    }

    private func report(_ error: UnreadableFile, _ span: SourceSpan) {
        reporter.error(span, "can't include \(error.path): \(error.problem)", help: error.remedy)
    }

    // MARK: One file

    private mutating func include(_ path: String, _ span: SourceSpan) -> [EntrySyntax] {
        let identity = identity(of: path)
        guard isNew(identity, path, span) else { return [] }
        let bytes: [UInt8]
        do throws(UnreadableFile) {
            bytes = try files.read(path)
        } catch {
            report(error, span)
            return []
        }
        guard hasRoom(for: bytes, span) else { return [] }
        places[identity] = span
        // Too long for a diagnostic in it: said at the line.
        guard bytes.count <= SourceText.limit else {
            reporter.error(
                span, "\(path) has \(bytes.count) bytes; the limit is \(sizeText(UInt64(SourceText.limit)))",
                help: "divide it")
            return []
        }
        let range = source.append(path, bytes)
        guard isReadable(bytes, at: range.lowerBound, reporter) else { return [] }
        return read(range, path).entries
    }

    /// False, reported, for a file that is in the chain or was included before.
    private func isNew(_ identity: String, _ path: String, _ span: SourceSpan) -> Bool {
        if let first = chain.firstIndex(where: { $0.identity == identity }) {
            let circle = chain[first...].map { quoted($0.path) } + [quoted(path)]
            reporter.error(
                span, "an include cycle: \(circle.joined(separator: " includes "))",
                help: chain.count - first == 1
                    ? "narrow the pattern, or put the files into a directory of their own" : "remove one of these lines"
            )
            return false
        }
        if let first = places[identity] {
            reporter.error(
                span, "\(path) is included twice", help: "remove one of them",
                related: [.init(first, "the first is here")])
            return false
        }
        return true
    }

    /// False, reported, beyond the bounds.
    private mutating func hasRoom(for bytes: [UInt8], _ span: SourceSpan) -> Bool {
        guard chain.count <= IncludeRun.depthLimit else {
            reporter.error(
                span, "files include files more than \(IncludeRun.depthLimit) deep",
                help: "include them from fewer files: now \(chain.map(\.path).joined(separator: " includes "))")
            return false
        }
        guard places.count < IncludeRun.fileLimit else {
            isOver = true
            reporter.error(
                span, "more than \(IncludeRun.fileLimit) files are included", help: "put several into one file")
            return false
        }
        guard source.bytes.count + bytes.count < SourceText.totalLimit else {
            isOver = true
            reporter.error(
                span,
                "the config and what it includes have more than \(sizeText(UInt64(SourceText.totalLimit))) together",
                help: "move routes to a state file: `routes file PATH`")
            return false
        }
        return true
    }
}
