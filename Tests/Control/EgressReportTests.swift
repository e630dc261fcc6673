import Foundation
import Pipeline
import PipelineLedger
import Testing

@testable import PipelineControl

@Suite("egress report: what people and programs read")
struct EgressReportTests {
    private let report = Report(
        group: .env, from: 1_790_000_000 / 86400 * 86400, to: 1_790_000_000 / 86400 * 86400 + 86400,
        rows: [
            ReportRow(
                name: "prod", org: "acme", app: "shop", env: "prod",
                sums: ReportSums(
                    connections: 12, bytesOut: 3_221_225_472, bytesIn: 512, first: 1_789_970_000, last: 1_789_990_000)),
            ReportRow(
                name: "=cmd,\u{1B}", org: "", env: "=cmd,\u{1B}",
                sums: ReportSums(connections: 1, bytesOut: 1024, bytesIn: 0, first: 1_789_970_000, last: 1_789_970_000)),
        ], others: 3,
        total: ReportSums(
            connections: 20, bytesOut: 3_321_225_472, bytesIn: 1512, first: 1_789_970_000, last: 1_789_990_000))

    @Test("a table") func table() {
        #expect(
            EgressReportText(report).table == """
                2026-09-21T00:00:00Z to 2026-09-22T00:00:00Z, by env

                ENV       APP   ORG       OUT       IN   SHARE  CONNECTIONS  FIRST                 LAST
                prod      shop  acme  3.0 GiB    512 B   97.0%           12  2026-09-21T05:53:20Z  2026-09-21T11:26:40Z
                =cmd,\u{FFFD}    -     -     1.0 KiB      0 B    0.0%            1  2026-09-21T05:53:20Z  2026-09-21T05:53:20Z
                (3 more)                                  3.0%
                total                 3.1 GiB  1.5 KiB  100.0%           20  2026-09-21T05:53:20Z  2026-09-21T11:26:40Z

                """)
    }

    @Test("JSON") func json() {
        #expect(
            EgressReportText(report).json == #"""
                {"from":"2026-09-21T00:00:00Z","to":"2026-09-22T00:00:00Z","by":"env","rows":[{"env":"prod","app":"shop","org":"acme","bytes_out":3221225472,"bytes_in":512,"connections":12,"first":"2026-09-21T05:53:20Z","last":"2026-09-21T11:26:40Z"},{"env":"=cmd,\u001b","app":"","org":"","bytes_out":1024,"bytes_in":0,"connections":1,"first":"2026-09-21T05:53:20Z","last":"2026-09-21T05:53:20Z"}],"others":3,"total":{"bytes_out":3321225472,"bytes_in":1512,"connections":20,"first":"2026-09-21T05:53:20Z","last":"2026-09-21T11:26:40Z"}}

                """#)
    }

    @Test("CSV quotes what it must, and what a spreadsheet would compute") func csv() {
        let lines = EgressReportText(report).csv.split(separator: "\r\n").map(String.init)
        #expect(
            lines == [
                "env,app,org,bytes_out,bytes_in,connections,first,last",
                "prod,shop,acme,3221225472,512,12,2026-09-21T05:53:20Z,2026-09-21T11:26:40Z",
                "\"'=cmd,\u{1B}\",,,1024,0,1,2026-09-21T05:53:20Z,2026-09-21T05:53:20Z",
            ])
    }

    @Test("bytes for people", arguments: [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB")])
    func bytes(count: Int64, text: String) { #expect(plainBytes(count) == text) }

    @Test("a picture has axes, a legend, every env's area, and no name that is markup")
    func plot() {
        let start = 1_790_000_000 / 86400 * 86400 as Int64
        let series = ReportSeries(
            step: 3600, from: start, to: start + 86400,
            envs: [
                (EnvName(org: "acme", app: "shop", env: "prod"), [start: 1000, start + 7200: 3000]),
                (EnvName(org: "globex", app: "web", env: "prod"), [start: 1000]),
                (EnvName(org: "<b>&\u{7}", app: "a", env: "e"), [start: 500]),
                (EnvName(org: "", app: "", env: ""), [start: 2]), (nil, [start: 1]),
            ])
        let svg = EgressPlot(series).svg
        #expect(svg.hasPrefix("<svg ") && svg.hasSuffix("</svg>\n"))
        #expect(svg.contains("bytes per hour"))
        #expect(svg.contains(">&lt;b&gt;&amp;\u{FFFD}/a/e<"))
        for name in ["acme/shop/prod", "globex/web/prod", "(unknown)", LedgerReader.rest] {
            #expect(svg.components(separatedBy: ">\(name)<").count == 4, "its area, and twice in the legend: \(name)")
        }
        #expect(!svg.contains("<b>"))
        #expect(svg.contains("2026-09-21"))
        #expect(svg.components(separatedBy: "<title>").count == 11)
        #expect(EgressPlot(ReportSeries(step: 60, from: 0, to: 0, envs: [])).svg.contains("nothing was recorded"))
    }
}
