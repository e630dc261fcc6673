/// Reading ahead of judging: objects as the text that they are, and one field found before the others are read.
///
/// What is no JSON is refused exactly where ``object(_:_:)`` and ``skip()`` refuse it. Names that are twice, too many
/// names and long ones are left to whoever reads the text.
extension JSONReader {
    /// Skips one value that is judged later.
    mutating func skim() throws(JSONError) {
        switch try kind() {
        case .object: try members { reader, _, _ throws(JSONError) in try reader.skim() }
        case .array: try array { reader throws(JSONError) in try reader.skim() }
        case .string: _ = try scanString()
        case .number: _ = try number()
        case .bool: _ = try bool()
        case .null: try null()
        }
    }

    /// The object that comes next, as text. `body` must consume the value of each field `key`.
    @inline(__always) mutating func rawObject(
        _ key: StaticString, _ body: (inout JSONReader) throws(JSONError) -> Void
    ) throws(JSONError) -> Range<Int> {
        skipSpace()
        let start = position
        try members { reader, name, isEscaped throws(JSONError) in
            if reader.isName(name, isEscaped, key) { try body(&reader) } else { try reader.skim() }
        }
        return start..<position
    }

    /// The first string under `key` in the object that comes next; nil if there is none before the JSON breaks.
    mutating func find(_ key: StaticString) -> String? {
        var found: String?
        toleratesFlaws = true
        do throws(JSONError) {
            guard try kind() == .object else { return nil }
            try members { reader, name, isEscaped throws(JSONError) in
                if reader.isName(name, isEscaped, key), try reader.kind() == .string {
                    found = String(decoding: try reader.string(), as: UTF8.self)
                    throw reader.failure("found")
                }
                try reader.skim()
            }
        } catch {}
        return found
    }

    /// Where the values stand that the object which comes next has under `key`, and where its first member begins.
    mutating func values(
        _ key: StaticString
    ) throws(JSONError) -> (first: Int, isEmpty: Bool, values: [Range<Int>]) {
        skipSpace()
        let first = position + 1
        var values: [Range<Int>] = []
        var isEmpty = true
        toleratesFlaws = true
        try members { reader, name, isEscaped throws(JSONError) in
            isEmpty = false
            reader.skipSpace()
            let start = reader.position
            try reader.skim()
            if reader.isName(name, isEscaped, key) { values.append(start..<reader.position) }
        }
        return (first, isEmpty, values)
    }

    @inline(__always) private mutating func members(
        _ body: (inout JSONReader, _ name: Range<Int>, _ isEscaped: Bool) throws(JSONError) -> Void
    ) throws(JSONError) {
        try open(0x7B, "an object")
        defer { depth &-= 1 }
        skipSpace()
        if take(0x7D) { return }
        while true {
            skipSpace()
            guard position < bytes.count, bytes[position] == 0x22 else { throw expected("a name in quotes") }
            let name = try scanString()
            skipSpace()
            guard take(0x3A) else { throw expected("\":\" after a name") }
            try body(&self, name.range, name.isEscaped)
            skipSpace()
            if take(0x2C) { continue }
            guard take(0x7D) else { throw expected("\",\" or \"}\" after a value") }
            return
        }
    }

    /// As ``JSONKeys`` compares: a longer name than ``stringLimit`` is nobody's.
    @inline(__always) private func isName(_ name: Range<Int>, _ isEscaped: Bool, _ key: StaticString) -> Bool {
        let wanted = Bytes(start: key.utf8Start, count: key.utf8CodeUnitCount)
        let raw = Bytes(rebasing: bytes[name])
        guard isEscaped else { return sameBytes(raw, wanted) }
        return raw.count <= JSONReader.stringLimit && sameBytes(scratch.unescape(raw), wanted)
    }
}
