import Pipeline

/// What may stand between the quotes of a JSON string.
enum JSONText {
    /// The first position from `start` on that holds a quote, a backslash, a control character or a byte outside
    /// ASCII; the end if there is none. Eight bytes at a time.
    @inline(__always) static func endOfPlain(_ bytes: Bytes, from start: Int) -> Int {
        var index = start
        if let base = UnsafeRawPointer(bytes.baseAddress) {
            while index &+ 8 <= bytes.count {
                let word = UInt64(littleEndian: base.loadUnaligned(fromByteOffset: index, as: UInt64.self))
                let found = special(word)
                if found != 0 { return index &+ found.trailingZeroBitCount &>> 3 }
                index &+= 8
            }
        }
        while index < bytes.count {
            let byte = bytes[index]
            if byte == 0x22 || byte == 0x5C || byte < 0x20 || byte >= 0x80 { return index }
            index &+= 1
        }
        return index
    }

    /// White space between values, and where lines begin in it.
    @inline(__always) static func skipSpace(
        _ bytes: Bytes, _ position: inout Int, line: inout Int, lineStart: inout Int
    ) {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x09, 0x0D: position &+= 1
            case 0x0A:
                position &+= 1
                line &+= 1
                lineStart = position
            default: return
            }
        }
    }

    /// The top bit of the first special byte is the lowest bit set; bits above it may be wrong.
    @inline(__always) private static func special(_ word: UInt64) -> UInt64 {
        let ones: UInt64 = 0x0101_0101_0101_0101
        let quote = word ^ (ones &* 0x22)
        let backslash = word ^ (ones &* 0x5C)
        let low = (word &- ones &* 0x20) & ~word
        return (low | (quote &- ones) & ~quote | (backslash &- ones) & ~backslash | word) & (ones &* 0x80)
    }

    /// The length of the escape at `index`, surrogate pairs whole; nil if it is none.
    static func escapeLength(_ bytes: Bytes, at index: Int) -> Int? {
        guard index + 1 < bytes.count else { return nil }
        switch bytes[index + 1] {
        case 0x22, 0x5C, 0x2F, 0x62, 0x66, 0x6E, 0x72, 0x74: return 2
        case 0x75:
            guard let unit = unit(bytes, at: index) else { return nil }
            if unit & 0xFC00 == 0xD800 {
                guard let second = self.unit(bytes, at: index + 6), second & 0xFC00 == 0xDC00 else { return nil }
                return 12
            }
            return unit & 0xFC00 == 0xDC00 ? nil : 6
        default: return nil
        }
    }

    /// The UTF-16 unit of a `\uXXXX` at `index`.
    static func unit(_ bytes: Bytes, at index: Int) -> UInt32? {
        guard index + 6 <= bytes.count, bytes[index] == 0x5C, bytes[index + 1] == 0x75 else { return nil }
        var value: UInt32 = 0
        for offset in 2..<6 {
            guard let digit = Digits.value(ofHex: bytes[index + offset]) else { return nil }
            value = value << 4 | UInt32(digit)
        }
        return value
    }

    /// The length of the UTF-8 sequence at `index` (Unicode 3.9, table 3-7); nil if it is none.
    static func utf8Length(_ bytes: Bytes, at index: Int) -> Int? {
        func at(_ offset: Int) -> UInt8 { index + offset < bytes.count ? bytes[index + offset] : 0 }
        func continues(_ offset: Int) -> Bool { at(offset) & 0xC0 == 0x80 }
        let second = at(1)
        switch bytes[index] {
        case 0x00...0x7F: return 1
        case 0xC2...0xDF: return continues(1) ? 2 : nil
        case 0xE0: return second >= 0xA0 && second <= 0xBF && continues(2) ? 3 : nil
        case 0xED: return second >= 0x80 && second <= 0x9F && continues(2) ? 3 : nil
        case 0xE1...0xEF: return continues(1) && continues(2) ? 3 : nil
        case 0xF0: return second >= 0x90 && second <= 0xBF && continues(2) && continues(3) ? 4 : nil
        case 0xF1...0xF3: return continues(1) && continues(2) && continues(3) ? 4 : nil
        case 0xF4: return second >= 0x80 && second <= 0x8F && continues(2) && continues(3) ? 4 : nil
        default: return nil
        }
    }
}

/// Where strings with escapes are unescaped: one buffer for all of them, freed with the reader.
final class ScratchBytes {
    private let storage: UnsafeMutableBufferPointer<UInt8>
    init(capacity: Int) { storage = .allocate(capacity: capacity) }
    deinit { storage.deallocate() }

    /// `raw` has only valid escapes and is no longer than the capacity; the result is never longer than `raw`.
    func unescape(_ raw: Bytes) -> Bytes {
        var count = 0
        var index = 0
        func put(_ byte: UInt8) {
            guard count < storage.count else { return }
            storage[count] = byte
            count += 1
        }
        while index < raw.count {
            guard raw[index] == 0x5C, index + 1 < raw.count else {
                put(raw[index])
                index += 1
                continue
            }
            let letter = raw[index + 1]
            guard letter == 0x75 else {
                put(ScratchBytes.control(letter))
                index += 2
                continue
            }
            let length = JSONText.escapeLength(raw, at: index) ?? 6
            var scalar = JSONText.unit(raw, at: index) ?? 0xFFFD
            if length == 12, let low = JSONText.unit(raw, at: index + 6) {
                scalar = 0x10000 + ((scalar & 0x3FF) << 10 | low & 0x3FF)
            }
            for byte in String(UnicodeScalar(scalar) ?? "\u{FFFD}").utf8 { put(byte) }
            index += length
        }
        return Bytes(rebasing: UnsafeBufferPointer(storage)[..<count])
    }

    private static func control(_ letter: UInt8) -> UInt8 {
        switch letter {
        case 0x62: 0x08
        case 0x66: 0x0C
        case 0x6E: 0x0A
        case 0x72: 0x0D
        case 0x74: 0x09
        default: letter
        }
    }
}
