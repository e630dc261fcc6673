import Pipeline

/// Why a word is not the value that it should be.
struct ValueProblem: Error {
    let message: String
    var expected: String?
    var help: String?
}

/// Numbers with units, written one way: a whole number and a unit without a space.
enum Unit {
    static let durations: [(name: String, factor: UInt64)] = [
        ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000),
    ]
    static let sizes: [(name: String, factor: UInt64)] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
    static let counts: [(name: String, factor: UInt64)] = [("M", 1_000_000), ("k", 1000)]

    /// The units that people write by habit, and ours.
    static let habits: [String: String] = [
        "sec": "s", "secs": "s", "second": "s", "seconds": "s", "msec": "ms", "millis": "ms", "min": "m",
        "mins": "m", "minutes": "m", "hour": "h", "hours": "h", "hr": "h", "b": "", "k": "KiB", "kb": "KiB",
        "kib": "KiB", "m": "MiB", "mb": "MiB", "mib": "MiB", "g": "GiB", "gb": "GiB", "gib": "GiB",
    ]

    /// The largest unit that divides `value`, without one where none does.
    static func write(_ value: UInt64, _ units: [(name: String, factor: UInt64)]) -> String {
        guard value != 0, let unit = units.first(where: { value % $0.factor == 0 }) else { return String(value) }
        return "\(value / unit.factor)\(unit.name)"
    }
}

extension TimeSpan {
    /// As the language writes it: `3s`, `200ms`.
    package var configText: String {
        nanoseconds % 1_000_000 == 0 && nanoseconds != 0
            ? Unit.write(nanoseconds, Unit.durations) : (nanoseconds == 0 ? "0s" : "\(nanoseconds)ns")
    }
}

/// A size as the language writes it: `16KiB`, `8000`.
package func sizeText(_ bytes: UInt64) -> String { Unit.write(bytes, Unit.sizes) }
/// A count as the language writes it: `10k`.
package func countText(_ count: UInt64) -> String { Unit.write(count, Unit.counts) }

/// Readers of single words. Each throws what is wrong with the word.
enum Value {
    static func duration(_ text: String, _ range: ClosedRange<TimeSpan>) throws(ValueProblem) -> TimeSpan {
        let kind = "a duration from \(range.lowerBound.configText) to \(range.upperBound.configText)"
        let value = try number(text, Unit.durations, kind: kind, bare: false, example: "`500ms`, `3s`, `5m` or `1h`")
        let span = TimeSpan(nanoseconds: value)
        guard range.contains(span) else { throw outOfRange(text, kind) }
        return span
    }

    static func size(_ text: String, _ range: ClosedRange<UInt64>) throws(ValueProblem) -> UInt64 {
        let kind = "a size from \(sizeText(range.lowerBound)) to \(sizeText(range.upperBound))"
        let value = try number(text, Unit.sizes, kind: kind, bare: true, example: "`8192`, `16KiB` or `1MiB`")
        guard range.contains(value) else { throw outOfRange(text, kind) }
        return value
    }

    static func count(_ text: String, _ range: ClosedRange<UInt64>) throws(ValueProblem) -> UInt64 {
        let kind = "a number from \(countText(range.lowerBound)) to \(countText(range.upperBound))"
        let value = try number(text, Unit.counts, kind: kind, bare: true, example: "`400`, `10k` or `1M`")
        guard range.contains(value) else { throw outOfRange(text, kind) }
        return value
    }

    /// `0xE0` or `224`.
    static func byte(_ text: String, _ range: ClosedRange<UInt8>, what: String) throws(ValueProblem) -> UInt8 {
        let kind = "a \(what) from \(byteText(range.lowerBound)) to \(byteText(range.upperBound))"
        let isHex = text.hasPrefix("0x")
        let digits = isHex ? text.dropFirst(2) : text[...]
        guard let byte = UInt8(digits, radix: isHex ? 16 : 10), !digits.hasPrefix("+"), isHex || String(byte) == text
        else {
            throw ValueProblem(
                message: "\(quoted(text)) is no \(what)", expected: kind,
                help: "write it like `\(byteText(range.lowerBound))` or `\(range.lowerBound)`")
        }
        guard range.contains(byte) else { throw outOfRange(text, kind) }
        return byte
    }

