/// Why a word is not a valid value.
public struct ValueProblem: Error, Sendable {
    public let message: String
    /// Shown beside the underline: what was expected.
    public var expected: String?
    /// What to write instead.
    public var help: String?
    /// For a whole line: the word to point at; nil: the last.
    public var word: String?
    /// The author may have meant another alternative, which is as likely.
    public var mayBeOther: Bool

    public init(
        message: String, expected: String? = nil, help: String? = nil, word: String? = nil, mayBeOther: Bool = false
    ) {
        self.mayBeOther = mayBeOther
        self.message = message
        self.expected = expected
        self.help = help
        self.word = word
    }
}

/// Numbers with units, written one way: a whole number and a unit without a space.
public enum Unit {
    public static let durations: [(name: String, factor: UInt64)] = [
        ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000),
    ]
    public static let sizes: [(name: String, factor: UInt64)] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
    public static let counts: [(name: String, factor: UInt64)] = [("M", 1_000_000), ("k", 1000)]

    /// Common foreign units, and ours.
    public static let habits: [String: String] = [
        "sec": "s", "secs": "s", "second": "s", "seconds": "s", "msec": "ms", "millis": "ms", "min": "m",
        "mins": "m", "minutes": "m", "hour": "h", "hours": "h", "hr": "h", "b": "", "k": "KiB", "kb": "KiB",
        "kib": "KiB", "m": "MiB", "mb": "MiB", "mib": "MiB", "g": "GiB", "gb": "GiB", "gib": "GiB",
    ]

    /// The largest unit that divides `value`, without one where none does.
    public static func write(_ value: UInt64, _ units: [(name: String, factor: UInt64)]) -> String {
        guard value != 0, let unit = units.first(where: { value % $0.factor == 0 }) else { return String(value) }
        return "\(value / unit.factor)\(unit.name)"
    }
}

extension TimeSpan {
    /// In the language's form: `3s`, `200ms`.
    public var configText: String {
        nanoseconds % 1_000_000 == 0 && nanoseconds != 0
            ? Unit.write(nanoseconds, Unit.durations) : (nanoseconds == 0 ? "0s" : "\(nanoseconds)ns")
    }
}

/// A size as the language writes it: `16KiB`, `8000`.
public func sizeText(_ bytes: UInt64) -> String { Unit.write(bytes, Unit.sizes) }
/// A count as the language writes it: `10k`.
public func countText(_ count: UInt64) -> String { Unit.write(count, Unit.counts) }

/// Parsers of single config words. Each throws what is wrong with the word.
public enum ConfigValue {
    public static func duration(_ text: String, _ range: ClosedRange<TimeSpan>) throws(ValueProblem) -> TimeSpan {
        let kind = "a duration from \(range.lowerBound.configText) to \(range.upperBound.configText)"
        let value = try number(text, Unit.durations, kind: kind, bare: false, example: "`500ms`, `3s`, `5m` or `1h`")
        let span = TimeSpan(nanoseconds: value)
        guard range.contains(span) else { throw outOfRange(text, kind) }
        return span
    }

    public static func size(_ text: String, _ range: ClosedRange<UInt64>) throws(ValueProblem) -> UInt64 {
        let kind = "a size from \(sizeText(range.lowerBound)) to \(sizeText(range.upperBound))"
        let value = try number(text, Unit.sizes, kind: kind, bare: true, example: "`8192`, `16KiB` or `1MiB`")
        guard range.contains(value) else { throw outOfRange(text, kind) }
        return value
    }

    public static func count(_ text: String, _ range: ClosedRange<UInt64>) throws(ValueProblem) -> UInt64 {
        let kind = "a number from \(countText(range.lowerBound)) to \(countText(range.upperBound))"
        let value = try number(text, Unit.counts, kind: kind, bare: true, example: "`400`, `10k` or `1M`")
        guard range.contains(value) else { throw outOfRange(text, kind) }
        return value
    }

