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
    /// `routes file PATH`, as written: a relative path means relative to the config file.
    package let routesFile: Located<String>?
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
///   - readFile: reads a file that the text names (`set NAME file PATH`). It knows where relative paths begin.
///   - reusing: the blocks of the running program (``Program/blocks``). A `limit` with unchanged settings keeps its
///     table across the reload.
package func compile(
    _ text: [UInt8], file: String, catalog: [any Filter.Type],
    reusing: BlockTable = BlockTable(), readFile: @escaping FileReader = noFiles
) -> Compilation {
    let reporter = Reporter()
    guard let source = readable(text, file: file, reporter) else {
        return Compilation(
            program: nil, routes: [], groups: [], routesFile: nil, diagnostics: reporter.finish(),
            source: SourceText(file: file, bytes: text.count > SourceText.limit ? [] : text))
    }
    let grammar = Grammar(catalog)
    let tree = Parser.parse(source, reporter, grammar)
    let checker = Checker(
        source: source, reporter: reporter, catalog: catalog, grammar: grammar, readFile: readFile)
    checker.reusable = reusing
    checker.check(tree)
    return Compilation(
        program: checker.makeProgram(), routes: checker.routes,
        groups: checker.groupNames.compactMap { checker.groups[$0] }, routesFile: checker.routesFile,
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
    guard let source = readable(text, file: file, reporter) else { return (nil, reporter.finish()) }
    let grammar = Grammar(catalog)
    let tree = Parser.parse(source, reporter, grammar)
    guard reporter.errorCount == 0 else { return (nil, reporter.finish()) }
    return (Formatter.format(tree, grammar), reporter.finish())
}

/// Nil, with a diagnostic, for bytes that are not a config text.
private func readable(_ text: [UInt8], file: String, _ reporter: Reporter) -> SourceText? {
    guard text.count <= SourceText.limit else {
        reporter.error(
            SourceSpan(0, 0),
            "the file has \(text.count) bytes; the limit is \(sizeText(UInt64(SourceText.limit)))",
            help: "move routes to a state file: `routes file PATH`")
        return nil
    }
    if let offset = text.firstIndex(of: 0) {
        reporter.error(
            SourceSpan(offset, offset + 1), "the file contains a NUL byte: it is not a text file",
            help: "save it as UTF-8 text")
        return nil
    }
    do throws(Unicode.UTF8.ValidationError) {
        _ = try UTF8Span(validating: text.span)
    } catch {
        reporter.error(
            SourceSpan(error.byteOffsets.lowerBound, error.byteOffsets.upperBound), "these bytes are not UTF-8",
            help: "save the file as UTF-8")
        return nil
    }
    return SourceText(file: file, bytes: text)
}

/// Every keyword except stages, with this build's filters: top-level ones, settings of blocks, fields of routes,
/// options of lines. Tests compare the reference page, `check --print` and the fuzzer's dictionary with them.
package func languageKeywords(_ catalog: [any Filter.Type]) -> [String] {
    let grammar = Grammar(catalog)
    let lines = ([NodeBlock.descriptor] + grammar.blocks).flatMap(\.lines).filter(\.isDocumented)
    let options = lines.flatMap(\.forms).flatMap(\.elements).flatMap { element -> [String] in
        if case .options(let options) = element { options.map(\.name) } else { [] }
    }
    return grammar.topLevel.map(\.keyword) + lines.map(\.keyword) + options + Checker.groupFields
        + Checker.routeFields.filter { !Checker.groupFields.contains($0) }
}

/// The settings of every block and the fields of `route`, with the block's keyword.
package func languageSettings(_ catalog: [any Filter.Type]) -> [(block: String, setting: SettingLine)] {
    ([NodeBlock.descriptor] + catalog.blocks).flatMap { block in block.lines.map { (block.keyword, $0) } }
}
