import Pipeline
import PipelineFlows
import PipelineLedger
import Testing

@testable import PipelineAlerts

@Suite("Who sends most: the window and the report")
struct TopReportTests {
    private static let second: UInt64 = 1_000_000_000
    private static let start: UInt64 = 1_700_000_000 * second

    private func record(
        _ instance: UInt32, _ destination: UInt64, port: UInt16 = 443, at seconds: Double, out: UInt64 = 0,
        into: UInt64 = 0, connections: UInt32 = 0
    ) -> FlowRecord {
        let time = TopReportTests.start + UInt64(seconds * 1e9)
        let key = FlowKey(
            instance: instance, source: IPAddress(high: 0xFD << 56, low: UInt64(instance)),
            destination: IPAddress(high: 0x2001_0db8 << 32, low: destination), port: port, proto: 6)
        return FlowRecord(
            key: key, connections: connections, bytesOut: out, bytesIn: into, firstSeen: time, lastSeen: time,
            origin: 0,
            sequence: 0)
    }

    private func names(_ number: UInt32, _ source: IPAddress) -> FlowNames {
        number == .max
            ? FlowNames(instance: "\(source)")
            : FlowNames(
                instance: "i_\(number)", env: "env_\(number / 2)", app: "shop", org: number < 4 ? "acme" : "other")
    }

    private func now(_ seconds: Double) -> UInt64 { TopReportTests.start + UInt64(seconds * 1e9) }

    /// A steady flow, told of each 4 s.
    private func steady(until end: Int) -> TrafficWindow {
        var window = TrafficWindow(interval: .seconds(4))
        for time in stride(from: 0, to: end, by: 4) {
            window.add(
                record(1, 1, at: Double(time) + 1, out: 4000, into: 400, connections: 4), now: now(Double(time) + 1))
        }
        return window
    }

    private func total(_ view: TrafficWindow.View) -> UInt64 {
        view.buckets.lazy.joined().reduce(0) { $0 + $1.value.bytesOut }
    }

    @Test("a steady flow is as steady at every moment, in any number of buckets")
    func steadiness() {
        let window = steady(until: 100)
        for moment in stride(from: 80.0, to: 90.0, by: 0.25) {
            for count in [1, 4, 10] {
                let view = window.view(buckets: count, now: now(moment))
                #expect(view.to - view.from == UInt64(count) * 4 * TopReportTests.second)
                #expect(total(view) == UInt64(count) * 4000)
                // What is shown is complete, and no older than two rounds and the way here.
                #expect(view.to <= now(moment - 5.5) && view.to > now(moment - 9.5))
            }
        }
    }

    @Test("R27: of many buckets the newest are kept; what is too old is nowhere; a clock that is set back begins anew")
    func buckets() {
        var window = steady(until: 400)
        #expect(total(window.view(buckets: 1000, now: now(400))) == 16 * 4000)
        window.add(record(1, 1, at: 0, out: 1 << 40), now: now(400))
        #expect(total(window.view(buckets: 16, now: now(400))) < 1 << 40)
        window.add(record(1, 1, at: 100, out: 5), now: now(100))
        #expect(total(window.view(buckets: 16, now: now(110))) == 5)
        // A record that is ahead of the clock.
        window.add(record(1, 1, at: 9999, out: 6), now: now(102))
        #expect(total(window.view(buckets: 16, now: now(115))) == 11)
        window.setInterval(.seconds(2))
        #expect(total(window.view(buckets: 16, now: now(115))) == 0)
        #expect(TrafficWindow(interval: .zero).interval == TrafficWindow.shortestBucket)
        #expect(total(TrafficWindow().view(buckets: 3, now: 0)) == 0)
    }

    @Test("R27: more flows than there is place for: the largest stay, sums by instance are right, and it is said")
    func aggregates() {
        var window = TrafficWindow(interval: .seconds(4), flowLimit: 50)
        for number in 0..<1000 as Range<UInt64> {
            let size: UInt64 = number % 100 == 0 ? 1 << 30 : 1000
            window.add(record(UInt32(number % 5), number, at: 1, out: size, connections: 1), now: now(1))
        }
        let view = window.view(buckets: 1, now: now(10))
        #expect(view.buckets.allSatisfy { $0.count <= 101 } && view.aggregated >= 800)
        let byInstance = TopReport(TopQuestion(), view, names: names)
        #expect(byInstance.total.connections == 1000 && byInstance.rows.count == 5)
        #expect(byInstance.rows.map(\.sums.connections) == [200, 200, 200, 200, 200])
        var question = TopQuestion()
        question.by = .destination
        question.rows = 11
        let byDestination = TopReport(question, view, names: names)
        #expect(byDestination.rows.count { $0.sums.bytes == 1 << 30 } == 10)
        #expect(byDestination.rows.contains { $0.name == "(others)" })
        #expect(byDestination.total.connections == 1000)
        #expect(byDestination.text(node: "n", now: now(10)).contains("were aggregated"))
        // More instances than flows.
        for number in 0..<1000 as Range<UInt64> {
            window.add(record(UInt32(number), number, at: 1, out: 1, connections: 1), now: now(1))
        }
        let many = window.view(buckets: 1, now: now(10))
        #expect(many.buckets.allSatisfy { $0.count <= 101 })
        #expect(TopReport(TopQuestion(), many, names: names).total.connections == 2000)
    }

