import FilterBackendSelect
import Pipeline
import Testing

@testable import PipelineHealth
@testable import PipelineText

/// The book that the prober keeps: which targets, whose turn, and what cells are told.
@Suite("health: the table")
struct ProbeTableTests {
    /// Cells of the test's own, by port.
    private final class Cells {
        let memory = UnsafeMutablePointer<BackendCell>.allocate(capacity: 8)
        init() {
            for index in 0..<8 { (memory + index).initialize(to: BackendCell(Endpoint(.unspecified, UInt16(index)))) }
        }
        deinit {
            memory.deinitialize(count: 8)
            memory.deallocate()
        }
        func probe(_ index: Int) -> BackendCell.Probe? { .init(rawValue: memory[index].probe.load(ordering: .relaxed)) }
        func target(_ index: Int, proxy: Bool = false, _ settings: HealthSettings) -> ProbeTarget {
            let endpoint = Endpoint(IPAddress(v4: 0x0A00_0001), 9000 + UInt16(index))
            return ProbeTarget(
                key: .init(endpoint: endpoint, usesProxy: proxy), cell: UnsafePointer(memory + index),
                settings: settings, instance: "i_\(index)")
        }
    }

    private let settings = HealthStateTests.settings(interval: .seconds(1), jitter: 0, rise: 2, fall: 2)
    private let cells = Cells()

    private func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    /// Runs the table for a while, every target answering as `answer` says; which were probed, and when.
    @discardableResult private func run(
        _ table: inout ProbeTable, from: UInt64, to: UInt64, _ answer: (ProbeTarget) -> ProbeConversation.Outcome
    ) -> [(port: UInt16, time: UInt64)] {
        var begun: [(UInt16, UInt64)] = []
        for now in stride(from: from, to: to, by: 1) {
            while let next = table.begin(at(now)) {
                begun.append((next.target.key.endpoint.port, now))
                _ = table.finish(next.identity, answer(next.target), now: at(now))
            }
        }
        return begun
    }

    @Test("probes of many targets are spread over the interval from the start, and each comes every interval")
    func spread() {
        var table = ProbeTable(seed: 1)
        table.replace(by: .init(testing: (0..<8).map { cells.target($0, settings) }), now: at(0))
        let begun = run(&table, from: 0, to: 3000) { _ in .init(.good) }
        #expect(begun.count >= 22 && begun.count <= 24)
        #expect(Set(begun.prefix(8).map(\.time)).count >= 6)
        let first = begun.filter { $0.port == 9000 }.map(\.time)
        #expect(zip(first, first.dropFirst()).allSatisfy { $1 - $0 == 1000 })
    }

    @Test("at most one probe of a backend is under way")
    func oneInFlight() throws {
        var table = ProbeTable(seed: 1)
        table.replace(by: .init(testing: [cells.target(0, settings)]), now: at(0))
        let begun = table.begin(at(5000))
        let next = try #require(begun)
        let second = table.begin(at(50_000))
        #expect(second == nil && table.wakeUp == nil)
        _ = table.finish(next.identity, .init(.timeout), now: at(50_000))
        let third = table.begin(at(50_000))
        #expect(third != nil)
    }

    @Test("R12: a backend goes out and comes back, its cell says so, and slow start learns since when")
    func outAndBack() {
        var table = ProbeTable(seed: 1)
        table.replace(by: .init(testing: [cells.target(0, settings), cells.target(1, settings)]), now: at(0))
        run(&table, from: 0, to: 2500) { $0.key.endpoint.port == 9000 ? .init(.refused) : .init(.good) }
        #expect(cells.probe(0) == .down && cells.probe(1) == .up)
        #expect(!cells.memory[0].isEligible(at: at(2500)) && cells.memory[1].isEligible(at: at(2500)))
        run(&table, from: 2500, to: 5000) { _ in .init(.good) }
        #expect(cells.probe(0) == .up)
        let since = cells.memory[0].eligibleSince.load(ordering: .relaxed)
        #expect(since > at(2500).nanoseconds && since <= at(5000).nanoseconds)
        #expect(cells.memory[1].eligibleSince.load(ordering: .relaxed) == 0)
    }

