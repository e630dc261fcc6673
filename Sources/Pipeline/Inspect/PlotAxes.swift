import PipelineLedger

/// Ticks at whole hours or days, as many as can be read.
struct TimeAxis {
    private static let most = 9
    /// Steps from a minute to a year; weeks begin on Mondays.
    private static let steps: [Int64] = [
        60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86400, 2 * 86400, 7 * 86400, 14 * 86400,
        28 * 86400, 91 * 86400, 182 * 86400, 364 * 86400, 728 * 86400, 3640 * 86400,
    ]
    private static let monday: Int64 = 4 * 86400

    let ticks: [Int64]
    private let step: Int64

    init(_ range: Range<Int64>) {
        var (found, ticks) = (TimeAxis.steps[0], [Int64]())
        for step in TimeAxis.steps {
            let offset = step >= 7 * 86400 ? TimeAxis.monday : 0
            let first = range.lowerBound + ((offset - range.lowerBound) % step + step) % step
            ticks = Array(stride(from: first, through: range.upperBound, by: Int(step)).prefix(TimeAxis.most + 1))
            found = step
            if ticks.count <= TimeAxis.most { break }
        }
        (self.ticks, step) = (ticks, found)
    }

    /// The time of day, and the day where it begins; or the day alone.
    func labels(_ x: (Int64) -> Double, y: Double) -> String {
        var out = ""
        for (place, tick) in ticks.enumerated() {
            let text = LedgerTime.text(tick)
            let (day, clock) = (text.prefix(10), text.dropFirst(11).prefix(5))
            let isDay = step >= 86400
            out += label(isDay ? day : clock, x(tick), y, "ink")
            if !isDay, place == 0 || tick % 86400 == 0 { out += label(day, x(tick), y + 16, "faint") }
        }
        return out
    }

    private func label(_ text: Substring, _ x: Double, _ y: Double, _ kind: String) -> String {
        "<text class=\"\(kind)\" x=\"\(svg: x)\" y=\"\(svg: y)\" text-anchor=\"middle\">\(text)</text>\n"
    }
}

/// Ticks of round numbers of bytes, the last one just above what there is, all in one unit.
struct VolumeAxis {
    let end: Double
    let ticks: [Double]
    private let unit: Double
    private let name: String

    private static let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    /// In the unit of the peak; three to five of one of them make up any number.
    private static let steps: [Double] = [
        0.2, 0.4, 0.5, 0.8, 1, 2, 3, 4, 5, 8, 10, 15, 20, 25, 30, 40, 50, 80, 100, 120, 160, 200, 256,
    ]

    /// More than any number of bytes is drawn as that.
    private static let most = 1280 * 0x1p60

    init(_ peak: Double) {
        let peak = min(max(0, peak), VolumeAxis.most)
        var (unit, place) = (1.0, 0)
        while unit * 1024 <= peak, place + 1 < VolumeAxis.units.count { (unit, place) = (unit * 1024, place + 1) }
        (self.unit, name) = (unit, VolumeAxis.units[place])
        let step = unit * (VolumeAxis.steps.first { $0 * unit * 5 >= peak && (place > 0 || $0 >= 1) } ?? 256)
        let count = max(1, Int((peak / step).rounded(.up)))
        end = step * Double(count)
        ticks = (0...count).map { Double($0) * step }
    }

    /// `40 MiB`, `0.8 GiB`.
    func text(_ tick: Double) -> String {
        let tenths = Int64((tick / unit * 10).rounded())
        return tenths == 0 ? "0" : "\(tenths / 10)\(tenths % 10 == 0 ? "" : ".\(tenths % 10)") \(name)"
    }
}

extension DefaultStringInterpolation {
    /// A coordinate, to a hundredth.
    mutating func appendInterpolation(svg value: Double) {
        let hundredths = Int64((value * 100).rounded())
        let digits = String(hundredths % 100 + 100).dropFirst()
        appendInterpolation(hundredths % 100 == 0 ? "\(hundredths / 100)" : "\(hundredths / 100).\(digits)")
    }
}
