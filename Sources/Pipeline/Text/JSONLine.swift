import Pipeline

/// The one writer of JSON: an object as bytes (RFC 8259), field by field, without a String in between, as the connection
/// log needs it for every connection.
package struct JSONLine {
    package private(set) var bytes: [UInt8] = []
    private var needsComma = false

    package init() {}

    /// Begins the object; what was written before stays in front of it.
    package mutating func open() {
        bytes.append(UInt8(ascii: "{"))
        needsComma = false
    }
    package mutating func close() {
        bytes.append(UInt8(ascii: "}"))
        needsComma = true
    }
    package mutating func newline() {
        bytes.append(0x0A)
        needsComma = false
    }
    package mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        needsComma = false
    }

    package var string: String { String(decoding: bytes, as: UTF8.self) }

    /// A JSON string, quotes and all.
    package static func quoted(_ text: String) -> String {
        var line = JSONLine()
        line.string(text)
        return line.string
    }

    // MARK: Keys

    /// `key` must need no escaping.
    package mutating func key(_ key: StaticString) {
        comma()
        bytes.append(UInt8(ascii: "\""))
        key.withUTF8Buffer { bytes.append(contentsOf: $0) }
        bytes.append(UInt8(ascii: "\""))
        bytes.append(UInt8(ascii: ":"))
    }

    private mutating func comma() {
        if needsComma { bytes.append(UInt8(ascii: ",")) }
        needsComma = true
    }

    /// Fields that were written before, as they are.
    package mutating func raw(_ fields: [UInt8]) {
        comma()
        bytes.append(contentsOf: fields)
    }

    package mutating func timestamp(_ nanoseconds: UInt64) {
        bytes.append(UInt8(ascii: "\""))
        Timestamp.append(nanoseconds, to: &bytes)
        bytes.append(UInt8(ascii: "\""))
    }

    // MARK: Fields

    package mutating func field(_ name: StaticString, _ value: String) {
        key(name)
        string(value)
    }
    package mutating func field(_ name: StaticString, _ value: String?) {
        key(name)
        if let value { string(value) } else { null() }
    }
    package mutating func field(_ name: StaticString, _ value: UInt64) {
        key(name)
        number(value)
    }
    /// `name` must need no escaping.
    package mutating func field(name: String, _ value: UInt64) {
        comma()
        string(name)
        bytes.append(UInt8(ascii: ":"))
        number(value)
    }
    package mutating func field(_ name: StaticString, _ value: Int) {
        key(name)
        bytes.append(contentsOf: String(value).utf8)
    }
    package mutating func field(_ name: StaticString, _ value: Int?) {
        if let value { field(name, value) } else { nullField(name) }
    }
    package mutating func field(_ name: StaticString, _ value: Bool) {
        key(name)
        bytes.append(contentsOf: (value ? "true" : "false").utf8)
    }
    /// An env's identity: `org`, `app` and `env`; nil: each is null.
    package mutating func fields(_ env: EnvName?) {
        field("org", env?.org)
        field("app", env?.app)
        field("env", env?.env)
    }
    package mutating func nullField(_ name: StaticString) {
        key(name)
        null()
    }

    /// An array of what `body` writes for each item: a value with one of the methods below, or an object.
    package mutating func list<Item>(
        _ name: StaticString, _ items: some Sequence<Item>, _ body: (inout JSONLine, Item) -> Void
    ) {
        key(name)
        bytes.append(UInt8(ascii: "["))
        needsComma = false
        for item in items {
            comma()
            body(&self, item)
        }
        bytes.append(UInt8(ascii: "]"))
        needsComma = true
    }

    /// An array of envs, as objects.
    package mutating func list(_ name: StaticString, _ envs: some Sequence<EnvName>) {
        list(name, envs) { line, env in
            line.open()
            line.fields(env)
            line.close()
        }
    }

    // MARK: Values

    package mutating func null() { bytes.append(contentsOf: "null".utf8) }

    package mutating func number(_ value: UInt64) { Digits.append(value, to: &bytes) }

    package mutating func string(_ value: String) {
        var copy = value
        copy.withUTF8 { text($0) }
    }

    /// A string of two digits for each of `count` bytes.
    package mutating func hex(count: Int, _ byte: (Int) -> UInt8) {
        bytes.append(UInt8(ascii: "\""))
        for index in 0..<count {
            bytes.append(Digits.hex(byte(index) >> 4))
            bytes.append(Digits.hex(byte(index) & 15))
        }
        bytes.append(UInt8(ascii: "\""))
    }

    package mutating func endpoint(_ value: Endpoint) {
        bytes.append(UInt8(ascii: "\""))
        value.append(to: &bytes)
        bytes.append(UInt8(ascii: "\""))
    }

    /// A string of UTF-8; bytes that are none, and characters that a terminal might act upon, are escaped. One that
    /// was cut ends in `…`.
    package mutating func text(_ value: UnsafeBufferPointer<UInt8>, isCut: Bool = false) {
        bytes.append(UInt8(ascii: "\""))
        if value.allSatisfy({ $0 < 0x80 }) {
            for byte in value { escaped(byte) }
        } else {
            for scalar in String(decoding: value, as: UTF8.self).unicodeScalars { escaped(scalar) }
        }
        if isCut { bytes.append(contentsOf: "…".utf8) }
        bytes.append(UInt8(ascii: "\""))
    }

    /// A string with one character for each byte, as ISO 8859-1 reads them: for bytes as they came from the wire.
    package mutating func latin1(_ value: some Sequence<UInt8>) {
        bytes.append(UInt8(ascii: "\""))
        for byte in value { if byte < 0x80 { escaped(byte) } else { escaped(Unicode.Scalar(byte)) } }
        bytes.append(UInt8(ascii: "\""))
    }

    private mutating func escaped(_ byte: UInt8) {
        switch byte {
        case 0x22, 0x5C:
            bytes.append(0x5C)
            bytes.append(byte)
        case 0x0A: bytes.append(contentsOf: "\\n".utf8)
        case 0x0D: bytes.append(contentsOf: "\\r".utf8)
        case 0x09: bytes.append(contentsOf: "\\t".utf8)
        case 0..<0x20, 0x7F: unicodeEscape(UInt16(byte))
        default: bytes.append(byte)
        }
    }

    private mutating func escaped(_ scalar: Unicode.Scalar) {
        switch scalar.value {
        case 0..<0x80: escaped(UInt8(truncatingIfNeeded: scalar.value))
        // C1 controls, line separators and direction overrides: harmless to a parser, not to a terminal.
        case 0x80..<0xA0, 0x200E...0x200F, 0x2028...0x202E, 0x2066...0x2069:
            unicodeEscape(UInt16(truncatingIfNeeded: scalar.value))
        default: bytes.append(contentsOf: UTF8.encode(scalar).map(Array.init) ?? [])
        }
    }

    private mutating func unicodeEscape(_ unit: UInt16) {
        bytes.append(contentsOf: "\\u".utf8)
        for shift in [12, 8, 4, 0] as [UInt16] { bytes.append(Digits.hex(UInt8(unit >> shift & 15))) }
    }
}
