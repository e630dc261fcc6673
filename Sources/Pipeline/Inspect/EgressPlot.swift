import Pipeline
import PipelineLedger
import PipelineText

/// Volume over time as a self-contained SVG: sent by instances above, received below, each stacked by group with its
/// own axis. Supports dark mode.
package struct EgressPlot {
    /// One direction.
    struct Panel {
        let title: String
        package let top: Double
        let bottom: Double
        package let of: (ReportSeries.Volume) -> Int64
    }

    private let series: ReportSeries
    private let times: [Int64]
    private let panels = [
        Panel(title: "OUT", top: 58, bottom: 258, of: \.out), Panel(title: "IN", top: 300, bottom: 500, of: \.into),
    ]
    package static let left = 86.0
    package static let right = 730.0
    /// Okabe and Ito's, which people with any kind of colour vision tell apart, and which read on white as on black; grey
    /// for the rest.
    private static let colours = [
        "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#C9B800", "#A6761D",
    ]
    private static let restColour = "#8C8C8C"

    package init(_ series: ReportSeries) {
        self.series = series
        let end = max(series.to, series.from + series.step)
        // Bounded, so that the picture stays small.
        times = Array(stride(from: series.from, to: end, by: Int(series.step)).prefix(4000))
    }

    /// Up to the end of the last step that is drawn.
    private var range: Range<Int64> { series.from..<(times.last ?? series.from) + series.step }

    package var svg: String {
        let axis = TimeAxis(range)
        var out = """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1180 560" font-family="sans-serif" font-size="12">
            <style>
            .page { fill: #fff } .ink { fill: #222 } .faint { fill: #666 } .grid { stroke: #ddd } .axis { stroke: #555 }
            @media (prefers-color-scheme: dark) {
            .page { fill: #16181c } .ink { fill: #e8e8e8 } .faint { fill: #a8adb4 } .grid { stroke: #33373d }
            .axis { stroke: #8b9097 }
            }
            </style>
            <rect class="page" width="1180" height="560"/>
            <text class="ink" x="86" y="24" font-size="15">\(escaped(title))</text>\n
            """
        for panel in panels { out += draw(panel, axis) }
        out += axis.labels(x, y: (panels.last?.bottom ?? 0) + 18)
        if series.lines.isEmpty {
            out += "<text class=\"faint\" x=\"408\" y=\"160\" text-anchor=\"middle\">nothing was recorded</text>\n"
        } else {
            out += legend
        }
        return out + "</svg>\n"
    }

    private var title: String {
        let step = [60: "minute", 3600: "hour"][series.step] ?? "day"
        let by = series.question.by.map(\.rawValue).joined(separator: " and ")
        return "Bytes per \(step), by \(by)\(series.question.filterText) (UTC)"
    }

    // MARK: One direction

    private func draw(_ panel: Panel, _ axis: TimeAxis) -> String {
        let peak =
            times.map { time in
                series.lines.reduce(0.0) { $0 + Double(panel.of($1.volumes[time] ?? ReportSeries.Volume())) }
            }.max() ?? 0
        let scale = VolumeAxis(peak)
        var out = "<text class=\"ink\" x=\"\(svg: EgressPlot.left)\" y=\"\(svg: panel.top - 8)\">"
        out += "\(panel.title)</text>\n"
        for tick in scale.ticks {
            let y = panel.bottom - tick / scale.end * (panel.bottom - panel.top)
            out += "<path class=\"grid\" d=\"M\(svg: EgressPlot.left) \(svg: y)H\(svg: EgressPlot.right)\"/>"
            out += "<text class=\"ink\" x=\"\(svg: EgressPlot.left - 6)\" y=\"\(svg: y + 4)\" text-anchor=\"end\">"
            out += "\(scale.text(tick))</text>\n"
        }
        for tick in axis.ticks {
            out += "<path class=\"grid\" d=\"M\(svg: x(tick)) \(svg: panel.top)V\(svg: panel.bottom)\"/>\n"
        }
        out += areas(panel, scale.end)
        let (top, bottom) = ("\(svg: panel.top)", "\(svg: panel.bottom)")
        out += "<path class=\"axis\" d=\"M\(svg: EgressPlot.left) \(top)V\(bottom)H\(svg: EgressPlot.right)\" "
        out += "fill=\"none\"/>\n"
        for tick in axis.ticks { out += "<path class=\"axis\" d=\"M\(svg: x(tick)) \(bottom)v5\"/>\n" }
        return out
    }

    private func x(_ time: Int64) -> Double {
        let share = Double(time - range.lowerBound) / Double(range.upperBound - range.lowerBound)
        return EgressPlot.left + share * (EgressPlot.right - EgressPlot.left)
    }

    private func areas(_ panel: Panel, _ end: Double) -> String {
        var base = [Double](repeating: 0, count: times.count)
        var out = ""
        for (place, line) in series.lines.enumerated() {
            var path = ""
            for (column, time) in times.enumerated() {
                let bytes = Double(panel.of(line.volumes[time] ?? ReportSeries.Volume()))
                guard bytes > 0 else { continue }
                let height = (panel.bottom - panel.top) / end
                let (low, high) = (panel.bottom - base[column] * height, panel.bottom - (base[column] + bytes) * height)
                base[column] += bytes
                path += "M\(svg: x(time)) \(svg: low)V\(svg: high)H\(svg: x(time + series.step))V\(svg: low)Z"
            }
            out += "<path fill=\"\(colour(place))\" d=\"\(path)\"><title>\(escaped(name(line)))</title></path>\n"
        }
        return out
    }

    // MARK: Legend

    private var legend: String {
        var out = "<text class=\"faint\" x=\"1090\" y=\"50\" text-anchor=\"end\">OUT</text>"
        out += "<text class=\"faint\" x=\"1168\" y=\"50\" text-anchor=\"end\">IN</text>\n"
        for (place, line) in series.lines.enumerated() {
            let y = 58 + Double(place) * 22
            out += "<rect x=\"748\" y=\"\(svg: y)\" width=\"12\" height=\"12\" fill=\"\(colour(place))\"/>"
            out += "<text class=\"ink\" x=\"766\" y=\"\(svg: y + 11)\">\(escaped(EgressPlot.cut(name(line))))"
            out += "<title>\(escaped(name(line)))</title></text>" + figures(line.total, y + 11)
        }
        let y = 58 + Double(series.lines.count) * 22 + 11
        out += "<text class=\"ink\" x=\"766\" y=\"\(svg: y)\" font-weight=\"bold\">total</text>"
        return out + figures(series.lines.reduce(ReportSeries.Volume()) { $0 + $1.total }, y)
    }

    private func figures(_ volume: ReportSeries.Volume, _ y: Double) -> String {
        "<text class=\"ink\" x=\"1090\" y=\"\(svg: y)\" text-anchor=\"end\">\(plainBytes(volume.out))</text>"
            + "<text class=\"ink\" x=\"1168\" y=\"\(svg: y)\" text-anchor=\"end\">\(plainBytes(volume.into))</text>\n"
    }

    /// An env by its path; else what the row is by, the finest first.
    private func name(_ line: ReportSeries.Line) -> String {
        guard let row = line.row else { return LedgerReader.rest }
        let by = series.question.by
        var parts: [String] = []
        if let owner = ReportColumns.of(by).first, owner.isOwner {
            let path = [row.owner.org, row.owner.app, row.owner.env].filter { !$0.isEmpty }.joined(separator: "/")
            let name = path.isEmpty ? ReportQuestion.unknown : path
            parts.append(owner == .instance ? ReportColumns.name(row, owner) : name)
        }
        parts += ReportColumns.of(by).filter { !$0.isOwner }.map { row.name($0) }
        return parts.joined(separator: " → ")
    }

    /// Cut in the middle, if it must be: both ends tell names apart.
    private static func cut(_ name: String) -> String {
        name.count <= 38 ? name : name.prefix(18) + "…" + name.suffix(19)
    }

    private func colour(_ place: Int) -> String {
        series.lines[place].row == nil ? EgressPlot.restColour : EgressPlot.colours[place % EgressPlot.colours.count]
    }

    /// XML text: names come from desired state, and are not trusted.
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
