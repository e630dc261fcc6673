/// Numbers as text and back, digit by digit, in bytes.
public enum Digits {
    /// The lower case digit of a value below 16.
    public static func hex(_ value: UInt8) -> UInt8 { value < 10 ? 0x30 + value : 0x61 + value - 10 }

    /// The value of a hex digit of either case; nil if it is none.
    public static func value(ofHex byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x61...0x66: byte - 0x61 + 10
        case 0x41...0x46: byte - 0x41 + 10
        default: nil
        }
    }

    /// Appends a number in decimal, with zeros in front of it up to `width` digits.
    public static func append(_ value: UInt64, width: Int = 1, to bytes: inout [UInt8]) {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { digits in
            var rest = value
            var start = 20
            while rest > 0 || 20 - start < min(max(width, 1), 20) {
                start -= 1
                digits[start] = 0x30 + UInt8(truncatingIfNeeded: rest % 10)
                rest /= 10
            }
            bytes.append(contentsOf: digits[start...])
        }
    }

    /// The digits of a number, without zeros in front of it.
    public static func forEach(decimal value: UInt16, _ body: (UInt8) -> Void) {
        var unit: UInt16 = 10_000
        while unit > 1, value < unit { unit /= 10 }
        while unit > 0 {
            body(0x30 + UInt8(truncatingIfNeeded: value / unit % 10))
            unit /= 10
        }
    }

    /// The same in hex.
    public static func forEach(hex value: UInt16, _ body: (UInt8) -> Void) {
        var isLeading = true
        for shift in stride(from: 12, through: 0, by: -4) {
            let digit = UInt8(truncatingIfNeeded: value >> shift & 15)
            if isLeading, digit == 0, shift > 0 { continue }
            isLeading = false
            body(hex(digit))
        }
    }
}
