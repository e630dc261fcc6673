import CLinux
import Foundation
import Pipeline
import PipelineRouting
import TestSupport
import Testing

@testable import PipelineAdmin

@Suite("`routes` and `backends` by owner, state and text", .serialized)
struct ReportFilterTests {
    private let state = RoutingState(seed: HashSeed(1, 2))

    /// Routes of `envs` envs of orgs `o0` … `o9`, one instance each; every third env has none.
    private func makeTable(envs: Int, each: Int) throws -> RouteTableSnapshot {
        let list = { (count: Int, text: (Int) -> String) in (0..<count).map(text).joined(separator: ",") }
        let document = """
            {"format":"pipelined.state/1",
             "envs":[\(list(envs) {
                "{\"env_id\":\"e\($0)\",\"app_id\":\"a\($0 / 10)\",\"org_id\":\"o\($0 % 10)\"}" })],
             "instances":[\(list(envs) {
                "{\"instance_id\":\"i\($0)\",\"env_id\":\"e\($0)\",\"process_type\":\"w\","
                    + "\"status\":\"\($0 % 3 == 0 ? "booting" : "ready")\","
                    + "\"overlay_ipv6\":\"fd00::\(String($0 + 1, radix: 16))\"}" })],
             "routes":[\(list(envs * each) {
                "{\"route_id\":\"r\($0)\",\"env_id\":\"e\($0 / each)\",\"hostname\":\"h\($0).example.com\","
                    + "\"listen_port\":443,\"protocol_hint\":\"tls_passthrough\",\"backend_process_type\":\"w\","
                    + "\"backend_port\":8443}" })]}
            """
        _ = state.apply(try #require(StateDocument.parse(document).document))
        return state.snapshot
    }

    /// The whole answer, and in how many pieces it came.
    private func run(_ response: AdminResponse) throws -> (text: String, pieces: Int) {
        var ready: AdminResponse? = response
        var pieces = 0
        while let prepare = ready?.prepare {
            if let next = prepare(Instant(nanoseconds: cl_now()) + .milliseconds(1)) { ready = next }
            pieces += 1
        }
        let whole = try #require(ready)
        var bytes = whole.first
        while let piece = whole.more?() {
            bytes += piece
            pieces += 1
        }
        return (String(decoding: bytes, as: UTF8.self), pieces)
    }

    private func object(_ text: String) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    }

    private func routes(_ table: RouteTableSnapshot, _ filter: ReportFilter) throws -> [String] {
        let object = try object(try run(RoutesReport(table, filter).response(isText: false)).text)
        let rows = try #require(object["routes"] as? [[String: Any]])
        #expect(object["count"] as? Int == rows.count)
        return rows.compactMap { $0["id"] as? String }
    }

    private func backends(_ table: RouteTableSnapshot, _ filter: ReportFilter) throws -> [[String: Any]] {
        let object = try object(try run(BackendsReport(table, leaving: [], filter).response(isText: false)).text)
        let rows = try #require(object["backends"] as? [[String: Any]])
        #expect(object["count"] as? Int == rows.count)
        return rows
    }

    @Test("each filter alone, and together")
    func filters() throws {
        let table = try makeTable(envs: 30, each: 4)
        #expect(try routes(table, ReportFilter()).count == 120)
        #expect(try routes(table, ReportFilter(owner: "o1/a0/e1")) == ["r4", "r5", "r6", "r7"])
        #expect(try routes(table, ReportFilter(owner: "o1/a0")).count == 4)
        #expect(try routes(table, ReportFilter(owner: "o1")).count == 12)
        for none in ["o", "o1/a", "o1/a0/e", "o1/a0/e1/x", "O1", "o1/a0/e11"] {
            #expect(try routes(table, ReportFilter(owner: none)) == [], "\(none)")
        }
        #expect(try routes(table, ReportFilter(state: .empty)).count == 40)
        #expect(try routes(table, ReportFilter(state: .up)).count == 80)
        #expect(try routes(table, ReportFilter(state: .down)) == [])
        #expect(try routes(table, ReportFilter(text: "H7.EXAMPLE")) == ["r7"])
        #expect(try routes(table, ReportFilter(text: "o1/a0/e1")).count == 4)
        #expect(
            try routes(table, ReportFilter(owner: "o1", state: .up, text: "h4")) == ["r4", "r44", "r45", "r46", "r47"])
        let shown = try run(RoutesReport(table, ReportFilter(owner: "o1/a0/e1")).response(isText: true)).text
        #expect(shown.split(separator: "\n").count == 6, "\(shown)")
    }

    @Test("backends of an owner, in a state, by an instance's id or an address")
    func ofBackends() throws {
        let table = try makeTable(envs: 30, each: 4)
        #expect(try backends(table, ReportFilter()).count == 20)
        let one = try backends(table, ReportFilter(owner: "o1/a0/e1"))
        #expect(one.count == 1 && one.first?["instances"] as? [String] == ["i1"])
        #expect(one.first?["routes_count"] as? Int == 4)
        #expect(try backends(table, ReportFilter(state: .up)).count == 20)
        #expect(try backends(table, ReportFilter(state: .down)).isEmpty)
        #expect(try backends(table, ReportFilter(text: "FD00::2]")).count == 1)
        #expect(try backends(table, ReportFilter(text: "i29")).count == 1)
        #expect(try backends(table, ReportFilter(owner: "o1", text: "i29")).isEmpty)
    }

    @Test("of many routes: nothing that fits, few, and more than are shown at once come in pieces")
    func many() throws {
        let table = try makeTable(envs: 3000, each: 5)
        #expect(try routes(table, ReportFilter(text: "no such")) == [])
        #expect(try routes(table, ReportFilter(text: "h14999.")) == ["r14999"])
        let (text, pieces) = try run(RoutesReport(table, ReportFilter(text: "h1")).response(isText: false))
        let rows = try #require(try object(text)["routes"] as? [[String: Any]])
        #expect(rows.count == 6111 && pieces > 10)
        #expect(try routes(table, ReportFilter(text: "example")).count == 15_000)
        let shown = try run(RoutesReport(table, ReportFilter(text: "example")).response(isText: true)).text
        #expect(shown.contains("5000 more routes are not shown"))
    }

    @Test(
        "a request with a filter that makes no sense is refused",
        arguments: [
            #""state":"lost""#, #""state":7"#, #""owner":"""#, #""text":null"#, #""state":"gone""#,
        ])
    func faults(_ field: String) {
        #expect(throws: AdminRequest.Fault.self) { try AdminRequest(Array("{\"command\":\"routes\",\(field)}".utf8)) }
    }
}
