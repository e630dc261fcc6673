import Pipeline

/// The result of compiling a config file: a program if there is no error, and the diagnostics.
package struct Compilation: Sendable {
    /// Nil exactly if the file has errors.
    package let program: Program?
    /// The well-formed `route` blocks. The routing side checks ownership and conflicts, and adds its findings with
    /// ``report(_:)``.
    package let routes: [RouteBlock]
    /// The well-formed `backends` blocks, in source order.
    package let groups: [BackendsBlock]
    /// `routes file PATH`, as written: a relative path means relative to the file that has the line.
    package let routesFile: Located<String>?
    /// `routes file PATH watch`: the file is read again when it changes.
    package let watchesRoutes: Bool
    /// `routes push`: routes come by `pipelined apply`.
    package let takesPushes: Bool
    /// The `include` lines with a pattern.
    package let patterns: [IncludedPattern]
    /// Where the entries of included files are, by their first words, such as `set blocked`.
    let origins: [String: ConfigLine]
    /// In source order.
    package private(set) var diagnostics: [Diagnostic]
    package let source: SourceText

    package var hasErrors: Bool { diagnostics.contains { $0.severity == .error } }

    /// Adds a later check's diagnostic at its position.
    package mutating func report(_ diagnostic: Diagnostic) {
        let place = diagnostics.firstIndex { $0.span.start > diagnostic.span.start } ?? diagnostics.endIndex
        diagnostics.insert(diagnostic, at: place)
    }
}

/// Compiles a config file: checks everything, reports all errors at once, and binds the stages.
///
/// - Parameters:
///   - text: at most ``SourceText/limit`` bytes of UTF-8; anything else is a diagnostic.
///   - file: its name in diagnostics.
///   - catalog: the filters of this build, in the order of their reason codes.
///   - includes: finds and reads what the text includes (`include GLOB`).
///   - hostGroups: the groups of users that the text may name.
///   - readFile: reads a file that the text names (`set NAME file PATH`), by its path as seen from `file`.
///   - reusing: the blocks of the running program (``Program/blocks``). A `limit` with unchanged settings keeps its
///     table across the reload.
package func compile(
    _ text: [UInt8], file: String, catalog: [any Filter.Type],
    reusing: BlockTable = BlockTable(), includes: ConfigFiles = .none, hostGroups: HostGroups = .unasked,
    readFile: @escaping FileReader = noFiles
) -> Compilation {
    let reporter = Reporter()
    guard isReadable(text, at: 0, reporter) else {
        return Compilation(
            program: nil, routes: [], groups: [], routesFile: nil, watchesRoutes: false, takesPushes: false,
            patterns: [], origins: [:], diagnostics: reporter.finish(),
            source: SourceText(file: file, bytes: text.count > SourceText.limit ? [] : text))
    }
    let grammar = Grammar(catalog)
    var including = IncludeRun(SourceText(file: file, bytes: text), reporter, grammar, includes)
    let tree = including.tree()
    let source = including.source
    let checker = Checker(
        source: source, reporter: reporter, catalog: catalog, grammar: grammar, readFile: readFile,
        hostGroups: hostGroups)
    checker.reusable = reusing
    checker.check(tree)
    return Compilation(
        program: checker.makeProgram(), routes: checker.routes,
        groups: checker.groupNames.compactMap { checker.groups[$0] }, routesFile: checker.routesFile,
        watchesRoutes: checker.watchesRoutes, takesPushes: checker.takesPushes != nil, patterns: including.patterns,
        origins: checker.origins(tree),
        diagnostics: reporter.finish(), source: source)
}

/// Formats a config file: indentation, columns, one blank line at most; comments stay. Nil, with the diagnostics, if
/// the text doesn't parse. Idempotent.
///
/// - Parameter catalog: the filters of this build, which declare the list blocks.
package func format(
    _ text: [UInt8], file: String, catalog: [any Filter.Type]
) -> (formatted: String?, diagnostics: [Diagnostic]) {
    let reporter = Reporter()
    guard isReadable(text, at: 0, reporter) else { return (nil, reporter.finish()) }
    let grammar = Grammar(catalog)
    let source = SourceText(file: file, bytes: text)
    let tree = Parser.parse(source, 0..<text.count, reporter, grammar)
    guard reporter.errorCount == 0 else { return (nil, reporter.finish()) }
    return (Formatter.format(tree, grammar), reporter.finish())
}

/// Whether these are the bytes of a config text; reported if not.
/// - Parameter start: where they are in the source.
func isReadable(_ text: [UInt8], at start: Int, _ reporter: Reporter) -> Bool {
    guard text.count <= SourceText.limit else {
        reporter.error(
            SourceSpan(start, start),
            "the file has \(text.count) bytes; the limit is \(sizeText(UInt64(SourceText.limit)))",
            help: "move routes to a state file: `routes file PATH`")
        return false
    }
    if let offset = text.firstIndex(of: 0) {
        reporter.error(
            SourceSpan(start + offset, start + offset + 1), "the file contains a NUL byte: it is not a text file",
            help: "save it as UTF-8 text")
        return false
    }
    do throws(Unicode.UTF8.ValidationError) {
        _ = try UTF8Span(validating: text.span)
    } catch {
        reporter.error(
            SourceSpan(start + error.byteOffsets.lowerBound, start + error.byteOffsets.upperBound),
            "these bytes are not UTF-8", help: "save the file as UTF-8")
        return false
    }
    return true
}

/// Every keyword except stages, with this build's filters: top-level ones, settings of blocks, fields of routes,
/// options of lines. Tests compare the reference page, `check --print` and the fuzzer's dictionary with them.
package func languageKeywords(_ catalog: [any Filter.Type]) -> [String] {
    let grammar = Grammar(catalog)
    let lines =
        ([NodeBlock.descriptor] + grammar.blocks).flatMap(\.lines).filter(\.isDocumented)
        + RouteSettings.route.lines.map(\.line)
    let options = lines.flatMap(\.forms).flatMap(\.elements).flatMap { element -> [String] in
        if case .options(let options) = element { options.map(\.name) } else { [] }
    }
    return grammar.topLevel.map(\.keyword) + lines.map(\.keyword) + options
        + ListenerWords.settings.map(\.line.keyword)
}

/// The settings of every block and of `listen` lines, with the keyword of the block or the line.
package func languageSettings(_ catalog: [any Filter.Type]) -> [(block: String, setting: SettingLine)] {
    ([NodeBlock.descriptor] + catalog.blocks).flatMap { block in block.lines.map { (block.keyword, $0) } }
        + [RouteSettings.group, RouteSettings.route].flatMap { block in block.lines.map { (block.keyword, $0.line) } }
        + ListenerWords.settings.map { ("listen", $0.line) }
}
