import Pipeline
import PipelineRuntime
import Testing

@testable import PipelineNode

/// Connections of both sides, as they might come.
private struct Traffic {
    private var random: SplitMix64
    private(set) var tally = CanaryTally()

    init(seed: UInt64) { random = SplitMix64(seed: seed) }

    private mutating func place(_ share: Double) -> CanaryPlace {
        CanaryPlace(chance(share) ? .canary : .others, bucket: random.below(CanaryEvidence.buckets))
    }
    mutating func chance(_ rate: Double) -> Bool { Double(random.below(1 << 30)) < rate * Double(1 << 30) }
    mutating func below(_ bound: Int) -> Int { random.below(bound) }

    /// One connection that fails by chance.
    /// - Parameter rate: by side.
    mutating func connect(
        share: Double = 0.1, fails rate: (CanarySide) -> Double,
        microseconds: (CanarySide, inout Traffic) -> Int = { _, traffic in 50 + traffic.below(400) }
    ) {
        let place = place(share)
        add(place, fails: chance(rate(place.side)), microseconds: microseconds(place.side, &self))
    }

    mutating func add(_ place: CanaryPlace, fails: Bool, microseconds: Int = 100) {
        tally[.begun, place] += 1
        guard !fails else {
            tally[.refused, place] += 1
            return
        }
        let log = CanaryEvidence.log(TimeSpan(nanoseconds: UInt64(microseconds) * 1000))
        tally[.relayed, place] += 1
        tally[.time, place] += log
        tally[.squaredTime, place] += log * log
    }
}

@Suite("R29: what is found in a canary's evidence, and what is chance")
struct CanaryJudgeTests {
    @Test(
        "a total failure is found by the thirtieth connection of the canary, whatever its share",
        arguments: [0.02, 0.1, 0.5])
    func total(share: Double) {
        for seed in UInt64(1)...50 {
            var traffic = Traffic(seed: seed)
            while traffic.tally.total(.begun, .canary) < 30 {
                traffic.connect(share: share) { $0 == .canary ? 1 : 0.01 }
            }
            #expect(CanaryJudge(traffic.tally).finding != nil, "seed \(seed)")
        }
    }

    @Test("both sides fail alike, often or seldom: no finding at any moment", arguments: [0, 0.001, 0.03, 0.3, 0.9, 1])
    func noise(rate: Double) {
        for seed in UInt64(1)...20 {
            var traffic = Traffic(seed: seed)
            for count in 1...4000 {
                traffic.connect { _ in rate }
                guard count % 50 == 0, let finding = CanaryJudge(traffic.tally).finding else { continue }
                Issue.record("seed \(seed), after \(count): \(finding.text)")
            }
        }
    }

    @Test("one in twenty fails on the canary alone: found by the time that it had a thousand")
    func partial() {
        for seed in UInt64(1)...20 {
            var traffic = Traffic(seed: seed)
            while traffic.tally.total(.begun, .canary) < 1000 { traffic.connect { $0 == .canary ? 0.05 : 0 } }
            #expect(CanaryJudge(traffic.tally).finding != nil, "seed \(seed)")
        }
    }

    @Test("one client that is always refused is no finding, though it makes most of the canary's connections")
    func scanner() {
        for seed in UInt64(1)...20 {
            var traffic = Traffic(seed: seed)
            for _ in 0..<4000 {
                traffic.connect { _ in 0.01 }
                traffic.add(CanaryPlace(.canary, bucket: 7), fails: true)
            }
            #expect(CanaryJudge(traffic.tally).finding == nil, "seed \(seed)")
        }
    }

    @Test("ten times as slow is found by the hundredth connection of the canary; half as slow again never is")
    func slow() {
        for seed in UInt64(1)...15 {
            var (slow, fine) = (Traffic(seed: seed), Traffic(seed: seed))
            while slow.tally.total(.begun, .canary) < 100 {
                slow.connect(
                    fails: { _ in 0 },
                    microseconds: { side, traffic in (50 + traffic.below(400)) * (side == .canary ? 10 : 1) })
            }
            let finding = CanaryJudge(slow.tally).finding
            #expect(finding?.text.hasPrefix("slow: ") == true, "seed \(seed): \(String(describing: finding))")
            for count in 1...4000 {
                fine.connect(
                    fails: { _ in 0 },
                    microseconds: { side, traffic in (50 + traffic.below(4000)) * (side == .canary ? 3 : 2) / 2 })
                guard count % 50 == 0, let finding = CanaryJudge(fine.tally).finding else { continue }
                Issue.record("seed \(seed), after \(count): \(finding.text)")
            }
        }
    }

    @Test("clients that are far away are no slow canary, where it has a few of them by chance")
    func farAway() {
        for seed in UInt64(1)...20 {
            var traffic = Traffic(seed: seed)
            for _ in 0..<4000 {
                traffic.connect { _ in 0 }
                traffic.add(CanaryPlace(.canary, bucket: 3), fails: false, microseconds: 300_000)
            }
            #expect(CanaryJudge(traffic.tally).finding == nil, "seed \(seed)")
        }
    }

