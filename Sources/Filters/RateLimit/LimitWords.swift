import Pipeline
import PipelineLimits

/// Parsers of words that only `limit` blocks use.
enum LimitWords {
    private static let periods: [(name: String, span: TimeSpan)] = [
        ("s", .seconds(1)), ("m", .seconds(60)), ("h", .seconds(3600)),
    ]
    /// Units of a byte rate, in bytes a second. Bits count by thousands, as links do.
    private static let byteRates: [(name: String, factor: UInt64)] = [
        ("GiB/s", 1 << 30), ("MiB/s", 1 << 20), ("KiB/s", 1 << 10), ("Gbit/s", 125_000_000), ("Mbit/s", 125_000),
        ("kbit/s", 125),
    ]
    /// 1 KiB/s to 100 Gbit/s.
    private static let byteRateRange: ClosedRange<UInt64> = 1000...12_500_000_000

    /// `200/s`, `30/m`, `1k/h`.
    static func connectionRate(_ text: String) throws(ValueProblem) -> (count: UInt64, period: TimeSpan) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        let expected = "a rate like `200/s`, `30/m` or `100/h`"
        guard parts.count == 2 else {
            let isNumber = !text.isEmpty && text.allSatisfy { $0.isASCII && $0.isNumber }
            throw ValueProblem(
                message: "\(quoted(text)) is not a rate", expected: expected,
                help: isNumber ? "write `\(text)/s` for a rate per second" : nil)
        }
        guard let period = periods.first(where: { $0.name == parts[1] }) else {
            let habit = Unit.habits[parts[1].lowercased()].flatMap { name in periods.first { $0.name == name } }
            throw ValueProblem(
                message: "\(quoted(text)) has an unknown period", expected: "`/s`, `/m` or `/h`",
                help: habit.map { "did you mean `\(parts[0])/\($0.name)`?" })
        }
        return (try ConfigValue.count(String(parts[0]), 1...1_000_000), period.span)
    }

    /// `10Mbit/s`, `5MiB/s`: bytes a second.
    static func byteRate(_ text: String) throws(ValueProblem) -> UInt64 {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let suffix = text.dropFirst(digits.count)
        let expected = "a byte rate like `10Mbit/s` or `5MiB/s`"
        guard let unit = byteRates.first(where: { $0.name == suffix }), !digits.isEmpty else {
            let near = byteRates.first { $0.name.lowercased() == suffix.lowercased() }
            throw ValueProblem(
                message: "\(quoted(text)) is not a byte rate", expected: expected,
                help: near.map { "did you mean `\(digits)\($0.name)`?" }
                    ?? "units: \(byteRates.map { "`\($0.name)`" }.joined(separator: " "))")
        }
        guard !digits.hasPrefix("0"), let number = UInt64(digits),
            case (let bytes, let overflow) = number.multipliedReportingOverflow(by: unit.factor), !overflow,
            byteRateRange.contains(bytes)
        else {
            throw ValueProblem(message: "\(quoted(text)) is out of range", expected: "`8kbit/s` to `100Gbit/s`")
        }
        return bytes
    }

    /// `client/64` or `v4/24`: the length behind the `/`.
    static func prefixLength(_ text: Substring, in word: String, _ range: ClosedRange<UInt8>) throws(ValueProblem)
        -> UInt8
    {
        guard let length = UInt8(text), String(length) == text, range.contains(length) else {
            throw ValueProblem(
                message: "\(quoted(word)) has no prefix length",
                expected: "a number from \(range.lowerBound) to \(range.upperBound) after `/`")
        }
        return length
    }

    static let keys: [(name: String, key: LimitKey)] = [
        ("connection", .connection), ("env", .env), ("instance", .instance), ("listener", .listener), ("org", .org),
        ("route", .route),
    ]

    /// `client`, `client/N`: the length of IPv6 networks; or one of ``keys``.
    static let key = ValueKind(
        "client[/N]|" + keys.map(\.name).joined(separator: "|"),
        expected: "`client/64` or " + orList(keys.map { "`\($0.name)`" }), range: "N: 1–128",
        candidates: ["client/64"] + keys.map(\.name)
    ) { text throws(ValueProblem) in
        if let plain = keys.first(where: { $0.name == text }) { return .custom(plain.key) }
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.first == "client" else {
            throw ValueProblem(
                message: "\(quoted(text)) is not a key",
                expected: "`client/64` or " + orList(keys.map { "`\($0.name)`" }))
        }
        let length = parts.count > 1 ? try prefixLength(parts[1], in: text, 1...128) : 64
        return .custom(LimitKey.client(v6: length, v4: 32))
    }

    /// `v4/M`: the length of IPv4 networks.
    static let v4 = ValueKind("v4/M", expected: "`v4/LENGTH`", range: "M: 1–32") {
        text throws(ValueProblem) in
        guard text.hasPrefix("v4/") else {
            throw ValueProblem(
                message: "unexpected \(quoted(text))", expected: "`v4/LENGTH`", mayBeOther: true)
        }
        return .count(UInt64(try prefixLength(text.dropFirst(3), in: text, 1...32)))
    }

    static let connections = ValueKind("N/s|N/m|N/h", expected: "a rate like `200/s`", range: "N: 1–1M") {
        text throws(ValueProblem) in
        let (count, period) = try connectionRate(text)
        return .custom(ConnectionRate(count: count, period: period))
    }

    static let bytes = ValueKind("RATE", expected: "a byte rate like `10Mbit/s`", range: "8kbit/s–100Gbit/s") {
        text throws(ValueProblem) in .custom(ByteRate(bytesPerSecond: try byteRate(text)))
    }

    static func text(_ rate: ConnectionRate) -> String {
        "\(textWithoutBurst(rate)) burst \(countText(rate.burst))"
    }

    static func textWithoutBurst(_ rate: ConnectionRate) -> String {
        "\(countText(rate.count))/\(periods.first { $0.span == rate.period }?.name ?? rate.period.configText)"
    }

    static func text(_ rate: ByteRate) -> String {
        let unit = byteRates.first { rate.bytesPerSecond % $0.factor == 0 }
        let value = unit.map { "\(rate.bytesPerSecond / $0.factor)\($0.name)" } ?? "\(rate.bytesPerSecond) bytes/s"
        return "\(value) burst \(sizeText(rate.burst))"
    }

    static func text(_ key: LimitKey) -> String {
        if case .client(let v6, let v4) = key { return "client/\(v6) v4/\(v4)" }
        return keys.first { $0.key == key }?.name ?? ""
    }
}
