/// Skips an object that is as almost all are: plain ASCII, whole numbers, nothing nested. Anything else is left to the
/// reader, errors included.
struct JSONFlat {
    private let bytes: Bytes
    private var position: Int
    private var line: Int
    private var lineStart: Int

    init(_ reader: borrowing JSONReader) {
        bytes = reader.bytes
        (position, line, lineStart) = (reader.position, reader.line, reader.lineStart)
    }

    /// Skips the object that comes next.
    /// - Returns: the object, and the string under `key`, which it has once. Nil: nothing was read.
    @inline(__always) static func object(
        _ reader: inout JSONReader, _ key: StaticString
    ) -> (text: Range<Int>, value: Range<Int>)? {
        var flat = JSONFlat(reader)
        // One level below the list that it stands in.
        guard reader.depth < JSONReader.depthLimit, let value = flat.object(key) else { return nil }
        let start = reader.position
        flat.give(to: &reader)
        return (start..<flat.position, value)
    }

    private mutating func object(_ key: StaticString) -> Range<Int>? {
        let wanted = Bytes(start: key.utf8Start, count: key.utf8CodeUnitCount)
        var value: Range<Int>?
        guard take(0x7B) else { return nil }
        repeat {
            space()
            guard let name = string() else { return nil }
            space()
            guard take(0x3A) else { return nil }
            space()
            if sameBytes(Bytes(rebasing: bytes[name]), wanted) {
                guard value == nil, let found = string() else { return nil }
                value = found
            } else {
                guard scalar() else { return nil }
            }
            space()
        } while take(0x2C)
        return take(0x7D) ? value : nil
    }

    /// Reads the object that comes next, each of its names at most once. False: a name is unknown or stands there again, a
    /// required one is missing, or `take` would not have its value.
    /// - Parameters:
    ///   - required: a bit for each name of `keys` that must be there.
    ///   - take: reads the value of a name, by its index.
    @inline(__always) mutating func fields(
        _ keys: JSONKeys, required: UInt64, _ take: (Int, inout JSONFlat) -> Bool
    ) -> Bool {
        var (seen, guess): (UInt64, Int) = (0, 0)
        guard self.take(0x7B) else { return false }
        repeat {
            space()
            guard let name = string(), name.count < 64, let field = keys.index(of: text(name), guess: guess),
                seen & 1 &<< UInt64(field) == 0
            else { return false }
            seen |= 1 &<< UInt64(field)
            guess = field &+ 1
            space()
            guard self.take(0x3A) else { return false }
            space()
            guard take(field, &self) else { return false }
            space()
        } while self.take(0x2C)
        return self.take(0x7D) && seen & required == required
    }

    /// A string that names something: see ``ObjectDraft/isName(_:)``.
    @inline(__always) mutating func name(_ name: inout Range<Int>) -> Bool {
        guard let found = string(), ObjectDraft.isName(text(found)) else { return false }
        name = found
        return true
    }

    /// Has the reader go on where this is.
    func give(to reader: inout JSONReader) {
        (reader.position, reader.line, reader.lineStart) = (position, line, lineStart)
    }

    func text(_ range: Range<Int>) -> Bytes { Bytes(rebasing: bytes[range]) }

    /// Skips this string.
    @inline(__always) mutating func isString(_ wanted: StaticString) -> Bool {
        guard let found = string() else { return false }
        return sameBytes(text(found), Bytes(start: wanted.utf8Start, count: wanted.utf8CodeUnitCount))
    }

    /// A whole number of at most `limit`, which is less than 2^60.
    @inline(__always) mutating func whole(to limit: UInt64) -> UInt64? {
        let start = position
        var value: UInt64 = 0
        while position < bytes.count, bytes[position] &- 0x30 <= 9 {
            value = value &* 10 &+ UInt64(bytes[position] &- 0x30)
            guard value <= limit else { return nil }
            position &+= 1
        }
        guard position == start &+ 1 || position > start && bytes[start] != 0x30 else { return nil }
        return value
    }

    @inline(__always) mutating func take(_ byte: UInt8) -> Bool {
        guard position < bytes.count, bytes[position] == byte else { return false }
        position &+= 1
        return true
    }

    @inline(__always) mutating func space() {
        JSONText.skipSpace(bytes, &position, line: &line, lineStart: &lineStart)
    }

    /// What is between quotes, all of it as it stands there.
    @inline(__always) mutating func string() -> Range<Int>? {
        guard take(0x22) else { return nil }
        let start = position
        position = JSONText.endOfPlain(bytes, from: start)
        return take(0x22) ? start..<position &- 1 : nil
    }

    @inline(__always) private mutating func scalar() -> Bool {
        guard position < bytes.count else { return false }
        switch bytes[position] {
        case 0x22: return string() != nil
        case 0x30...0x39: return number()
        case 0x74: return word("true")
        case 0x66: return word("false")
        case 0x6E: return word("null")
        default: return false
        }
    }

    /// Digits alone. A point or an exponent behind them is no end of a value, by which the object is left to the reader.
    @inline(__always) private mutating func number() -> Bool {
        let start = position
        while position < bytes.count, bytes[position] &- 0x30 <= 9 { position &+= 1 }
        return position == start &+ 1 || bytes[start] != 0x30
    }

    @inline(__always) mutating func word(_ word: StaticString) -> Bool {
        let count = word.utf8CodeUnitCount
        guard bytes.count &- position >= count,
            sameBytes(Bytes(rebasing: bytes[position..<position &+ count]), Bytes(start: word.utf8Start, count: count))
        else { return false }
        position &+= count
        return true
    }
}