    /// `0xE0` or `224`.
    public static func byte(_ text: String, _ range: ClosedRange<UInt8>, what: String) throws(ValueProblem) -> UInt8 {
        let kind = "a \(what) from \(byteText(range.lowerBound)) to \(byteText(range.upperBound))"
        let isHex = text.hasPrefix("0x")
        let digits = isHex ? text.dropFirst(2) : text[...]
        guard let byte = UInt8(digits, radix: isHex ? 16 : 10), !digits.hasPrefix("+"), isHex || String(byte) == text
        else {
            throw ValueProblem(
                message: "\(quoted(text)) is not a \(what)", expected: kind,
                help: "write it like `\(byteText(range.lowerBound))` or `\(range.lowerBound)`")
        }
        guard range.contains(byte) else { throw outOfRange(text, kind) }
        return byte
    }

    /// `0xE0`.
    public static func byteText(_ byte: UInt8) -> String {
        let digits = String(byte, radix: 16, uppercase: true)
        return "0x" + (digits.count == 1 ? "0" : "") + digits
    }

    /// 1...65535, without unit.
    public static func port(_ text: some StringProtocol) throws(ValueProblem) -> UInt16 {
        guard let port = UInt16(text), port > 0, String(port) == text else {
            throw ValueProblem(message: "\(quoted(String(text))) is not a port", expected: "a number from 1 to 65535")
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
            message: "\(quoted(text)) is not a \(bare ? "number" : "duration")", expected: kind,
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

    /// `10%`, a whole number.
    public static func percent(_ text: String, _ range: ClosedRange<UInt8>) throws(ValueProblem) -> UInt8 {
        let digits = text.dropLast()
        guard text.hasSuffix("%"), let value = UInt8(digits), String(value) == digits, range.contains(value) else {
            throw ValueProblem(
                message: "\(quoted(text)) is not a percentage from \(range.lowerBound)% to \(range.upperBound)%",
                expected: "a whole number and `%`, like `10%`")
        }
        return value
    }

    /// `500/s`.
    public static func perSecond(_ text: String, _ range: ClosedRange<UInt64>) throws(ValueProblem) -> UInt64 {
        let kind = "a rate from \(countText(range.lowerBound))/s to \(countText(range.upperBound))/s"
        guard text.hasSuffix("/s") else {
            throw ValueProblem(
                message: "\(quoted(text)) is not a rate", expected: kind, help: "write it like `500/s`")
        }
        do throws(ValueProblem) {
            return try count(String(text.dropLast(2)), range)
        } catch {
            throw ValueProblem(
                message: "\(quoted(text)): \(error.message)", expected: kind, help: "write it like `500/s`")
        }
    }
}

extension ValueKind {
    public static func percent(_ range: ClosedRange<UInt8>) -> ValueKind {
        ValueKind(
            "PERCENT", expected: "a percentage like `10%`", range: "\(range.lowerBound)%–\(range.upperBound)%"
        ) { text throws(ValueProblem) in .count(UInt64(try ConfigValue.percent(text, range))) }
    }

    public static func perSecond(_ range: ClosedRange<UInt64>, like example: String) -> ValueKind {
        ValueKind(
            "RATE", expected: "a rate like `\(example)`",
            range: "\(countText(range.lowerBound))/s–\(countText(range.upperBound))/s"
        ) { text throws(ValueProblem) in .count(try ConfigValue.perSecond(text, range)) }
    }

    /// An absolute path of at most `limit` bytes, for the line or setting `keyword`.
    public static func path(_ keyword: String, of what: String, like example: String, limit: Int = 4000) -> ValueKind {
        ValueKind("PATH", expected: "the path of a \(what), like `\(example)`") { text throws(ValueProblem) in
            guard text.hasPrefix("/"), !text.hasSuffix("/"), text.utf8.count <= limit else {
                throw ValueProblem(
                    message: "`\(keyword)` takes an absolute path", expected: "a \(what) like `\(example)`")
            }
            return .text(text)
        }
    }
}