    /// `0xE0`.
    static func byteText(_ byte: UInt8) -> String {
        let digits = String(byte, radix: 16, uppercase: true)
        return "0x" + (digits.count == 1 ? "0" : "") + digits
    }

    /// 1...65535, without unit.
    static func port(_ text: some StringProtocol) throws(ValueProblem) -> UInt16 {
        guard let port = UInt16(text), port > 0, String(port) == text else {
            throw ValueProblem(message: "\(quoted(String(text))) is no port", expected: "a number from 1 to 65535")
        }
        return port
    }

    private static func outOfRange(_ text: String, _ kind: String) -> ValueProblem {
        ValueProblem(message: "\(quoted(text)) is out of range", expected: kind)
    }

    private static func number(
        _ text: String, _ units: [(name: String, factor: UInt64)], kind: String, bare: Bool, example: String
    ) throws(ValueProblem) -> UInt64 {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let suffix = text.dropFirst(digits.count)
        let form = ValueProblem(
            message: "\(quoted(text)) is no \(bare ? "number" : "duration")", expected: kind,
            help: "write it like \(example)")
        guard !digits.isEmpty else { throw form }
        guard digits == "0" || !digits.hasPrefix("0") else {
            throw ValueProblem(message: "\(quoted(text)) starts with a zero", expected: kind, help: "remove the zero")
        }
        var factor: UInt64 = 1
        if let unit = units.first(where: { $0.name == suffix }) {
            factor = unit.factor
        } else if suffix.isEmpty {
            if !bare {
                throw ValueProblem(
                    message: "\(quoted(text)) has no unit", expected: kind,
                    help: "write `\(text)s` for seconds, or `\(text)ms`")
            }
        } else {
            throw unitProblem(text, digits, suffix, units, form)
        }
        guard let value = UInt64(digits),
            case (let product, let overflow) = value.multipliedReportingOverflow(by: factor),
            !overflow
        else { throw outOfRange(text, kind) }
        return product
    }

    private static func unitProblem(
        _ text: String, _ digits: Substring, _ suffix: Substring, _ units: [(name: String, factor: UInt64)],
        _ form: ValueProblem
    ) -> ValueProblem {
        var problem = form
        if suffix.hasPrefix(".") {
            problem.help = "write a whole number of a smaller unit"
            return problem
        }
        guard suffix.allSatisfy(\.isLetter) else { return problem }
        let names = units.map(\.name)
        let habit = Unit.habits[suffix.lowercased()]
        let near = names.first { $0.lowercased() == suffix.lowercased() }
        let known = near ?? habit.flatMap { names.contains($0) || $0.isEmpty ? $0 : nil }
        if let known { problem.help = "did you mean `\(digits)\(known)`?" }
        return ValueProblem(
            message: "\(quoted(text)) has an unknown unit", expected: problem.expected, help: problem.help)
    }
}

// MARK: Addresses and names

extension Value {
    static func prefix(_ text: String) throws(ValueProblem) -> Prefix {
        if let prefix = Prefix(text) { return prefix }
        let form = ValueProblem(
            message: "\(quoted(text)) is no prefix",
            expected: "an address or prefix like `192.0.2.0/24` or `2001:db8::/32`")
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, let head = parts.first, let address = IPAddress(head) else { throw form }
        let width = address.isIPv4 && !head.contains(":") ? 32 : 128
        guard let length = UInt8(parts[1]), String(length) == parts[1], length <= width else {
            throw ValueProblem(
                message: "\(quoted(text)) has no prefix length", expected: "a number from 0 to \(width) after `/`")
        }
        let shift = Int(length) + 128 - width
        var start = address
        // Clear what stands behind the length: half by half, since shifts by 64 or more give zero.
        start = IPAddress(
            high: start.high & ~(UInt64.max >> UInt64(min(shift, 64))),
            low: start.low & ~(UInt64.max >> UInt64(max(shift - 64, 0))))
        let meant = Prefix(start, length: shift).map { "write `\($0)` for the network, or " } ?? ""
        throw ValueProblem(
            message: "\(quoted(text)) has bits set behind its length",
            help: "\(meant)`\(head)/\(width)` for the host alone")
    }

