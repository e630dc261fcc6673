/// A word of the source as messages show it: quoted, and cut if it is long.
public func quoted(_ text: String) -> String { text.count <= 64 ? "`\(text)`" : "`\(text.prefix(60))…`" }

/// `a`, `a or b`, `a, b or c`.
public func orList(_ items: [String]) -> String {
    guard let last = items.last, items.count > 1 else { return items.first ?? "" }
    return items.dropLast().joined(separator: ", ") + " or " + last
}

/// The same with `and`.
public func andList(_ items: [String]) -> String {
    guard let last = items.last, items.count > 1 else { return items.first ?? "" }
    return items.dropLast().joined(separator: ", ") + " and " + last
}

/// A word as a config has it: in quotes where it needs them.
public func writtenWord(_ text: String) -> String {
    let isBare =
        !text.isEmpty && text != "=" && text.utf8.allSatisfy(isWordByte)
        && !text.unicodeScalars.contains { EscapedByte.value(of: $0) != nil }
    return isBare ? text : quotedWord(text)
}

/// Whether a word may hold the byte without quotes.
public func isWordByte(_ byte: UInt8) -> Bool {
    switch byte {
    case 0...0x20, 0x7F, UInt8(ascii: "{"), UInt8(ascii: "}"), UInt8(ascii: ","), UInt8(ascii: "#"),
        UInt8(ascii: "\""), UInt8(ascii: ";"):
        false
    default: true
    }
}

/// A word in quotes, as a config has it.
public func quotedWord(_ text: String) -> String {
    var escaped = ""
    for scalar in text.unicodeScalars {
        if let byte = EscapedByte.value(of: scalar) {
            escaped += EscapedByte.text(byte)
            continue
        }
        if scalar == "\\" || scalar == "\"" { escaped.unicodeScalars.append("\\") }
        escaped.unicodeScalars.append(scalar)
    }
    return "\"\(escaped)\""
}

/// Bytes in quotes, as a config has them.
public func quotedBytes(_ bytes: [UInt8]) -> String {
    var text = String.UnicodeScalarView()
    for byte in bytes {
        let isPlain = byte >= 0x20 && byte < 0x7F
        text.append(isPlain ? Unicode.Scalar(byte) : EscapedByte.scalar(byte))
    }
    return quotedWord(String(text))
}

/// The bytes that a word stands for: its text in UTF-8, and its escapes.
public func escapedBytes(_ text: String) -> [UInt8] {
    var bytes: [UInt8] = []
    for scalar in text.unicodeScalars {
        if let byte = EscapedByte.value(of: scalar) { bytes.append(byte) } else { bytes += Array(String(scalar).utf8) }
    }
    return bytes
}

/// `\r`, `\n`, `\t`, `\0` or `\x1F` in a quoted word. A word's text has a scalar of the private use area for it, so that
/// no control character gets into names, paths and messages, and any byte can be written.
public enum EscapedByte {
    private static let base: UInt32 = 0xF700

    public static func scalar(_ byte: UInt8) -> Unicode.Scalar {
        Unicode.Scalar(base + UInt32(byte)) ?? "\u{FFFD}"
    }
    public static func value(of scalar: Unicode.Scalar) -> UInt8? {
        (base...base + 0xFF).contains(scalar.value) ? UInt8(truncatingIfNeeded: scalar.value) : nil
    }

    /// The byte of an escape of one letter; nil: there is none.
    public static func named(_ letter: UInt8) -> UInt8? {
        switch letter {
        case UInt8(ascii: "r"): 0x0D
        case UInt8(ascii: "n"): 0x0A
        case UInt8(ascii: "t"): 0x09
        case UInt8(ascii: "0"): 0
        default: nil
        }
    }

    static func text(_ byte: UInt8) -> String {
        switch byte {
        case 0x0D: return "\\r"
        case 0x0A: return "\\n"
        case 0x09: return "\\t"
        case 0: return "\\0"
        default:
            let digits = String(byte, radix: 16, uppercase: true)
            return "\\x" + (digits.count == 1 ? "0" : "") + digits
        }
    }
}