    @Test("R12: `rise` good probes end an ejection by connect failures, and none from before it count")
    func uneject() throws {
        var table = ProbeTable(seed: 1)
        table.replace(by: .init(testing: [cells.target(0, settings)]), now: at(0))
        run(&table, from: 0, to: 10_000) { _ in .init(.good) }
        var policy = EjectionPolicy(after: 1, base: .seconds(60), max: .seconds(60))
        cells.memory[0].noteFailure(at: at(10_000), &policy)
        let isOut = !cells.memory[0].isEligible(at: at(10_000))
        #expect(isOut)
        for (turn, result) in [ProbeResult.good, .timeout, .good, .node, .good].enumerated() {
            let now = at(12_000 + UInt64(turn) * 2000)
            let isOut = !cells.memory[0].isEligible(at: now)
            #expect(isOut)
            let begun = table.begin(now)
            _ = table.finish(try #require(begun).identity, .init(result), now: now)
        }
        let isBack = cells.memory[0].isEligible(at: at(20_000))
        let since = cells.memory[0].eligibleSince.load(ordering: .relaxed)
        #expect(isBack && since == at(20_000).nanoseconds)
    }

    @Test("what happens is said once: when it goes down, and when it comes up")
    func events() throws {
        var table = ProbeTable(seed: 1)
        table.replace(by: .init(testing: [cells.target(0, settings)]), now: at(0))
        var events: [ProbeTable.Event] = []
        for turn in 0..<8 as Range<UInt64> {
            let now = at(5000 + turn * 1000)
            let begun = table.begin(now)
            let next = try #require(begun)
            events += table.finish(next.identity, .init(turn < 4 ? .timeout : .good), now: now)
        }
        #expect(events == [.down(.timeout, bad: 2), .up(after: .seconds(4), good: 2)])
    }

    @Test("a new list keeps what is known of targets that stay, however often it comes")
    func keeps() {
        var table = ProbeTable(seed: 1)
        let list = [cells.target(0, settings), cells.target(1, settings)]
        table.replace(by: .init(testing: list), now: at(0))
        run(&table, from: 0, to: 2500) { _ in .init(.refused) }
        #expect(cells.probe(0) == .down)
        var count = 0
        for now in stride(from: 2500 as UInt64, to: 6500, by: 10) {
            table.replace(by: .init(testing: list), now: at(now))
            count += run(&table, from: now, to: now + 10) { _ in .init(.refused) }.count
        }
        #expect(count == 8)
        #expect(cells.probe(0) == .down && cells.probe(1) == .down)
    }

    @Test("R12: a target that goes takes its evidence with it, and its last probe comes to nothing")
    func forgets() throws {
        var table = ProbeTable(seed: 1)
        table.replace(by: .init(testing: [cells.target(0, settings), cells.target(1, settings)]), now: at(0))
        run(&table, from: 0, to: 2500) { _ in .init(.refused) }
        let begun = table.begin(at(9000))
        let next = try #require(begun)
        table.replace(by: .none, now: at(9000))
        #expect(cells.probe(0) == .unknown && cells.probe(1) == .unknown)
        let events = table.finish(next.identity, .init(.refused), now: at(9001))
        #expect(events == [])
        #expect(cells.probe(0) == .unknown && table.wakeUp == nil && table.statuses().isEmpty)
    }

    @Test("a backend probed with and without a header is out only if neither probe is good")
    func siblings() {
        var table = ProbeTable(seed: 1)
        table.replace(
            by: .init(testing: [cells.target(0, settings), cells.target(0, proxy: true, settings)]), now: at(0))
        run(&table, from: 0, to: 4000) { $0.key.usesProxy ? .init(.good, .accepted) : .init(.reset) }
        #expect(cells.probe(0) == .up)
        run(&table, from: 4000, to: 8000) { _ in .init(.reset) }
        #expect(cells.probe(0) == .down)
        run(&table, from: 8000, to: 12_000) { $0.key.usesProxy ? .init(.reset) : .init(.good) }
        #expect(cells.probe(0) == .up)
    }

    @Test("R18: a rejected header is told once, counted each time, and taken back when the backend learns")
    func proxy() throws {
        var table = ProbeTable(seed: 1)
        table.replace(by: .init(testing: [cells.target(0, proxy: true, settings)]), now: at(0))
        var events: [ProbeTable.Event] = []
        for turn in 0..<6 as Range<UInt64> {
            let now = at(5000 + turn * 1000)
            let begun = table.begin(now)
            let next = try #require(begun)
            events += table.finish(next.identity, .init(.good, turn < 3 ? .rejected : .accepted), now: now)
            #expect(cells.memory[0].proxy.load(ordering: .relaxed) == (turn < 3 ? 2 : 1))
        }
        #expect(events == [.proxyRejected(.good), .proxyAccepted])
        #expect(cells.memory[0].proxyRejections.load(ordering: .relaxed) == 3)
        #expect(cells.probe(0) == .up)
    }

    @Test("R18: one that rejects the header no more, and proves nothing, is unknown again")
    func proxyUnknown() throws {
        var table = ProbeTable(seed: 1)
        table.replace(by: .init(testing: [cells.target(0, proxy: true, settings)]), now: at(0))
        var events: [ProbeTable.Event] = []
        for (turn, answer) in [nil, ProxyAnswer.rejected, nil, nil].enumerated() {
            let now = at(5000 + UInt64(turn) * 1000)
            let begun = table.begin(now)
            events += table.finish(try #require(begun).identity, .init(.good, answer), now: now)
            #expect(cells.memory[0].proxy.load(ordering: .relaxed) == (turn == 1 ? 2 : 0))
        }
        #expect(events == [.proxyRejected(.good), .proxyUnknown])
    }

    @Test("R18: no answer to a probe's header talks away what connections found out")
    func proxyOfTraffic() throws {
        var table = ProbeTable(seed: 1)
        table.replace(by: .init(testing: [cells.target(0, proxy: true, settings)]), now: at(0))
        cells.memory[0].proxy.store(2, ordering: .relaxed)
        run(&table, from: 0, to: 2000) { _ in .init(.good) }
        #expect(cells.memory[0].proxy.load(ordering: .relaxed) == 2)
        run(&table, from: 0, to: 3000) { _ in .init(.good, .accepted) }
        #expect(cells.memory[0].proxy.load(ordering: .relaxed) == 2)
    }

    @Test("R27: a storm of events is cut, and the next line says how many are missing")
    func logLimit() {
        let lines = Lines()
        var log = HealthLog(wallClock: { 0 }, write: { lines.add($0) })
        let target = cells.target(0, settings)
        for _ in 0..<1000 { log.say(.down(.refused, bad: 2), of: target, now: at(1_000_000)) }
        #expect(lines.all.count == LineBudget.burst)
        log.say(.up(after: .seconds(1), good: 2), of: target, now: at(1_001_000))
        #expect(lines.all.last?.contains("\"suppressed\":900") == true)
        #expect(
            lines.all.first == """
                {"time":"1970-01-01T00:00:00.000Z","event":"backend_down","backend":"10.0.0.1:9000","instance":"i_0",\
                "envs":[],"routes":[],"health":"web","proxy_v2":false,"reason":"refused","probes":2}

                """)
    }

    private final class Lines: @unchecked Sendable {
        private(set) var all: [String] = []
        func add(_ bytes: [UInt8]) { all.append(String(decoding: bytes, as: UTF8.self)) }
    }
}
