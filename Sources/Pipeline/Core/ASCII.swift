/// Bytes of names and numbers, as grammars of protocols and of the config have them.
extension UInt8 {
    public var isASCIIDigit: Bool { self >= 0x30 && self <= 0x39 }
    public var isASCIILetter: Bool { self | 0x20 >= 0x61 && self | 0x20 <= 0x7A }
    public var isASCIILetterOrDigit: Bool { isASCIILetter || isASCIIDigit }
}
