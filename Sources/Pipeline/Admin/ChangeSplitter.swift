import Pipeline

/// Cuts JSON objects that stand one behind the other, with or without space between them, without a look at what is in
/// them but strings and brackets.
package struct ChangeSplitter {
    package struct Fault: Error, Equatable {
        package let problem: String
        package init(problem: String) { self.problem = problem }
    }

    private static let spaces: Set<UInt8> = [0x20, 0x09, 0x0A, 0x0D, 0x1E]
    private let limit: Int
    private var object: [UInt8] = []
    private var depth = 0
    private var isInString = false
    private var isEscaped = false
    /// Of all bytes so far.
    private var offset = 0

    /// - Parameter limit: of one object, in bytes.
    package init(limit: Int) { self.limit = limit }

    /// An object has begun, and not ended.
    package var isWithinObject: Bool { depth > 0 }

    /// - Parameter body: gets each object that is whole.
    package mutating func take(_ bytes: some Sequence<UInt8>, _ body: ([UInt8]) throws -> Void) throws {
        for byte in bytes {
            offset += 1
            if depth == 0, ChangeSplitter.spaces.contains(byte) { continue }
            guard depth > 0 || byte == UInt8(ascii: "{") else {
                throw Fault(problem: "byte \(offset) is not the beginning of a JSON object")
            }
            guard object.count < limit else { throw Fault(problem: "an object has more than \(limit) bytes") }
            object.append(byte)
            note(byte)
            guard depth == 0 else { continue }
            try body(object)
            object = []
        }
    }

    private mutating func note(_ byte: UInt8) {
        if isInString {
            if isEscaped {
                isEscaped = false
            } else if byte == UInt8(ascii: "\\") {
                isEscaped = true
            } else if byte == UInt8(ascii: "\"") {
                isInString = false
            }
            return
        }
        switch byte {
        case UInt8(ascii: "\""): isInString = true
        case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
        case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
        default: break
        }
    }
}
