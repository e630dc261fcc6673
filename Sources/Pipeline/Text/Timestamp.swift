import Pipeline

/// Wall clock times as RFC 3339 in UTC.
package enum Timestamp {
    /// Appends `2026-11-23T08:04:05.678Z`, 24 bytes.
    /// - Parameter nanoseconds: since 1970.
    package static func append(_ nanoseconds: UInt64, to bytes: inout [UInt8]) {
        append(seconds: nanoseconds / 1_000_000_000, to: &bytes)
        bytes.append(UInt8(ascii: "."))
        Digits.append(nanoseconds / 1_000_000 % 1000, width: 3, to: &bytes)
        bytes.append(UInt8(ascii: "Z"))
    }

    /// `2026-11-23T08:04:05`.
    private static func append(seconds: UInt64, to bytes: inout [UInt8]) {
        let (year, month, day) = date(daysSince1970: seconds / 86400)
        let time = seconds % 86400
        Digits.append(year, width: 4, to: &bytes)
        for (separator, value) in [
            ("-", month), ("-", day), ("T", time / 3600), (":", time / 60 % 60), (":", time % 60),
        ] as [(Unicode.Scalar, UInt64)] {
            bytes.append(UInt8(ascii: separator))
            Digits.append(value, width: 2, to: &bytes)
        }
    }

    /// `2026-11-23T08:04:05Z`.
    package static func text(seconds: UInt64) -> String {
        var bytes: [UInt8] = []
        append(seconds: seconds, to: &bytes)
        bytes.append(UInt8(ascii: "Z"))
        return String(decoding: bytes, as: UTF8.self)
    }

    package static func text(_ nanoseconds: UInt64) -> String {
        var bytes: [UInt8] = []
        append(nanoseconds, to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The Gregorian date, by eras of 400 years that begin on 1 March, so that the leap day is the last of a year.
    package static func date(daysSince1970 days: UInt64) -> (year: UInt64, month: UInt64, day: UInt64) {
        let shifted = days + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let march = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * march + 2) / 5 + 1
        let month = march < 10 ? march + 3 : march - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day)
    }
}
