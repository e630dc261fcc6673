import Pipeline

/// A stretch of source text in byte offsets: `start` is in it, `end` is not. Empty: a place between two bytes.
package struct SourceSpan: Hashable, Sendable {
    package let start: Int
    package let end: Int

    package init(_ start: Int, _ end: Int) {
        self.start = start
        self.end = end
    }

    /// From the start of this span to the end of `other`.
    func through(_ other: SourceSpan) -> SourceSpan { SourceSpan(start, max(end, other.end)) }
    /// The place right behind this span.
    var behind: SourceSpan { SourceSpan(end, end) }
}

/// A place for people: both numbers start at 1, the column counts Unicode scalars.
package struct SourcePosition: Equatable, Sendable {
    package let line: Int
    package let column: Int
}

/// A value and where it was written.
package struct Located<Value: Sendable>: Sendable {
    package let value: Value
    package let span: SourceSpan
    package init(_ value: Value, _ span: SourceSpan) {
        self.value = value
        self.span = span
    }
}

/// A config's bytes and where its lines begin: the file itself, and behind it each file that it includes, so that a span
/// names a place in any of them. The bytes need not be valid UTF-8.
package struct SourceText: Sendable {
    /// The longest file that is compiled or formatted, in bytes (R27).
    package static let limit = 4 << 20
    /// All files of a config together.
    static let totalLimit = 32 << 20

    private struct Part {
        let file: String
        /// The first byte, and the place behind the last.
        let start: Int
        let end: Int
        /// How many lines come before it.
        let linesBefore: Int
    }

    package private(set) var bytes: [UInt8] = []
    /// In the order of their bytes; never empty.
    private var parts: [Part] = []
    private var lineStarts: [Int] = []

    package init(file: String, bytes: [UInt8]) { _ = append(file, bytes) }

    /// The config file itself.
    package var file: String { parts[0].file }
    /// The config file, and what it includes, in the order in which they were read.
    package var files: [String] { parts.map(\.file) }

    /// Adds a file, with a byte of its own before it, so that no place belongs to two files.
    /// - Returns: its bytes.
    mutating func append(_ file: String, _ more: [UInt8]) -> Range<Int> {
        if !parts.isEmpty { bytes.append(UInt8(ascii: "\n")) }
        let start = bytes.count
        bytes += more
        parts.append(Part(file: file, start: start, end: bytes.count, linesBefore: lineStarts.count))
        lineStarts.append(start)
        for (offset, byte) in more.enumerated() where byte == UInt8(ascii: "\n") {
            lineStarts.append(start + offset + 1)
        }
        return start..<bytes.count
    }

    private func part(at offset: Int) -> Part {
        var (low, high) = (0, parts.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if parts[middle].start <= offset { low = middle } else { high = middle }
        }
        return parts[low]
    }

    /// The file that has this place.
    package func file(of offset: Int) -> String { part(at: offset).file }
    func isIncluded(_ offset: Int) -> Bool { part(at: offset).start > 0 }

    package func position(of offset: Int) -> SourcePosition {
        let part = part(at: offset)
        let line = line(at: offset)
        let start = lineStarts[line]
        let end = min(max(offset, start), part.end)
        return SourcePosition(
            line: line - part.linesBefore + 1, column: SourceText.scalarCount(bytes[start..<end]) + 1)
    }

    /// 1 for the first line of its file.
    package func lineNumber(of offset: Int) -> Int { line(at: offset) - part(at: offset).linesBefore + 1 }

    /// For the program: the line, and the file unless it is the config file itself.
    func configLine(of offset: Int) -> ConfigLine {
        ConfigLine(lineNumber(of: offset), file: isIncluded(offset) ? file(of: offset) : nil)
    }

    /// Of all lines of all files.
    private func line(at offset: Int) -> Int {
        var low = 0
        var high = lineStarts.count
        while low < high {
            let middle = (low + high) / 2
            if lineStarts[middle] <= offset { low = middle + 1 } else { high = middle }
        }
        return max(low, 1) - 1
    }

    /// The bytes of the line that has this place, without its line break.
    func lineRange(at offset: Int) -> Range<Int> {
        let part = part(at: offset)
        let line = line(at: offset)
        let start = lineStarts[line]
        let isLast = line + 1 == lineStarts.count || lineStarts[line + 1] > part.end
        var end = isLast ? part.end : lineStarts[line + 1] - 1
        if end > start, bytes[end - 1] == UInt8(ascii: "\r") { end -= 1 }
        return start..<max(start, end)
    }

    func text(_ range: Range<Int>) -> String { String(decoding: bytes[range], as: UTF8.self) }

    static func scalarCount(_ bytes: some Sequence<UInt8>) -> Int {
        bytes.reduce(0) { $0 + ($1 & 0xC0 == 0x80 ? 0 : 1) }
    }
}
