import Foundation
import Pipeline
import PipelineFlows
import PipelineLedger
import Testing

@testable import PipelineInspect
@testable import PipelineText

@Suite("egress report: what people and programs read")
struct EgressReportTests {
    private static let midnight = 1_790_000_000 / 86400 * 86400 as Int64

    private static func report(_ by: [ReportGroup], _ rows: [ReportRow], others: Int = 0) -> Report {
        Report(
            ReportQuestion(by: by, from: midnight, to: midnight + 86400, now: midnight + 90000), from: midnight,
            to: midnight + 86400, rows: rows, others: others,
            total: ReportSums(
                connections: 20, bytesOut: 3_321_225_472, bytesIn: 1512, first: 1_789_970_000, last: 1_789_990_000))
    }

    private let report = EgressReportTests.report(
        [.env],
        [
            ReportRow(
                FlowNames(env: "prod", app: "shop", org: "acme"),
                sums: ReportSums(
                    connections: 12, bytesOut: 3_221_225_472, bytesIn: 512, first: 1_789_970_000, last: 1_789_990_000)),
            ReportRow(
                FlowNames(env: "=cmd,\u{1B}"),
                sums: ReportSums(connections: 1, bytesOut: 1024, bytesIn: 0, first: 1_789_970_000, last: 1_789_970_000)),
        ], others: 3)

    @Test("a table") func table() {
        #expect(
            EgressReportText(report).table == """
                2026-09-21T00:00:00Z to 2026-09-22T00:00:00Z, by env

                ENV       APP        ORG            OUT       IN   SHARE  CONNECTIONS  FIRST                 LAST
                prod      shop       acme       3.0 GiB    512 B   97.0%           12  2026-09-21T05:53:20Z  2026-09-21T11:26:40Z
                =cmd,\u{FFFD}    (unknown)  (unknown)  1.0 KiB      0 B    0.0%            1  2026-09-21T05:53:20Z  2026-09-21T05:53:20Z
                (3 more)                                            3.0%
                total                           3.1 GiB  1.5 KiB  100.0%           20  2026-09-21T05:53:20Z  2026-09-21T11:26:40Z

                """)
    }

    @Test("JSON") func json() {
        #expect(
            EgressReportText(report).json == #"""
                {"from":"2026-09-21T00:00:00Z","to":"2026-09-22T00:00:00Z","by":"env","sort":"bytes","only":{},"rows":[{"env":"prod","app":"shop","org":"acme","bytes_out":3221225472,"bytes_in":512,"connections":12,"first":"2026-09-21T05:53:20Z","last":"2026-09-21T11:26:40Z"},{"env":"=cmd,\u001b","app":"(unknown)","org":"(unknown)","bytes_out":1024,"bytes_in":0,"connections":1,"first":"2026-09-21T05:53:20Z","last":"2026-09-21T05:53:20Z"}],"others":3,"total":{"bytes_out":3321225472,"bytes_in":1512,"connections":20,"first":"2026-09-21T05:53:20Z","last":"2026-09-21T11:26:40Z"}}

                """#)
    }

    @Test("CSV quotes what it must, and what a spreadsheet would compute") func csv() {
        let lines = EgressReportText(report).csv.split(separator: "\r\n").map(String.init)
        #expect(
            lines == [
                "env,app,org,bytes_out,bytes_in,connections,first,last",
                "prod,shop,acme,3221225472,512,12,2026-09-21T05:53:20Z,2026-09-21T11:26:40Z",
                "\"'=cmd,\u{1B}\",(unknown),(unknown),1024,0,1,2026-09-21T05:53:20Z,2026-09-21T05:53:20Z",
            ])
    }

    @Test("bytes for people", arguments: [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB")])
    func bytes(count: Int64, text: String) { #expect(plainBytes(count) == text) }

    @Test("by instance and port: whose it is, ports as numbers beside their protocol, counted destinations")
    func pairs() {
        let owner = FlowNames(instance: "i_1", env: "prod", app: "shop", org: "acme")
        let sums = ReportSums(connections: 2, bytesOut: 3, first: 1_789_970_000, last: 1_789_970_000, destinations: 7)
        let services: [ReportService] = [
            ReportService(port: 25, proto: 6), ReportService(port: 0x0800, proto: 1), .rest,
        ]
        let rows = services.map { ReportRow(owner, service: $0, sums: sums) }
        var question = ReportQuestion(by: [.instance, .port], from: 0, to: 60, now: 60)
        (question.order, question.port, question.org) = (.destinations, 25, "acme")
        let text = EgressReportText(Report(question, from: 0, to: 60, rows: rows, others: 0, total: sums))
        let lines = text.table.split(separator: "\n").map { $0.split(separator: " ").joined(separator: " ") }
        #expect(lines[0].hasSuffix("by instance,port, org acme, port 25"))
        #expect(lines[1] == "INSTANCE ENV APP ORG PORT OUT IN SHARE CONNECTIONS DESTINATIONS FIRST LAST")
        #expect(lines[2].hasPrefix("i_1 prod shop acme 25/tcp 3 B 0 B 100.0% 2 7 "))
        #expect(lines[3].contains(" icmp type 8 ") && lines[4].contains(" (others) "))
        let head = #""instance":"i_1","env":"prod","app":"shop","org":"acme","port":"#
        #expect(text.json.contains(#""sort":"destinations","only":{"org":"acme","port":25},"#))
        #expect(text.json.contains(head + #"25,"protocol":"tcp","icmp_type":null,"bytes_out":3,"#))
        #expect(text.json.contains(head + #"null,"protocol":"icmp","icmp_type":8,"#))
        #expect(text.json.contains(head + #"null,"protocol":null,"icmp_type":null,"#))
        let csv = text.csv.split(separator: "\r\n")
        #expect(
            csv[0]
                == "instance,env,app,org,port,protocol,icmp_type,bytes_out,bytes_in,connections,destinations,first,last"
        )
        #expect(csv[1].hasPrefix("i_1,prod,shop,acme,25,tcp,,3,0,2,7,"))
        #expect(csv[2].hasPrefix("i_1,prod,shop,acme,,icmp,8,3,0,2,7,"))
        #expect(csv[3].hasPrefix("i_1,prod,shop,acme,,,,3,0,2,7,"))
    }
}
