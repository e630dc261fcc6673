import FilterBackendSelect
import Pipeline
import Testing

@testable import PipelineHealth

/// Rise, fall, jitter, schedule and rate, by a clock of the test's own.
@Suite("health: the state machine")
struct HealthStateTests {
    static func settings(
        _ name: String = "web", probe: HealthSettings.Probe = .tcp, interval: TimeSpan = .seconds(2),
        jitter: UInt8 = 10,
        timeout: TimeSpan = .seconds(1), rise: UInt32 = 2, fall: UInt32 = 3, rate: UInt32 = 1000
    ) -> HealthSettings {
        HealthSettings(
            name: name, probe: probe, interval: interval, jitterPercent: jitter, timeout: timeout, rise: rise,
            fall: fall, probesPerSecond: rate, panic: .failFast,
            ejection: EjectionPolicy(after: 5, base: .seconds(10), max: .seconds(300)))
    }

    private func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    // MARK: Rise and fall

    @Test("R12: `fall` bad ones in a row take it out, `rise` good ones in a row put it back")
    func riseAndFall() {
        var counts = ProbeCounts(since: at(0))
        var changes: [ProbeCounts.Change?] = []
        let results: [ProbeResult] = [
            .good, .refused, .timeout, .good, .refused, .timeout, .reset, .refused, .good, .closed, .good, .good, .good,
        ]
        for (index, result) in results.enumerated() {
            changes.append(counts.add(result, rise: 2, fall: 3, now: at(UInt64(index) * 1000)))
        }
        let wanted: [ProbeCounts.Change?] = [
            nil, nil, nil, nil, nil, nil, .wentDown, nil, nil, nil, nil, .cameUp(after: .seconds(5)), nil,
        ]
        #expect(changes == wanted)
        #expect(counts.verdict == .up && counts.last == .good && counts.goodInARow == 3)
    }

    @Test("R12: one that was never probed is not out, and takes `fall` bad ones to be")
    func unknown() {
        var counts = ProbeCounts(since: at(0))
        let first = counts.add(.refused, rise: 1, fall: 2, now: at(1))
        #expect(first == nil && counts.verdict == .unknown)
        let second = counts.add(.refused, rise: 1, fall: 2, now: at(2))
        #expect(second == .wentDown)
    }

    @Test("what this node could not probe says nothing of the backend")
    func node() {
        var counts = ProbeCounts(since: at(0))
        let changes = (0..<10).map { _ in counts.add(.node, rise: 1, fall: 1, now: at(1)) }
        #expect(changes.allSatisfy { $0 == nil })
        #expect(counts.verdict == .unknown && counts.badInARow == 0)
        #expect(ProbeResult(connectError: 24) == .node && ProbeResult(connectError: 99) == .node)
        // R13: a firewall of this node's is no backend's fault.
        #expect(ProbeResult(connectError: 1) == .node && ProbeResult(connectError: 13) == .node)
        #expect(ProbeResult(connectError: 111) == .refused && ProbeResult(connectError: 113) == .unreachable)
    }

    // MARK: Time

    @Test("jitter stays within its percent, and uses it", arguments: [0, 10, 50] as [UInt8])
    func jitter(percent: UInt8) {
        var random = SplitMix64(seed: 7)
        let spans = (0..<10_000).map { _ in random.jittered(.seconds(1), percent: percent).nanoseconds }
        let reach = UInt64(percent) * 10_000_000
        #expect(spans.allSatisfy { $0 >= 1_000_000_000 - reach && $0 <= 1_000_000_000 + reach })
        #expect((spans.max() ?? 0) - (spans.min() ?? 0) >= reach * 19 / 10)
    }

    @Test(
        "in no second, wherever it begins, are there more probes than the rate",
        arguments: [1, 7, 100, 5000] as [UInt32])
    func rate(perSecond: UInt32) {
        var rate = ProbeRate(perSecond: perSecond)
        var taken: [UInt64] = []
        var random = SplitMix64(seed: UInt64(perSecond))
        var now: UInt64 = 5_000_000_000
        while now < 10_000_000_000 {
            now += random.next() % 3_000_000
            while rate.take(Instant(nanoseconds: now)) { taken.append(now) }
        }
        for (index, first) in taken.enumerated() {
            let last = index + Int(perSecond)
            #expect(last >= taken.count || taken[last] - first >= 1_000_000_000, "\(index)")
        }
        // And all of it is used, but for the rounding and the 1% that the burst costs.
        #expect(taken.count >= Int(perSecond) * 5 * 97 / 100 - 1)
    }

    @Test("the earliest is first, each is given once, and blocks don't starve each other")
    func schedule() {
        var schedule = ProbeSchedule()
        let (busy, quiet) = (HealthStateTests.settings("busy"), HealthStateTests.settings("quiet"))
        var random = SplitMix64(seed: 3)
        for identity in 0..<1000 as Range<UInt64> { schedule.add(identity, of: busy, at: at(random.next() % 1000)) }
        schedule.add(5000, of: quiet, at: at(0))
        var order: [UInt64] = []
        for now in 0..<5000 as Range<UInt64> { while let next = schedule.next(at(now)) { order.append(next) } }
        #expect(Set(order).count == 1001 && order.count == 1001)
        #expect(order.prefix(2).contains(5000))
        #expect(schedule.wakeUp == nil)
    }
}
