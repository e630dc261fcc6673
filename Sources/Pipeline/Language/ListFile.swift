import Pipeline

/// Why a file that a config names can't be read.
package struct UnreadableFile: Error, Sendable {
    /// Where it was looked for.
    package let path: String
    package let problem: String
    package let remedy: String
    package init(path: String, problem: String, remedy: String) {
        self.path = path
        self.problem = problem
        self.remedy = remedy
    }
}

/// Reads the file of a path, as seen from where the config's own path is. The language itself does no input or output.
package typealias FileReader = (String) throws(UnreadableFile) -> [UInt8]

/// For compiling text without files.
package func noFiles(_ path: String) throws(UnreadableFile) -> [UInt8] {
    throw UnreadableFile(path: path, problem: "files can't be read here", remedy: "write a block")
}

/// `set NAME file PATH`, `names NAME file PATH`: lists of one entry a line.
extension Checker {
    /// How many lines of a file are reported individually; others are counted.
    static let shownLines = 20

    /// True for a line of the form `KEYWORD NAME file ...`, for keywords that have one.
    func namesFile(_ entry: EntrySyntax) -> Bool {
        let words = entry.clauses.first?.words ?? []
        return grammar.lists[entry.keyword.text] != nil && entry.body == nil && words.count >= 2
            && words[1].text == "file"
    }

    /// The path; nil, reported, if there is not exactly one.
    func filePath(of entry: EntrySyntax) -> Located<String>? {
        let words = entry.clauses.first?.words ?? []
        let form = "write `\(entry.keyword.text) NAME file PATH`"
        guard words.count >= 3, !words[2].text.isEmpty else {
            reporter.error(
                (words.last ?? entry.keyword).span.behind, "the file has no path", expected: "a path", help: form)
            return nil
        }
        guard words.count == 3 else {
            reporter.error(
                words[3].span, "unexpected \(quoted(words[3].text))", expected: "the end of the line", help: form)
            return nil
        }
        return Located(words[2].text, words[2].span)
    }

    /// Reads the file and calls `body` for each non-empty line, without comment, surrounding spaces and line break, with
    /// its number.
    /// Problems are reported at the path, with the file's line numbers.
    /// - Returns: false if the file can't be read or a line is wrong.
    func forEachLine(
        of path: Located<String>, _ body: (UnsafeBufferPointer<UInt8>, Int) throws(ValueProblem) -> Void
    ) -> Bool {
        let bytes: [UInt8]
        do throws(UnreadableFile) {
            bytes = try readFile(configPath(path.value, from: source.file(of: path.span.start)))
        } catch {
            reporter.error(path.span, "can't read \(error.path): \(error.problem)", help: error.remedy)
            return false
        }
        var wrong = 0
        bytes.withUnsafeBufferPointer { bytes in
            var number = 0
            var start = bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? 3 : 0
            while start < bytes.count {
                var end = start
                while end < bytes.count, bytes[end] != UInt8(ascii: "\n") { end += 1 }
                number += 1
                let line = Checker.content(of: bytes[start..<end])
                start = end + 1
                guard !line.isEmpty else { continue }
                do throws(ValueProblem) {
                    try body(line, number)
                } catch {
                    wrong += 1
                    guard wrong <= Checker.shownLines else { continue }
                    reporter.error(
                        path.span, "\(path.value):\(number): \(error.message)", expected: error.expected,
                        help: error.help)
                }
            }
        }
        if wrong > Checker.shownLines {
            reporter.error(
                path.span, "\(path.value): \(wrong - Checker.shownLines) more lines are wrong",
                help: "fix those above and check again")
        }
        return wrong == 0
    }

    private static func content(of line: Slice<UnsafeBufferPointer<UInt8>>) -> UnsafeBufferPointer<UInt8> {
        let isBlank = { (byte: UInt8) in
            byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") || byte == UInt8(ascii: "\r")
        }
        var (start, end) = (line.startIndex, line.startIndex)
        while end < line.endIndex, line[end] != UInt8(ascii: "#") { end += 1 }
        while start < end, isBlank(line[start]) { start += 1 }
        while end > start, isBlank(line[end - 1]) { end -= 1 }
        return UnsafeBufferPointer(rebasing: line.base[start..<end])
    }
}