    @Test("nothing is found of one side alone, nor of a handful")
    func few() {
        for side in CanarySide.allCases {
            var traffic = Traffic(seed: 1)
            for bucket in 0..<200 { traffic.add(CanaryPlace(side, bucket: bucket % 32), fails: true) }
            #expect(CanaryJudge(traffic.tally).finding == nil)
        }
        var traffic = Traffic(seed: 1)
        for bucket in 0..<11 { traffic.add(CanaryPlace(.canary, bucket: bucket), fails: true) }
        for bucket in 0..<200 { traffic.add(CanaryPlace(.others, bucket: bucket % 32), fails: false) }
        #expect(CanaryJudge(traffic.tally).finding == nil)
    }

    @Test("a failure that begins after an hour is found in the newest window, and the past stays bounded")
    func late() {
        var traffic = Traffic(seed: 3)
        var history = CanaryHistory()
        var now = Instant(nanoseconds: 1_000_000_000)
        for _ in 0..<18_000 {
            traffic.connect { _ in 0 }
            traffic.connect { _ in 0 }
            history.add(traffic.tally, at: now)
            now = now + .milliseconds(200)
        }
        #expect(history.count < 40)
        #expect(history.windows(traffic.tally, at: now).count == 4)
        for _ in 0..<400 { traffic.connect { $0 == .canary ? 1 : 0 } }
        let found = history.windows(traffic.tally, at: now + .milliseconds(200)).compactMap { CanaryJudge($0).finding }
        #expect(!found.isEmpty)
    }

    @Test(
        "times are kept within a tenth, from a microsecond to an hour",
        arguments: [1, 3, 100, 1_500, 77_777, 3_600_000_000])
    func logarithm(micros: Int) {
        let time = TimeSpan(nanoseconds: UInt64(micros) * 1000)
        let back = CanaryTally.time(ofLog: Double(CanaryEvidence.log(time)))
        let ratio = Double(back.nanoseconds) / Double(time.nanoseconds)
        #expect((0.9...1.1).contains(ratio), "\(micros) µs became \(back.nanoseconds) ns")
    }

    @Test("how an end counts: what stages refuse, what no backend took, who left, what broke; and what says nothing")
    func outcomes() {
        let filter = ReasonCode(rawValue: ReasonCode.firstFilter)
        #expect(CanaryOutcome(filter, isRelayed: false) == .failed(.refused))
        #expect(CanaryOutcome(RuntimeReason.owedProxyHeader.code, isRelayed: false) == .failed(.refused))
        #expect(CanaryOutcome(RuntimeReason.connectRefused.code, isRelayed: false) == .failed(.notConnected))
        #expect(CanaryOutcome(RuntimeReason.abandoned.code, isRelayed: false) == .failed(.left))
        #expect(CanaryOutcome(RuntimeReason.closedByClient.code, isRelayed: true) == .fine)
        #expect(CanaryOutcome(RuntimeReason.resetByUpstream.code, isRelayed: true) == .failed(.broken))
        #expect(CanaryOutcome(filter, isRelayed: true) == .failed(.broken))
        for reason in [RuntimeReason.upgradeTimeout, .upgradeClosed] {
            #expect(CanaryOutcome(reason.code, isRelayed: false) == .failed(.notConnected))
        }
        for reason in [RuntimeReason.killed, .drainDeadline, .routeRemoved, .routeChanged, .suspended] {
            #expect(CanaryOutcome(reason.code, isRelayed: true) == .unrelated)
            #expect(CanaryOutcome(reason.code, isRelayed: false) == .unrelated)
        }
    }
}

@Suite("R29: the listeners of two programs")
struct CanaryListenersTests {
    private func planned(_ place: String, chain: Int, mode: ListenerMode = .direct) throws -> PlannedListener {
        let endpoint = try #require(Endpoint(place))
        return PlannedListener(
            ListenerSpec(endpoint: endpoint, hint: .tcpRaw, chain: chain, line: 1, mode: mode), .listen)
    }

    @Test("what both have is shared, what only the new one has is its own, what takes another's port waits")
    func plan() throws {
        let current = [
            try planned("[::]:443", chain: 0), try planned("[::]:80", chain: 1), try planned("[::]:15001", chain: 2),
        ]
        let new = [
            try planned("[::]:443", chain: 7), try planned("[2001:db8::1]:443", chain: 8),
            try planned("[::]:8080", chain: 9), try planned("[::]:15001", chain: 2, mode: .transparent),
        ]
        let (plan, waiting) = CanaryListeners.plan(current, new)
        #expect(plan.map(\.endpoint) == (current + [new[2]]).map(\.endpoint))
        #expect(plan.map(\.spec.chain) == [0, 1, 2, 9])
        #expect(
            plan.map(\.canary) == [.share(chain: 7, hint: .tcpRaw), .none, .none, .alone])
        #expect(waiting.map(\.endpoint) == [new[1].endpoint])
    }
}
