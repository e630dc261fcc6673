import FilterCatalog
import Pipeline
import PipelineLanguage

/// What must hold of the compiler and the formatter for any bytes whatever, with the filters that ship. For the tests
/// beside it and for Fuzz/run.
///
/// An input is a config, and behind a line `%%` what every file holds that the config names or includes. The reader of
/// files is passed in: nothing of the disk is read.
enum LanguageProperties {
    private static let separator = Array("\n%%\n".utf8)

    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        let all = Array(bytes)
        let place = all.indices.first { all[$0...].starts(with: separator) }
        let text = Array(all[..<(place ?? all.count)])
        let files = place.map { Array(all[($0 + separator.count)...]) }
        let compilation = compiled(text, files)
        return consistent(compilation) ?? formatted(text, files, compilation)
    }

    private static func compiled(_ text: [UInt8], _ files: [UInt8]?) -> Compilation {
        let read = { (path: String) throws(UnreadableFile) -> [UInt8] in
            guard let files else { return try noFiles(path) }
            return files
        }
        // A pattern matches three files of one text, which may include more.
        let includes = ConfigFiles(
            match: { pattern, directory in files == nil ? [] : ["c", "a", "b"].map { directory + $0 } },
            identity: { $0 }, read: read)
        return compile(text, file: "x", catalog: catalog, includes: includes, readFile: read)
    }

    private static func consistent(_ compilation: Compilation) -> String? {
        let diagnostics = compilation.diagnostics
        guard (compilation.program == nil) == compilation.hasErrors else { return "a program and errors, or neither" }
        guard diagnostics.count <= 202 else { return "\(diagnostics.count) diagnostics" }
        let length = compilation.source.bytes.count
        for diagnostic in diagnostics {
            for span in [diagnostic.span] + diagnostic.related.map(\.span)
            where span.start < 0 || span.start > span.end || span.end > length {
                return "the span \(span) of \(length) bytes: \(diagnostic.message)"
            }
            guard !diagnostic.message.isEmpty else { return "no message at \(diagnostic.span)" }
        }
        guard render(diagnostics, source: compilation.source).isEmpty == diagnostics.isEmpty else {
            return "\(diagnostics.count) diagnostics, and what is shown of them"
        }
        let json = renderJSON(diagnostics, source: compilation.source)
        return json.utf8.allSatisfy { $0 >= 0x20 || $0 == 0x0A } ? nil : "control bytes in JSON: \(json)"
    }

    /// Formatting changes how a text looks and nothing else, and twice is once.
    private static func formatted(_ text: [UInt8], _ files: [UInt8]?, _ compilation: Compilation) -> String? {
        guard let once = format(text, file: "x", catalog: catalog).formatted else {
            return compilation.hasErrors ? nil : "compiles, but can't be formatted"
        }
        // A text at the limit of size may grow beyond it.
        guard once.utf8.count <= SourceText.limit else { return nil }
        let again = format(Array(once.utf8), file: "x", catalog: catalog)
        guard again.formatted == once else {
            return "formatted \(quote(once)), again \(again.formatted.map(quote) ?? again.diagnostics[0].message)"
        }
        // Independent of what the program shows, and of the lexer.
        let (before, left) = (words(text), words(Array(once.utf8)))
        guard before == left else {
            let place =
                zip(before, left).enumerated().first { $0.element.0 != $0.element.1 }?.offset
                ?? min(before.count, left.count)
            return "word \(place) of \(quote(once)) is not what it was"
        }
        let after = compiled(Array(once.utf8), files)
        guard meaning(compilation) == meaning(after) else {
            return "means \(meaning(compilation)), formatted \(quote(once)): \(meaning(after))"
        }
        let (old, new) = (compilation.diagnostics.map(\.message).sorted(), after.diagnostics.map(\.message).sorted())
        return old.count == new.count ? nil : "\(quote(once)) is told \(new), not \(old)"
    }

    /// What a text says, without how it looks: its words, unquoted, and its braces and commas; line breaks and comments are none.
    /// For texts that can be formatted.
    private static func words(_ text: [UInt8]) -> [[UInt8]] {
        var words: [[UInt8]] = []
        var word: [UInt8]?
        var rest = text.starts(with: [0xEF, 0xBB, 0xBF]) ? text[3...] : text[...]
        let end = {
            if let last = word { words.append(last) }
            word = nil
        }
        while let byte = rest.popFirst() {
            switch byte {
            case UInt8(ascii: "#"):
                end()
                rest = rest.drop { $0 != 0x0A }
            case UInt8(ascii: "\""):
                end()
                var quoted: [UInt8] = []
                while let inner = rest.popFirst(), inner != UInt8(ascii: "\"") {
                    quoted.append(inner == UInt8(ascii: "\\") ? rest.popFirst() ?? inner : inner)
                }
                // A word that must be quoted is no punctuation.
                words.append([0x22] + quoted)
            case UInt8(ascii: "{"), UInt8(ascii: "}"), UInt8(ascii: ","):
                end()
                words.append([0x2C, byte])
            case 0x20, 0x09, 0x0A, 0x0D: end()
            default: word = (word ?? [0x22]) + [byte]
            }
        }
        end()
        return words
    }

    private static func meaning(_ compilation: Compilation) -> String {
        (compilation.program.map { describe($0) } ?? "no program\n") + describe(compilation)
            + (compilation.routesFile.map { "routes file \($0.value)" } ?? "")
            + (compilation.watchesRoutes ? " watch" : "")
    }

    private static func quote(_ text: String) -> String { "\"\(text)\"" }
}
