import Pipeline

/// Why bytes are not accepted JSON, and where.
public struct JSONError: Error, Equatable, Sendable, CustomStringConvertible {
    /// From 1; the column counts bytes.
    public let line: Int
    public let column: Int
    /// What was expected, and what stands there.
    public let text: String
    public var description: String { "line \(line), column \(column): \(text)" }
}

/// What a value is, by its first byte.
enum JSONKind: Equatable {
    case object, array, string, number, bool, null

    var name: String {
        switch self {
        case .object: "an object"
        case .array: "an array"
        case .string: "a string"
        case .number: "a number"
        case .bool: "true or false"
        case .null: "null"
        }
    }
}

/// A flaw of one object (ambiguous or too large); the rest of the document can still be read.
struct JSONFlaw: Equatable {
    let place: Place
    let problem: String
    let remedy: String
}

/// Reads JSON (RFC 8259) value by value: no tree, no allocation for values, bounded depth. Stricter than the RFC where
/// that is ambiguous: no duplicate names in an object, no lone surrogates, no bad UTF-8, no BOM.
///
/// Errors are syntax errors, and final; flaws of one object of a list (``toleratesFlaws``) are noted instead. A value
/// of an unexpected type is not an error here: check ``kind()`` first. Ownership: the caller keeps the bytes alive; the
/// result of ``string()`` is valid until the next call.
struct JSONReader {
    /// How deep objects and arrays may nest.
    static let depthLimit = 32
    /// How many names one object may have: bounds the search for duplicates.
    static let namesLimit = 256
    /// The longest string that ``string()`` gives, in bytes.
    static let stringLimit = 65535

    private(set) var bytes: Bytes
    var position = 0
    var line = 1
    /// Where the line begins that ``position`` is in.
    var lineStart = 0
    var depth = 0
    let scratch: ScratchBytes
    private let seed: HashSeed
    /// Hashes of the unknown names of every open object, innermost last. A keyed 64-bit hash stands for its name.
    private var unknown: [UInt64] = []
    /// A name that is twice, too many names, half a surrogate pair and a string that is too long are noted, not thrown.
    var toleratesFlaws = false
    /// The first one since ``takeFlaw()``.
    private var flaw: JSONFlaw?
    /// The last ``string()`` was longer than ``stringLimit``; it came out empty. Only while flaws are tolerated.
    private(set) var isLong = false

    init(_ bytes: Bytes, seed: HashSeed) {
        self.bytes = bytes
        self.seed = seed
        scratch = ScratchBytes(capacity: JSONReader.stringLimit)
    }

    /// Goes on with other bytes, from their first.
    mutating func begin(_ bytes: Bytes) {
        self.bytes = bytes
        (position, line, lineStart, depth) = (0, 1, 0, 0)
        unknown.removeAll(keepingCapacity: true)
        (flaw, isLong) = (nil, false)
    }

    /// The column of the next byte, from 1.
    var column: Int { position - lineStart + 1 }

    // MARK: Errors

    func failure(_ text: String, at place: Int? = nil) -> JSONError {
        JSONError(line: line, column: (place ?? position) - lineStart + 1, text: text)
    }

    /// An error that says what was wanted and what stands there.
    func expected(_ what: String) -> JSONError {
        guard position < bytes.count else { return failure("expected \(what), found the end of the document") }
        let byte = bytes[position]
        let found: String
        if byte > 0x20, byte < 0x7F {
            found = "\"\(Character(UnicodeScalar(byte)))\""
        } else {
            found = "byte 0x" + String(byte, radix: 16)
        }
        return failure("expected \(what), found \(found)")
    }

    private mutating func note(_ problem: String, remedy: String, at place: Int) throws(JSONError) {
        guard toleratesFlaws else { throw failure(problem, at: place) }
        guard flaw == nil else { return }
        flaw = JSONFlaw(
            place: Place(line: line, column: place - lineStart + 1), problem: problem, remedy: remedy)
    }

    /// What was noted since the last call.
    mutating func takeFlaw() -> JSONFlaw? {
        defer { flaw = nil }
        return flaw
    }

    static let longString = "is longer than \(stringLimit) bytes"

    // MARK: Structure

