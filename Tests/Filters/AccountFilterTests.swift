import FilterEgressAccounting
import Pipeline
import PipelineFlows
import TestSupport
import Testing

@Suite("account")
struct AccountFilterTests {
    @Test("totals add up per route, at the end")
    func settle() throws {
        var run = FilterHarness()
        let route = run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"]))
        let settings = try AccountFilter.settings(Directive(keyword: "account", clauses: []))
        var state = AccountFilter.makeState(settings)
        #expect(run.evaluate(AccountFilter.self, settings, &state).verdict == .next)
        #expect(route.pointee.cell.pointee.connections.load(ordering: .relaxed) == 0)
        for upstream: UInt64 in [100, 0] {
            AccountFilter.settle(settings, &state, totals(route, upstream, 7))
        }
        let cell = route.pointee.cell
        #expect(cell.pointee.connections.load(ordering: .relaxed) == 2)
        #expect(cell.pointee.bytesToUpstream.load(ordering: .relaxed) == 100)
        #expect(cell.pointee.bytesToClient.load(ordering: .relaxed) == 14)
    }

    @Test("a connection without a route counts nowhere")
    func noRoute() throws {
        let settings = try AccountFilter.settings(Directive(keyword: "account", clauses: []))
        var state = AccountFilter.makeState(settings)
        AccountFilter.settle(settings, &state, totals(nil, 1, 1))
    }

    private func totals(
        _ route: FoundRoute?, _ upstream: UInt64, _ client: UInt64, port: UInt16 = 443
    ) -> ConnectionTotals {
        ConnectionTotals(
            route: route?.pointee.cell, client: ClientAddress(FilterHarness.endpoint("192.0.2.1:1")),
            destination: DestinationAddress(Endpoint(FilterHarness.endpoint("192.0.2.2:1").address, port)),
            backend: nil,
            bytesToUpstream: upstream,
            bytesToClient: client, reason: RuntimeReason.closedByClient.code, duration: .seconds(1))
    }

    // MARK: every

    private func context(_ queues: FlowQueues, worker: Int = 0) -> StageContext {
        StageContext(worker: worker, services: Services(queues))
    }

    @Test("what records flows is refused where nobody takes them; `explain` asks for no queue")
    func services() throws {
        let queues = FlowQueues(capacity: 2)
        let settings = AccountFilter.Settings(every: .seconds(4))
        #expect(!AccountFilter.prepare(settings, workers: 1, .none))
        #expect(AccountFilter.prepare(AccountFilter.Settings(), workers: 1, .none))
        var state = AccountFilter.makeState(settings, StageContext(worker: nil, services: Services(queues)))
        var ended = totals(nil, 1000, 70)
        ended.at = 9_000_000_000
        AccountFilter.settle(settings, &state, ended)
        AccountFilter.disposeState(&state)
        var records: [FlowRecord] = []
        queues.drain(into: &records, limit: 10)
        #expect(records.isEmpty)
    }

    @Test("R21: growth of a living connection is recorded once, and its end brings the rest")
    func progress() throws {
        let queues = FlowQueues(capacity: 64)
        let settings = AccountFilter.Settings(every: .seconds(4))
        #expect(AccountFilter.progressInterval(settings) == .seconds(3))
        #expect(AccountFilter.facts(settings).needs.isEmpty)
        var state = AccountFilter.makeState(settings, context(queues))
        var records: [FlowRecord] = []
        func told(_ totals: ConnectionTotals) -> [FlowRecord] {
            let before = records.count
            while AccountFilter.flush(settings, &state, isLast: false) == .more {}
            queues.drain(into: &records, limit: 100)
            return Array(records[before...])
        }

        var living = totals(nil, 1000, 70)
        living.at = 9_000_000_000
        AccountFilter.progress(settings, &state, living)
        let first = told(living)
        #expect(first.map(\.bytesOut) == [1000])
        #expect(first.map(\.connections) == [1])
        #expect(first.map(\.firstSeen) == [8_000_000_000])
        #expect(first.map(\.key.destination) == [FilterHarness.endpoint("192.0.2.2:443").address])

        var ended = totals(nil, 1500, 75)
        ended.at = 12_000_000_000
        ended.isReported = true
        ended.reported.bytesToUpstream = 1000
        ended.reported.bytesToClient = 70
        AccountFilter.settle(settings, &state, ended)
        let last = told(ended)
        #expect(last.map(\.bytesOut) == [500])
        #expect(last.map(\.bytesIn) == [5])
        #expect(last.map(\.connections) == [0])
        // What was told whole brings no record.
        ended.reported.bytesToUpstream = 1500
        ended.reported.bytesToClient = 75
        AccountFilter.settle(settings, &state, ended)
        #expect(told(ended).isEmpty)
        AccountFilter.disposeState(&state)
    }

    @Test("what a state keeps when it goes is not lost, and its queue is free for the next")
    func dispose() throws {
        let queues = FlowQueues(capacity: 1)
        let settings = AccountFilter.Settings(every: .seconds(1))
        var state = AccountFilter.makeState(settings, context(queues))
        for port in 1...9 as ClosedRange<UInt16> {
            AccountFilter.settle(settings, &state, totals(nil, 10, 1, port: port))
            _ = AccountFilter.flush(settings, &state, isLast: false)
        }
        AccountFilter.disposeState(&state)
        var records: [FlowRecord] = []
        queues.drain(into: &records, limit: 100)
        var next = AccountFilter.makeState(settings, context(queues))
        AccountFilter.settle(settings, &next, totals(nil, 10, 1))
        #expect(AccountFilter.flush(settings, &next, isLast: true) == .done)
        AccountFilter.disposeState(&next)
        queues.drain(into: &records, limit: 100)
        #expect(records.reduce(0) { $0 + $1.bytesOut } == 100)
        #expect(Set(records.map(\.origin)) == [0])
        #expect(records.map(\.sequence) == Array(1...10))
    }

    @Test("R27: however many programs a worker holds, its stages have one table and one queue, and lose nothing")
    func shared() throws {
        let queues = FlowQueues(capacity: 4)
        let settings = (1...30).map { AccountFilter.Settings(every: .seconds(UInt32($0))) }
        #expect(AccountFilter.prepare(settings[0], workers: 2, Services(queues)))
        var states = settings.map { AccountFilter.makeState($0, context(queues, worker: 1)) }
        var records: [FlowRecord] = []
        for place in states.indices {
            AccountFilter.settle(settings[place], &states[place], totals(nil, 10, 1, port: UInt16(place % 9)))
            _ = AccountFilter.flush(settings[place], &states[place], isLast: false)
        }
        // The last of them hands over what the ring has no room for; who comes then waits for the reader.
        for place in states.indices { AccountFilter.disposeState(&states[place]) }
        var next = AccountFilter.makeState(settings[0], context(queues, worker: 1))
        AccountFilter.settle(settings[0], &next, totals(nil, 700, 1))
        #expect(AccountFilter.flush(settings[0], &next, isLast: false) == .waits)
        queues.drain(into: &records, limit: 1000)
        #expect(AccountFilter.flush(settings[0], &next, isLast: false) == .done)
        AccountFilter.disposeState(&next)
        queues.drain(into: &records, limit: 1000)
        #expect(records.reduce(0) { $0 + $1.bytesOut } == 1000)
        #expect(Set(records.map(\.origin)).count == 1)
        #expect(records.map(\.sequence) == Array(1...UInt64(records.count)))
    }
}
