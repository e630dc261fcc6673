import CIDN2
import Pipeline

/// Why a text is not a hostname or host pattern, and what to write instead.
public struct HostnameError: Error, Equatable, Sendable {
    public let problem: String
    public let remedy: String
    init(_ problem: String, remedy: String) {
        self.problem = problem
        self.remedy = remedy
    }
}

/// Canonical hostnames of configs and state (R3).
public enum Hostname {
    /// The longest accepted text, in bytes: no canonical name needs more, even in UTF-8.
    static let longestInput = 1024

    /// Canonicalizes `text`: UTS #46 non-transitional to A-labels, every `xn--` label decoded and encoded again, then
    /// the rules for ASCII names of ``ServerName``.
    public static func canonical(_ text: Bytes) throws(HostnameError) -> ServerName {
        guard !text.isEmpty else {
            throw HostnameError("is empty", remedy: "write a name such as app.example.com")
        }
        guard text.count <= longestInput else {
            throw HostnameError("is too long for a name", remedy: "names have at most 253 characters")
        }
        var name = ServerName()
        if isPlain(text) {
            guard name.set(wire: text) else { throw refusal(of: text) }
            return name
        }
        let ascii = try toASCII(text)
        let fits = ascii.withUnsafeBufferPointer { name.set(wire: $0) }
        guard fits else { throw ascii.withUnsafeBufferPointer { refusal(of: $0) } }
        return name
    }

    public static func canonical(_ text: String) throws(HostnameError) -> ServerName {
        try withBytes(of: text) { bytes throws(HostnameError) in try canonical(bytes) }
    }

    static func withBytes<Result>(
        of text: String, _ body: (Bytes) throws(HostnameError) -> Result
    ) throws(HostnameError) -> Result {
        let copy = Array(text.utf8)
        return try copy.withUnsafeBufferPointer { bytes throws(HostnameError) in try body(bytes) }
    }

    /// ASCII without an `xn--` label: IDNA does not change such a name, and its rules would reject real names
    /// (`r1---sn-4g5e6nez`).
    private static func isPlain(_ text: Bytes) -> Bool {
        var labelStart = 0
        for (index, byte) in text.enumerated() {
            if byte >= 0x80 { return false }
            if byte == 0x2E { labelStart = index + 1 }
            // The fourth character of a label closes "xn--".
            if index - labelStart == 3, byte == 0x2D, text[index - 1] == 0x2D, text[index - 2] | 0x20 == 0x6E,
                text[index - 3] | 0x20 == 0x78
            {
                return false
            }
        }
        return true
    }

    private static func toASCII(_ text: Bytes) throws(HostnameError) -> [UInt8] {
        guard !text.contains(0) else {
            throw HostnameError("contains a NUL byte", remedy: "remove it")
        }
        // libidn2 passes these through; checked here, the message is clearer.
        if let bad = text.first(where: { $0 <= 0x20 || $0 == 0x7F }) { throw badCharacter(bad) }
        var input = Array(text)
        input.append(0)
        var output: UnsafeMutablePointer<UInt8>?
        let flags = Int32(bitPattern: IDN2_NFC_INPUT.rawValue | IDN2_NONTRANSITIONAL.rawValue)
        let status = input.withUnsafeBufferPointer { idn2_lookup_u8($0.baseAddress, &output, flags) }
        defer { idn2_free(output) }
        guard status == IDN2_OK.rawValue, let output else {
            let reason = idn2_strerror(status).map { String(cString: $0) } ?? "libidn2's code \(status)"
            throw HostnameError(
                "is not a valid international name (IDNA: \(reason))",
                remedy: "write it as it is registered, or give its xn-- form")
        }
        var result: [UInt8] = []
        // The length that libidn2 gives is bounded by DNS; the bound here keeps a surprise from running on.
        while result.count <= 4 * longestInput, output[result.count] != 0 { result.append(output[result.count]) }
        return result
    }

    private static func badCharacter(_ byte: UInt8) -> HostnameError {
        let shown = byte > 0x20 && byte < 0x7F ? "\"\(Character(UnicodeScalar(byte)))\"" : "byte 0x\(hex(byte))"
        switch byte {
        case 0x3A:
            return HostnameError("contains \":\"", remedy: "remove the port: it belongs in listen_port")
        case 0x2A:
            return HostnameError(
                "has a \"*\" that isn't the whole first label",
                remedy: "write *.example.com, with one star at the "
                    + "start")
        default:
            return HostnameError(
                "contains \(shown)", remedy: "names have letters, digits, \"-\" and \"_\" in labels separated by dots")
        }
    }

    private static func hex(_ byte: UInt8) -> String {
        let digits = String(byte, radix: 16)
        return digits.count == 1 ? "0" + digits : digits
    }

    /// Says which of the ASCII rules `text` breaks.
    static func refusal(of text: Bytes) -> HostnameError {
        var body = text
        if body.last == 0x2E { body = Bytes(rebasing: body.dropLast()) }
        for byte in body where byte != 0x2E {
            let lower = byte >= 0x41 && byte <= 0x5A ? byte | 0x20 : byte
            if !ServerName.isNameByte(lower) { return badCharacter(byte) }
        }
        let labels = body.split(separator: 0x2E, omittingEmptySubsequences: false)
        if labels.contains(where: \.isEmpty) {
            return HostnameError("has an empty label", remedy: "put one dot between labels, and none at the start")
        }
        if let long = labels.first(where: { $0.count > 63 }) {
            return HostnameError("has a label of \(long.count) characters", remedy: "labels have at most 63")
        }
        if body.count > ServerName.capacity {
            return HostnameError("has \(body.count) characters", remedy: "names have at most 253")
        }
        return HostnameError(
            "ends in a number, as an IP address does", remedy: "use a name: an address is not a hostname")
    }
}

/// A hostname of a route: a name, every name one label below one, or a name with all below it (R4).
public struct HostPattern: Sendable {
    /// The name, or what follows `*.` or `.`.
    public let name: ServerName
    let kind: KeyKind

    public init(_ text: Bytes) throws(HostnameError) {
        kind = KeyKind(markOf: text)
        guard kind != .exact else {
            if text.count == 1, text[0] == 0x2A || text[0] == 0x2E {
                throw HostnameError(
                    "covers every name", remedy: "write a suffix, such as *.example.com")
            }
            name = try Hostname.canonical(text)
            return
        }
        name = try Hostname.canonical(Bytes(rebasing: text.dropFirst(kind.mark.utf8.count)))
        guard name.withBytes({ $0.contains(0x2E) }) else {
            throw HostnameError(
                "covers every name of a top-level domain",
                remedy: "write at least two labels after the \(kind == .wildcard ? "star" : "dot")")
        }
        guard name.count <= ServerName.capacity - 2 else {
            throw HostnameError("has a suffix that leaves no room for a name", remedy: "use a shorter suffix")
        }
    }

    public init(_ text: String) throws(HostnameError) {
        self = try Hostname.withBytes(of: text) { bytes throws(HostnameError) in try HostPattern(bytes) }
    }

    /// `*.` or `.`; empty: a whole name.
    public var mark: String { kind.mark }

    /// As it is written: `app.example.com`, `*.example.com`, `.example.com`.
    public var text: String { kind.mark + name.string }
}
