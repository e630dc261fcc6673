/// The first line of what a client of a text protocol has sent. Pure; a final verdict stays the same whatever follows.
public enum TextLine: Equatable, Sendable {
    case incomplete
    /// `content` bytes, and `length` of them with the line's end (CR LF, or LF alone).
    case whole(content: Int, length: Int)
    /// Longer than `limit`, its end included.
    case tooLong
    /// It has a control character, as binary protocols do.
    case binary

    public static func first(of bytes: UnsafeBufferPointer<UInt8>, limit: Int) -> TextLine {
        for (index, byte) in bytes.prefix(limit).enumerated() {
            switch byte {
            case UInt8(ascii: "\n"):
                let hasReturn = index > 0 && bytes[index - 1] == UInt8(ascii: "\r")
                return .whole(content: hasReturn ? index - 1 : index, length: index + 1)
            case UInt8(ascii: "\r"):
                // Only in front of the line's end.
                if index + 1 < min(bytes.count, limit), bytes[index + 1] != UInt8(ascii: "\n") { return .binary }
            case UInt8(ascii: "\t"), 0x20...0x7E, 0x80...0xFF: break
            default: return .binary
            }
        }
        return bytes.count >= limit ? .tooLong : .incomplete
    }
}

extension UnsafeBufferPointer<UInt8> {
    /// Whether these are `text`, without regard to case.
    func isText(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        for index in indices where TextLine.upper(self[index]) != TextLine.upper(text.utf8Start[index]) { return false }
        return true
    }

    /// Up to the first space.
    var firstWord: UnsafeBufferPointer<UInt8> {
        UnsafeBufferPointer(rebasing: self[..<(firstIndex(of: UInt8(ascii: " ")) ?? endIndex)])
    }
}

extension TextLine {
    static func upper(_ byte: UInt8) -> UInt8 {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) ? byte & 0xDF : byte
    }
}
