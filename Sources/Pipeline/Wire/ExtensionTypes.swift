/// The types of a hello's extensions so far: none may come twice (RFC 8446 §4.2).
///
/// A bit for each type below 64, where most assigned ones are. Of the others (`renegotiation_info`, `encrypted_client_hello`,
/// GREASE, private ones) as many are kept as clients send; a hello with more is ``isCrowded``, and is looked at a second time
/// with ``AllExtensionTypes``. So a usual hello costs a few instructions an extension, and a hostile one two linear passes.
struct ExtensionTypes {
    private static let capacity = 16

    private var low: UInt64 = 0
    private var others = InlineArray<16, UInt16>(repeating: 0)
    private var count = 0
    /// There were types that are not remembered.
    private(set) var isCrowded = false

    /// False if the type is known to have come before.
    mutating func insert(_ type: UInt16) -> Bool {
        if type < 64 {
            let bit: UInt64 = 1 << UInt64(type)
            defer { low |= bit }
            return low & bit == 0
        }
        for index in 0..<count where others[index] == type { return false }
        guard count < ExtensionTypes.capacity else {
            isCrowded = true
            return true
        }
        others[count] = type
        count += 1
        return true
    }
}

/// The same for every type that there is: 8 KiB of the stack.
struct AllExtensionTypes {
    private var bits = InlineArray<1024, UInt64>(repeating: 0)

    /// False if the type has come before.
    mutating func insert(_ type: UInt16) -> Bool {
        let bit: UInt64 = 1 << UInt64(type & 63)
        let word = Int(type >> 6)
        defer { bits[word] |= bit }
        return bits[word] & bit == 0
    }
}