    /// `[ADDR]:PORT` or `ADDR:PORT`, port 1...65535.
    static func endpoint(_ text: String) throws(ValueProblem) -> Endpoint {
        let form = "an address and a port like `[::]:443` or `192.0.2.1:443`"
        if let endpoint = Endpoint(text) {
            guard endpoint.port > 0 else {
                throw ValueProblem(message: "\(quoted(text)) has port 0", expected: "a port from 1 to 65535")
            }
            return endpoint
        }
        throw ValueProblem(
            message: "\(quoted(text)) is no address with a port", expected: form, help: endpointHelp(text))
    }

    /// What the author of something like an endpoint probably meant.
    private static func endpointHelp(_ text: String) -> String? {
        let inner = text.hasPrefix("[") && text.hasSuffix("]") ? String(text.dropFirst().dropLast()) : text
        if IPAddress(inner) != nil { return "write `\(inner.contains(":") ? "[\(inner)]" : inner):PORT`" }
        let colon = text.lastIndex(of: ":")
        let host = colon.map { text[..<$0] } ?? ""
        let port = colon.map { text[text.index(after: $0)...] } ?? text[...]
        guard UInt16(port) != nil else {
            let isAddress = host.hasPrefix("[") || IPAddress(host) != nil
            return isAddress && !port.isEmpty && port.allSatisfy(\.isNumber) ? "a port is at most 65535" : nil
        }
        if host.isEmpty || host == "*" {
            return "write `[::]:\(port)` for IPv6, and a second line with `0.0.0.0:\(port)` for IPv4"
        }
        if !host.contains(":"), !host.hasPrefix("[") { return "names are not looked up: write the address" }
        return nil
    }

    /// `[::]` or `192.0.2.1`.
    static func listenAddress(_ text: String) throws(ValueProblem) -> IPAddress {
        let bracketed = text.hasPrefix("[") && text.hasSuffix("]") && text.count > 2
        let inner = bracketed ? String(text.dropFirst().dropLast()) : text
        guard let address = IPAddress(inner) else {
            throw ValueProblem(
                message: "\(quoted(text)) is no address", expected: "an address like `[::]` or `0.0.0.0`")
        }
        guard bracketed == inner.contains(":") else {
            throw ValueProblem(
                message: "\(quoted(text)): IPv6 addresses stand in brackets, IPv4 ones don't",
                help: "write `\(inner.contains(":") ? "[\(inner)]" : inner)`")
        }
        return address
    }

    /// `10000-19999`, or one port.
    static func ports(_ text: String) throws(ValueProblem) -> ClosedRange<UInt16> {
        let parts = text.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        guard let head = parts.first else { return try port(text)...port(text) }
        let first = try port(head)
        guard parts.count == 2 else { return first...first }
        let last = try port(parts[1])
        guard first <= last else {
            throw ValueProblem(message: "\(quoted(text)) runs backwards", help: "write `\(last)-\(first)`")
        }
        return first...last
    }

    /// A name that other lines refer to: a letter, then letters, digits, `_`, `-`, `.`; at most 64.
    static func name(_ text: String, what: String) throws(ValueProblem) -> String {
        let isLetter = { (c: UInt8) in (c | 0x20) >= 0x61 && (c | 0x20) <= 0x7A }
        let rest = { (c: UInt8) in isLetter(c) || (c >= 0x30 && c <= 0x39) || c == 0x5F || c == 0x2D || c == 0x2E }
        guard let first = text.utf8.first, isLetter(first), text.utf8.allSatisfy(rest), text.utf8.count <= 64 else {
            throw ValueProblem(
                message: "\(quoted(text)) is no name for a \(what)",
                expected: "a letter, then letters, digits, `_`, `-` or `.`, at most 64")
        }
        return text
    }
}
