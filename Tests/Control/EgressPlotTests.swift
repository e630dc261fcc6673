import Foundation
import Pipeline
import PipelineFlows
import PipelineLedger
import Testing

@testable import PipelineInspect

@Suite("egress report --plot: the picture")
struct EgressPlotTests {
    private typealias Volume = ReportSeries.Volume
    private let start = 1_790_000_000 / 86400 * 86400 as Int64

    private func series(_ by: [ReportGroup], _ rows: [(ReportRow?, [Int64: Volume])], step: Int64 = 3600) -> String {
        EgressPlot(
            ReportSeries(
                ReportQuestion(by: by, from: start, to: start + 86400, now: start + 86400), step: step, from: start,
                to: start + 86400, lines: rows.map { ReportSeries.Line($0, $1) })
        ).svg
    }

    @Test("it has every group's area in both directions, totals in the legend, and no name that is markup")
    func groups() {
        let owners = [
            FlowNames(env: "prod", app: "shop", org: "acme"), FlowNames(env: "e", app: "a", org: "<b>&\u{7}"),
            FlowNames(),
        ]
        var rows: [(ReportRow?, [Int64: Volume])] = owners.map {
            (ReportRow($0), [start: Volume(out: 1 << 20, into: 2 << 30), start + 7200: Volume(out: 1 << 20)])
        }
        rows.append((nil, [start: Volume(out: 5, into: 6)]))
        let svg = series([.env], rows)
        #expect(svg.hasPrefix("<svg ") && svg.hasSuffix("</svg>\n"))
        #expect(svg.contains(">Bytes per hour, by env (UTC)<") && !svg.contains("<b>"))
        for name in ["acme/shop/prod", "&lt;b&gt;&amp;\u{FFFD}/a/e", "(unknown)", LedgerReader.rest] {
            // Out, in, and the legend's tip.
            #expect(svg.components(separatedBy: "<title>\(name)</title>").count == 4, "\(name)")
            #expect(svg.components(separatedBy: ">\(name)<").count == 5, "\(name)")
        }
        for text in ["2.0 MiB", "2.0 GiB", "6.0 MiB", "6.0 GiB"] { #expect(svg.contains(">\(text)<"), "\(text)") }
        #expect(svg.contains("prefers-color-scheme: dark"))
        #expect(series([.env], []).contains("nothing was recorded"))
    }

    @Test("by instance, destination or port, areas are named by what they are")
    func names() {
        let owner = FlowNames(instance: "i_1", env: "prod", app: "shop", org: "acme")
        let row = ReportRow(
            owner, destination: IPAddress("2001:db8::1"), service: ReportService(port: 25, proto: 6))
        for (by, name) in [
            ([.instance, .port], "i_1 → 25/tcp"), ([.destination], "2001:db8::1"), ([.app], "acme/shop/prod"),
        ] as [([ReportGroup], String)] {
            #expect(series(by, [(row, [start: Volume(out: 1)])]).contains(">\(name)<"), "\(name)")
        }
    }

    @Test(
        "ticks are whole minutes, hours, days or weeks, and never too many",
        arguments: [60, 600, 3600, 7200, 6 * 3600, 86400, 3 * 86400, 30 * 86400, 400 * 86400, 4000 * 86400] as [Int64])
    func time(length: Int64) {
        for shift in [0, 1, 61, 3601, 50_000] as [Int64] {
            let range = start + shift..<start + shift + length
            let ticks = TimeAxis(range).ticks
            #expect((1...9).contains(ticks.count) || length <= 60, "\(ticks)")
            #expect(ticks.allSatisfy { range.contains($0) || $0 == range.upperBound })
            let step = ticks.count > 1 ? ticks[1] - ticks[0] : 60
            #expect(zip(ticks, ticks.dropFirst()).allSatisfy { $1 - $0 == step })
            let unit: Int64 = step >= 86400 ? 86400 : step >= 3600 ? 3600 : 60
            #expect(step % unit == 0 && ticks.allSatisfy { $0 % unit == 0 })
        }
        #expect(TimeAxis(start..<start + 86400).ticks == (0...8).map { start + $0 * 10_800 })
    }

    @Test("an axis of bytes ends just above the peak", arguments: [0, 1, 7, 1000, 1025, 3e6, 5e9, 1.1e12, 9e18])
    func bytes(peak: Double) {
        let axis = VolumeAxis(peak)
        #expect(axis.end >= peak && axis.ticks.last == axis.end)
        #expect(axis.ticks.count <= 6)
        // Nothing is drawn in the lower half of its room.
        if peak > 1 { #expect(axis.end <= peak * 1.7, "\(axis)") }
        #expect(Set(axis.ticks.dropFirst().map { axis.text($0).split(separator: " ").last }).count == 1)
        let gibibytes = VolumeAxis(3.5 * 0x1p30)
        #expect(gibibytes.ticks.map(gibibytes.text) == ["0", "0.8 GiB", "1.6 GiB", "2.4 GiB", "3.2 GiB", "4 GiB"])
    }
}
