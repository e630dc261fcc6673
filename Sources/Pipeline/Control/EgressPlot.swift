import Pipeline
import PipelineLedger

/// Volume over time, stacked by env, as an SVG picture without script or style from elsewhere.
package struct EgressPlot {
    private let series: ReportSeries
    /// Where the axes are.
    private let left = 86.0
    private let top = 34.0
    private let right = 700.0
    private let bottom = 370.0
    /// Okabe and Ito's, which people with any kind of colour vision tell apart; grey for the rest.
    private static let colours = [
        "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000", "#999999",
    ]

    package init(_ series: ReportSeries) { self.series = series }

    package var svg: String {
        let steps = times
        let peak = steps.map { time in series.envs.reduce(0.0) { $0 + Double($1.bytes[time] ?? 0) } }.max() ?? 0
        let scale = EgressPlot.round(up: max(peak, 1))
        var out = """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1040 420" font-family="sans-serif" font-size="12">
            <rect width="1040" height="420" fill="#fff"/>
            <text x="86" y="20" font-size="14">Egress and answers, bytes per \(stepName), by env (UTC)</text>\n
            """
        for tick in 0...4 { out += yTick(Double(tick) / 4, scale) }
        out += areas(steps, scale)
        out += "<path d=\"M\(left) \(top)V\(bottom)H\(right)\" fill=\"none\" stroke=\"#333\"/>\n"
        for tick in 0...4 { out += xTick(Double(tick) / 4) }
        for (place, env) in series.envs.enumerated() { out += legend(place, env.env) }
        if series.envs.isEmpty {
            out += "<text x=\"393\" y=\"200\" text-anchor=\"middle\" fill=\"#666\">nothing was recorded</text>\n"
        }
        return out + "</svg>\n"
    }

    private var stepName: String {
        switch series.step {
        case 60: "minute"
        case 3600: "hour"
        default: "day"
        }
    }

    /// The beginnings of all steps; at most so many that a picture stays small.
    private var times: [Int64] {
        Array(
            stride(from: series.from, to: max(series.to, series.from + series.step), by: Int(series.step)).prefix(4000))
    }

    private func areas(_ steps: [Int64], _ scale: Double) -> String {
        let slot = (right - left) / Double(max(1, steps.count))
        var base = [Double](repeating: 0, count: steps.count)
        var out = ""
        for (place, env) in series.envs.enumerated() {
            var path = ""
            for (column, time) in steps.enumerated() {
                let bytes = Double(env.bytes[time] ?? 0)
                guard bytes > 0 else { continue }
                let high = bottom - (base[column] + bytes) / scale * (bottom - top)
                let low = bottom - base[column] / scale * (bottom - top)
                base[column] += bytes
                let x = left + Double(column) * slot
                path += "M\(number(x)) \(number(low))V\(number(high))H\(number(x + slot))V\(number(low))Z"
            }
            out +=
                "<path fill=\"\(colour(place))\" d=\"\(path)\"><title>\(escaped(EgressPlot.name(env.env)))</title></path>\n"
        }
        return out
    }

    private func yTick(_ share: Double, _ scale: Double) -> String {
        let y = bottom - share * (bottom - top)
        return "<path d=\"M\(left) \(number(y))H\(right)\" stroke=\"#ddd\"/>"
            + "<text x=\"\(left - 6)\" y=\"\(number(y + 4))\" text-anchor=\"end\">\(plainBytes(Int64(share * scale)))</text>\n"
    }

    private func xTick(_ share: Double) -> String {
        let x = left + share * (right - left)
        let time = LedgerTime.text(
            series.from + Int64(share * Double(max(series.to, series.from + series.step) - series.from)))
        let (day, clock) = (time.prefix(10), time.dropFirst(11).prefix(5))
        return "<path d=\"M\(number(x)) \(bottom)v5\" stroke=\"#333\"/>"
            + "<text x=\"\(number(x))\" y=\"\(bottom + 18)\" text-anchor=\"middle\">\(clock)</text>"
            + "<text x=\"\(number(x))\" y=\"\(bottom + 33)\" text-anchor=\"middle\" fill=\"#666\">\(day)</text>\n"
    }

    private func legend(_ place: Int, _ env: EnvName?) -> String {
        let y = top + Double(place) * 20
        return "<rect x=\"716\" y=\"\(number(y))\" width=\"12\" height=\"12\" fill=\"\(colour(place))\"/>"
            + "<text x=\"734\" y=\"\(number(y + 11))\">\(escaped(EgressPlot.label(env)))"
            + "<title>\(escaped(EgressPlot.name(env)))</title></text>\n"
    }

    private static func name(_ env: EnvName?) -> String {
        guard let env else { return LedgerReader.rest }
        return env.isUnknown ? "(unknown)" : env.path
    }

    /// Cut in the middle, if it must be: both ends tell envs apart.
    private static func label(_ env: EnvName?) -> String {
        let name = name(env)
        return name.count <= 44 ? name : name.prefix(21) + "…" + name.suffix(22)
    }

    private func colour(_ place: Int) -> String {
        series.envs[place].env == nil
            ? "#999999" : EgressPlot.colours[place % EgressPlot.colours.count]
    }

    /// 1, 2 or 4 times a power of 1024 or of 2 within it: so that quarters of it read well.
    private static func round(up value: Double) -> Double {
        var unit = 1.0
        while unit * 1024 <= value { unit *= 1024 }
        for factor in [4.0, 8, 20, 40, 80, 200, 400, 800, 1024] where unit * factor >= value { return unit * factor }
        return unit * 4096
    }

    private func number(_ value: Double) -> String {
        let hundredths = Int64((value * 100).rounded())
        let digits = String(hundredths % 100 + 100).dropFirst()
        return hundredths % 100 == 0 ? "\(hundredths / 100)" : "\(hundredths / 100).\(digits)"
    }

    /// XML text: names come from whoever writes desired state.
    private func escaped(_ text: String) -> String {
        text.unicodeScalars.reduce(into: "") { out, scalar in
            switch scalar {
            case "<": out += "&lt;"
            case ">": out += "&gt;"
            case "&": out += "&amp;"
            case "\"": out += "&quot;"
            case "\u{20}"..."\u{7E}", "\u{A0}"..."\u{D7FF}", "\u{E000}"..."\u{FFFD}": out.unicodeScalars.append(scalar)
            default: out += "\u{FFFD}"
            }
        }
    }
}
