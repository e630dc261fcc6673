/// Wall clock times as RFC 3339 in UTC, with milliseconds.
package enum Timestamp {
    /// Appends `2026-11-23T08:04:05.678Z`, 24 bytes.
    /// - Parameter nanoseconds: since 1970.
    package static func append(_ nanoseconds: UInt64, to bytes: inout [UInt8]) {
        let seconds = nanoseconds / 1_000_000_000
        let (year, month, day) = date(daysSince1970: seconds / 86400)
        let time = seconds % 86400
        digits(year, 4, &bytes)
        bytes.append(UInt8(ascii: "-"))
        digits(month, 2, &bytes)
        bytes.append(UInt8(ascii: "-"))
        digits(day, 2, &bytes)
        bytes.append(UInt8(ascii: "T"))
        digits(time / 3600, 2, &bytes)
        bytes.append(UInt8(ascii: ":"))
        digits(time / 60 % 60, 2, &bytes)
        bytes.append(UInt8(ascii: ":"))
        digits(time % 60, 2, &bytes)
        bytes.append(UInt8(ascii: "."))
        digits(nanoseconds / 1_000_000 % 1000, 3, &bytes)
        bytes.append(UInt8(ascii: "Z"))
    }

    package static func text(_ nanoseconds: UInt64) -> String {
        var bytes: [UInt8] = []
        append(nanoseconds, to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The Gregorian date, by eras of 400 years that begin on 1 March, so that the leap day is the last of a year.
    private static func date(daysSince1970 days: UInt64) -> (year: UInt64, month: UInt64, day: UInt64) {
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

    private static func digits(_ value: UInt64, _ width: Int, _ bytes: inout [UInt8]) {
        var divisor: UInt64 = width == 4 ? 1000 : (width == 3 ? 100 : 10)
        while divisor > 0 {
            bytes.append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: value / divisor % 10))
            divisor /= 10
        }
    }
}