    /// `prod` of three apps, and `i` in each of the three: one instance's number a sender.
    private func sameNames(_ number: UInt32, _ source: IPAddress) -> FlowNames {
        let owners = [("acme", "shop"), ("globex", "web"), ("acme", "web")]
        let owner = owners[Int(number) % 3]
        return FlowNames(instance: "i", env: "prod", app: owner.1, org: owner.0)
    }

    @Test("R5: what is called the same in several envs is several rows, and no question mixes them")
    func wholePaths() {
        var window = TrafficWindow(interval: .seconds(4))
        for number in 0..<3 as Range<UInt32> {
            window.add(record(number, 1, at: 1, out: 1000 - UInt64(number), connections: 1), now: now(1))
        }
        let view = window.view(buckets: 1, now: now(10))
        let ask = { (change: (inout TopQuestion) -> Void) -> TopReport in
            var question = TopQuestion()
            change(&question)
            return TopReport(question, view, names: self.sameNames)
        }
        for group in [ReportGroup.env, .instance] {
            let rows = ask { $0.by = group }.rows
            #expect(rows.map { "\($0.org)/\($0.app)" } == ["acme/shop", "globex/web", "acme/web"], "\(group)")
            #expect(rows.map(\.sums.bytesOut) == [1000, 999, 998])
        }
        #expect(ask { $0.by = .org }.rows.map(\.name) == ["acme", "globex"])
        let one = ask { ($0.by, $0.env) = (.destination, "globex/web/prod") }
        #expect(one.total.bytesOut == 999 && one.fault == nil)
        #expect(ask { ($0.env, $0.org) = ("prod", "globex") }.fault == nil, "only one is left")
        #expect(ask { ($0.instance, $0.env) = ("i", "acme/web/prod") }.total.bytesOut == 998)
        #expect(
            ask { ($0.by, $0.env) = (.destination, "prod") }.fault?.problem
                == "env prod is ambiguous, it exists in acme/shop/prod, acme/web/prod, globex/web/prod")
        #expect(
            ask { ($0.by, $0.instance, $0.org) = (.destination, "i", "acme") }.fault?.problem
                == "instance i is ambiguous, it exists in acme/shop/prod, acme/web/prod")
    }

    @Test("groups, orders and filters")
    func groups() throws {
        var window = TrafficWindow(interval: .seconds(4))
        for sent in [
            record(1, 1, at: 1, out: 400, into: 4000, connections: 1),
            record(2, 1, port: 25, at: 1, out: 80, connections: 40),
            record(4, 2, at: 1, out: 4, connections: 2), record(.max, 2, at: 1, out: 4, connections: 1),
        ] { window.add(sent, now: now(1)) }
        let view = window.view(buckets: 1, now: now(10))
        let rows = { (change: (inout TopQuestion) -> Void) -> [String] in
            var question = TopQuestion()
            change(&question)
            return TopReport(question, view, names: self.names).rows.map(\.name)
        }
        #expect(rows { _ in } == ["i_1", "i_2", "i_4", "fd00::ffff:ffff"])
        #expect(rows { $0.order = .connections }.first == "i_2")
        #expect(rows { $0.by = .org } == ["acme", "other", ""])
        #expect(rows { $0.by = .env } == ["env_0", "env_1", "env_2", ""])
        #expect(rows { $0.by = .port } == ["443/tcp", "25/tcp"])
        #expect(rows { $0.by = .destination } == ["2001:db8::1", "2001:db8::2"])
        #expect(rows { $0.port = 25 } == ["i_2"])
        #expect(rows { $0.org = "acme" } == ["i_1", "i_2"])
        #expect(rows { $0.destination = IPAddress("2001:db8::2") }.count == 2)
        #expect(rows { ($0.by, $0.instance) = (.destination, "i_4") } == ["2001:db8::2"])
        #expect(rows { ($0.instance, $0.env) = ("i_4", "env_0") }.isEmpty)
        var question = TopQuestion()
        question.rows = 2
        let report = TopReport(question, view, names: names)
        #expect(report.others == 2 && report.total.connections == 44)
        #expect(
            report.text(node: "host-1", now: now(10))
                == """
                host-1: 4 s to 2023-11-14T22:13:24.000Z, 6 s ago, by instance

                INSTANCE  ENV    APP   ORG   OUT/S    IN/S  CONN/S  CONNECTIONS
                i_1       env_0  shop  acme  100 B  1000 B     0.3            1
                i_2       env_1  shop  acme   20 B     0 B    10.0           40
                (2 more)
                total                        122 B  1000 B    11.0           44

                """)
        let json = String(decoding: report.json(now: now(10)), as: UTF8.self)
        #expect(json.hasPrefix("{\"by\":\"instance\",\"sort\":\"bytes\",\"from\":\"2023-11-14T22:13:20.000Z\","))
        #expect(json.contains("\"window_ms\":4000,\"age_ms\":6000,\"rows\":[{\"instance\":\"i_1\",\"env\":\"env_0\","))
        #expect(json.contains("\"bytes_out\":400,\"bytes_in\":4000,\"connections\":1,\"bytes_out_per_s\":100,"))
    }
}
