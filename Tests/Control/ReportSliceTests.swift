import CLinux
import Foundation
import Pipeline
import PipelineRouting
import TestSupport
import Testing

@testable import PipelineAdmin

@Suite("No report holds the control thread: they are made in slices", .serialized)
struct ReportSliceTests {
    /// Routes of 300 envs, each with two instances.
    private func makeTable() throws -> RouteTableSnapshot {
        let (envs, each) = (300, 50)
        let list = { (count: Int, text: (Int) -> String) in (0..<count).map(text).joined(separator: ",") }
        let document = """
            {"format":"pipelined.state/1",
             "envs":[\(list(envs) { "{\"env_id\":\"e\($0)\",\"app_id\":\"a\",\"org_id\":\"o\"}" })],
             "instances":[\(list(envs * 2) {
                "{\"instance_id\":\"i\($0)\",\"env_id\":\"e\($0 / 2)\",\"process_type\":\"w\",\"status\":\"ready\","
                    + "\"overlay_ipv6\":\"fd00::\(String($0 + 1, radix: 16))\"}" })],
             "routes":[\(list(envs * each) {
                "{\"route_id\":\"r\($0)\",\"env_id\":\"e\($0 / each)\",\"hostname\":\"h\($0).example.com\","
                    + "\"listen_port\":443,\"protocol_hint\":\"tls_passthrough\",\"backend_process_type\":\"w\","
                    + "\"backend_port\":8443}" })]}
            """
        _ = state.apply(try #require(StateDocument.parse(document).document))
        return state.snapshot
    }

    private let state = RoutingState(seed: HashSeed(1, 2))

    /// The whole answer, and the longest that one call took, in milliseconds of the processor.
    private func run(_ response: AdminResponse) throws -> (text: String, slices: Int, longest: Double) {
        var (slices, longest) = (0, 0.0)
        let timed = { (body: () -> Void) in
            let began = threadSeconds()
            body()
            longest = max(longest, (threadSeconds() - began) * 1000)
            slices += 1
        }
        var ready: AdminResponse? = response
        while let prepare = ready?.prepare {
            var next: AdminResponse?
            timed { next = prepare(Instant(nanoseconds: cl_now()) + .milliseconds(1)) }
            if let next { ready = next }
        }
        let whole = try #require(ready)
        var bytes = whole.first
        var isOver = whole.more == nil
        while !isOver {
            timed {
                guard let piece = whole.more?() else {
                    isOver = true
                    return
                }
                bytes += piece
            }
        }
        return (String(decoding: bytes, as: UTF8.self), slices, longest)
    }

    @Test("backends: one row an address, whole numbers, many slices and none of them long")
    func backends() throws {
        let table = try makeTable()
        let (text, slices, longest) = try run(BackendsReport(table).response(isText: false))
        let object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        let rows = try #require(object["backends"] as? [[String: Any]])
        #expect(object["count"] as? Int == 600 && rows.count == 600)
        #expect(rows.allSatisfy { $0["routes_count"] as? Int == 50 && ($0["routes"] as? [String])?.count == 50 })
        #expect(rows.first?["address"] as? String == "[fd00::1]:8443")
        #expect(slices > 3)
        // Far more than it takes, for a busy machine and a slow build.
        #expect(longest < 500, "\(longest) ms")
        let (shown, _, _) = try run(BackendsReport(table).response(isText: true))
        #expect(shown.hasPrefix("0\nBACKEND") && shown.split(separator: "\n").count == 602)
    }

    @Test("routes: beyond 10,000 they come part by part, as JSON all of them, as text the first")
    func routes() throws {
        let table = try makeTable()
        let (text, slices, longest) = try run(RoutesReport(table).response(isText: false))
        let object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        #expect((object["routes"] as? [[String: Any]])?.count == 15_000 && object["count"] as? Int == 15_000)
        #expect(slices > 20 && longest < 500, "\(longest) ms")
        let (shown, _, _) = try run(RoutesReport(table).response(isText: true))
        #expect(shown.hasPrefix("0\nROUTE"))
        #expect(shown.hasSuffix("5000 more routes are not shown: --json has all of them\n"))
        #expect(shown.split(separator: "\n").count == 10_003)
    }

    @Test("a table without routes is a whole answer")
    func empty() throws {
        for isText in [false, true] {
            let backends = try run(BackendsReport(state.snapshot).response(isText: isText)).text
            let routes = try run(RoutesReport(state.snapshot).response(isText: isText)).text
            #expect(backends.hasPrefix(isText ? "0\nBACKEND" : "{\"count\":0,\"backends\":[]}\n"))
            #expect(routes.hasPrefix(isText ? "0\nROUTE" : "{\"count\":0,\"routes\":[]}\n"))
        }
    }
}
