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

/// A config file's bytes and where its lines begin. The bytes need not be valid UTF-8.
package struct SourceText: Sendable {
    /// The longest source that is compiled or formatted, in bytes (R27).
    package static let limit = 4 << 20

    package let file: String
    package let bytes: [UInt8]
    private let lineStarts: [Int]

    package init(file: String, bytes: [UInt8]) {
        self.file = file
        self.bytes = bytes
        var starts = [0]
        for (offset, byte) in bytes.enumerated() where byte == UInt8(ascii: "\n") { starts.append(offset + 1) }
        self.lineStarts = starts
    }

    package func position(of offset: Int) -> SourcePosition {
        let line = lineNumber(of: offset)
        let start = lineStarts[line - 1]
        let end = min(max(offset, start), bytes.count)
        return SourcePosition(line: line, column: SourceText.scalarCount(bytes[start..<end]) + 1)
    }

    /// 1 for the first line.
    package func lineNumber(of offset: Int) -> Int {
        var low = 0
        var high = lineStarts.count
        while low < high {
            let middle = (low + high) / 2
            if lineStarts[middle] <= offset { low = middle + 1 } else { high = middle }
        }
        return max(low, 1)
    }

    /// The byte offsets of line `number`, without its line break; empty for a line that is not there.
    func lineRange(_ number: Int) -> Range<Int> {
        guard number >= 1, number <= lineStarts.count else { return 0..<0 }
        let start = lineStarts[number - 1]
        var end = number < lineStarts.count ? lineStarts[number] - 1 : bytes.count
        if end > start, bytes[end - 1] == UInt8(ascii: "\r") { end -= 1 }
        return start..<end
    }

    func text(_ range: Range<Int>) -> String { String(decoding: bytes[range], as: UTF8.self) }

    static func scalarCount(_ bytes: some Sequence<UInt8>) -> Int {
        bytes.reduce(0) { $0 + ($1 & 0xC0 == 0x80 ? 0 : 1) }
    }
}
