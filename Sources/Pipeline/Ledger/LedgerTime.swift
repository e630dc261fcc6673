import PipelineText

/// Times of reports: UTC, to the second.
package enum LedgerTime {
    /// `2026-11-25T03:00:00Z`, `2026-11-25 03:00`, `2026-11-25`; or how long ago: `30m`, `24h`, `7d`; or `now`.
    /// - Returns: seconds since 1970; nil if it is none of them.
    package static func parse(_ text: String, now: Int64) -> Int64? {
        if text == "now" { return now }
        let units: [(Character, Int64)] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86400), ("w", 7 * 86400)]
        if let unit = units.first(where: { $0.0 == text.last }), let count = number(text.dropLast(), 1...5) {
            return now - count * unit.1
        }
        return date(text)
    }

    private static func number(_ text: Substring, _ digits: ClosedRange<Int>) -> Int64? {
        guard digits.contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return Int64(text)
    }

    private static func date(_ text: String) -> Int64? {
        let whole = text.hasSuffix("Z") ? text.dropLast() : text[...]
        let parts = whole.split(omittingEmptySubsequences: false) { $0 == "T" || $0 == " " }
        let day = parts.first?.split(separator: "-", omittingEmptySubsequences: false) ?? []
        guard parts.count <= 2, day.count == 3, let year = number(day[0], 4...4), let month = number(day[1], 2...2),
            let date = number(day[2], 2...2), (1970...9999).contains(year), (1...12).contains(month),
            (1...31).contains(date)
        else { return nil }
        let days = dayNumber(year, month, date)
        // From 1970 on, so there are no days before.
        guard Timestamp.date(daysSince1970: UInt64(clamping: days)) == (UInt64(year), UInt64(month), UInt64(date))
        else {
            return nil
        }
        guard parts.count == 2 else { return whole.endIndex == text.endIndex ? days * 86400 : nil }
        let clock = parts[1].split(separator: ":", omittingEmptySubsequences: false)
        guard (2...3).contains(clock.count), let hour = number(clock[0], 2...2), let minute = number(clock[1], 2...2),
            let second = clock.count == 3 ? number(clock[2], 2...2) : 0, hour < 24, minute < 60, second < 60
        else { return nil }
        return days * 86400 + hour * 3600 + minute * 60 + second
    }

    /// Days since 1970 of a date (proleptic Gregorian; the year begins in March, so that February is last).
    private static func dayNumber(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
        let y = month <= 2 ? year - 1 : year
        let era = y / 400
        let ofEra = y - era * 400
        let ofYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + ofEra * 365 + ofEra / 4 - ofEra / 100 + ofYear - 719_468
    }

    /// `2026-11-25T03:00:00Z`. Times before 1970 read as 1970.
    package static func text(_ time: Int64) -> String { Timestamp.text(seconds: UInt64(clamping: time)) }
}