    mutating func skipSpace() {
        JSONText.skipSpace(bytes, &position, line: &line, lineStart: &lineStart)
    }

    /// What comes next. Moves past white space only.
    mutating func kind() throws(JSONError) -> JSONKind {
        skipSpace()
        guard position < bytes.count else { throw expected("a value") }
        switch bytes[position] {
        case 0x7B: return .object
        case 0x5B: return .array
        case 0x22: return .string
        case 0x2D, 0x30...0x39: return .number
        case 0x74, 0x66: return .bool
        case 0x6E: return .null
        case 0xEF where position == 0: throw failure("expected a value, found a byte order mark: save without it")
        default: throw expected("a value")
        }
    }

    mutating func take(_ byte: UInt8) -> Bool {
        guard position < bytes.count, bytes[position] == byte else { return false }
        position &+= 1
        return true
    }

    /// After the last value: nothing but white space.
    mutating func end() throws(JSONError) {
        skipSpace()
        guard position == bytes.count else { throw expected("the end of the document") }
    }

    mutating func open(_ byte: UInt8, _ what: String) throws(JSONError) {
        skipSpace()
        guard depth < JSONReader.depthLimit else {
            throw failure("objects and arrays nest deeper than \(JSONReader.depthLimit) levels")
        }
        guard take(byte) else { throw expected(what) }
        depth &+= 1
    }

    /// Reads an object. `body` must consume the value of each name; it gets the name's number in `keys`, or nil.
    @inline(__always) mutating func object(
        _ keys: JSONKeys, _ body: (inout JSONReader, Int?) throws(JSONError) -> Void
    ) throws(JSONError) {
        try open(0x7B, "an object")
        defer { depth &-= 1 }
        skipSpace()
        if take(0x7D) { return }
        let firstUnknown = unknown.count
        defer { unknown.removeSubrange(firstUnknown...) }
        var seen: UInt64 = 0
        var guess = 0
        while true {
            let field = try name(keys, guess: guess, seen: &seen, unknownFrom: firstUnknown)
            try body(&self, field)
            guess = (field ?? guess &- 1) &+ 1
            skipSpace()
            if take(0x2C) { continue }
            guard take(0x7D) else { throw expected("\",\" or \"}\" after a value") }
            return
        }
    }

    /// A name and its colon.
    private mutating func name(
        _ keys: JSONKeys, guess: Int, seen: inout UInt64, unknownFrom: Int
    ) throws(JSONError) -> Int? {
        skipSpace()
        let start = position
        guard position < bytes.count, bytes[position] == 0x22 else { throw expected("a name in quotes") }
        let key = try string()
        let field = keys.index(of: key, guess: guess)
        var isRepeated: Bool
        if let field {
            isRepeated = seen & 1 &<< UInt64(field) != 0
            seen |= 1 &<< UInt64(field)
        } else {
            let hash = SipHash.hash(key, seed: seed)
            isRepeated = unknown[unknownFrom...].contains(hash)
            if unknown.count - unknownFrom < JSONReader.namesLimit {
                unknown.append(hash)
            } else {
                try note(
                    "an object has more than \(JSONReader.namesLimit) unknown names", remedy: "leave them out",
                    at: start)
            }
        }
        if isLong { try note("a name \(JSONReader.longString)", remedy: "shorten it", at: start) }
        if isRepeated {
            let shown = String(decoding: key.prefix(64), as: UTF8.self)
            try note(
                "the name \"\(shown)\" occurs twice in one object", remedy: "write each name once", at: start)
        }
        skipSpace()
        guard take(0x3A) else { throw expected("\":\" after a name") }
        return field
    }

    /// Reads an array. `body` must consume one value per call.
    @inline(__always) mutating func array(
        _ body: (inout JSONReader) throws(JSONError) -> Void
    ) throws(JSONError) {
        try open(0x5B, "an array")
        defer { depth &-= 1 }
        skipSpace()
        if take(0x5D) { return }
        while true {
            try body(&self)
            skipSpace()
            if take(0x2C) { continue }
            guard take(0x5D) else { throw expected("\",\" or \"]\" after a value") }
            return
        }
    }

    /// Skips and validates one value of any type. Recursion is bounded by ``depthLimit``.
    mutating func skip() throws(JSONError) {
        switch try kind() {
        case .object: try object(JSONReader.noKeys) { reader, _ throws(JSONError) in try reader.skip() }
        case .array: try array { reader throws(JSONError) in try reader.skip() }
        case .string: _ = try scanString()
        case .number: _ = try number()
        case .bool: _ = try bool()
        case .null: try null()
        }
    }
    private static let noKeys = JSONKeys([])

    // MARK: Scalars

    mutating func null() throws(JSONError) { try word("null") }

    mutating func bool() throws(JSONError) -> Bool {
        skipSpace()
        let isTrue = position < bytes.count && bytes[position] == 0x74
        try word(isTrue ? "true" : "false")
        return isTrue
    }

    private mutating func word(_ text: StaticString) throws(JSONError) {
        skipSpace()
        let count = text.utf8CodeUnitCount
        guard bytes.count - position >= count,
            sameBytes(Bytes(rebasing: bytes[position..<position + count]), Bytes(start: text.utf8Start, count: count))
        else { throw expected("true, false, null or another value") }
        position &+= count
    }

    /// Reads a number; nil if it isn't a whole one of 0...2^64-1 written as digits alone.
    mutating func number() throws(JSONError) -> UInt64? {
        skipSpace()
        let negative = take(0x2D)
        let first = position
        var value: UInt64? = 0
        while let digit = digit() {
            let (product, high) = (value ?? 0).multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(digit))
            value = value == nil || high || carry ? nil : sum
        }
        guard position > first else { throw expected("a digit") }
        guard bytes[first] != 0x30 || position == first + 1 else {
            throw failure("a number starts with 0", at: first)
        }
        if take(0x2E) {
            value = nil
            guard digit() != nil else { throw expected("a digit after the point") }
            while digit() != nil {}
        }
        if take(0x65) || take(0x45) {
            value = nil
            if !take(0x2B) { _ = take(0x2D) }
            guard digit() != nil else { throw expected("a digit of the exponent") }
            while digit() != nil {}
        }
        return negative ? nil : value
    }

    private mutating func digit() -> UInt8? {
        guard position < bytes.count else { return nil }
        let value = bytes[position] &- 0x30
        guard value <= 9 else { return nil }
        position &+= 1
        return value
    }

    /// Reads a string, unescaped. Valid until the next call.
    mutating func string() throws(JSONError) -> Bytes {
        skipSpace()
        let start = position
        let found = try scanString()
        let raw = Bytes(rebasing: bytes[found.range])
        isLong = found.range.count > JSONReader.stringLimit
        guard !isLong else {
            guard toleratesFlaws else { throw failure("a string \(JSONReader.longString)", at: start) }
            return Bytes(rebasing: raw[..<0])
        }
        return found.isEscaped ? scratch.unescape(raw) : raw
    }

    /// An escape that is none, unless it is half of a surrogate pair alone.
    private mutating func passHalfPair() throws(JSONError) {
        guard JSONText.unit(bytes, at: position) != nil else {
            throw failure("a backslash in a string starts no valid escape")
        }
        try note(
            "a string has an escape that is half of a surrogate pair", remedy: "write both halves, or UTF-8",
            at: position)
        position &+= 6
    }

    /// Validates and skips a string: returns the bytes between its quotes, and whether they have escapes.
    mutating func scanString() throws(JSONError) -> (range: Range<Int>, isEscaped: Bool) {
        guard take(0x22) else { throw expected("a string") }
        let start = position
        var isEscaped = false
        while true {
            position = JSONText.endOfPlain(bytes, from: position)
            guard position < bytes.count else { throw expected("\"\\\"\" at the end of a string") }
            let byte = bytes[position]
            if byte == 0x22 {
                position &+= 1
                return (start..<position - 1, isEscaped)
            }
            if byte == 0x5C {
                isEscaped = true
                if let length = JSONText.escapeLength(bytes, at: position) {
                    position &+= length
                } else {
                    try passHalfPair()
                }
            } else if byte < 0x20 {
                throw failure("a string contains a control character: write it as an escape")
            } else {
                guard let length = JSONText.utf8Length(bytes, at: position) else {
                    throw failure("a string contains bytes that are not UTF-8")
                }
                position &+= length
            }
        }
    }
}
