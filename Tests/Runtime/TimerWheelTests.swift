import Pipeline
import Testing

@testable import PipelineRuntime

@Suite("Timer wheel")
struct TimerWheelTests {
    /// A wheel with its slots, and a model that knows nothing of buckets.
    private struct Bench: ~Copyable {
        let slots: UnsafeMutablePointer<Slot>
        let count: Int
        var wheel: TimerWheel
        var model: [Int: UInt64] = [:]

        init(slots count: Int, at start: UInt64) {
            self.count = count
            slots = .allocate(capacity: count)
            slots.initialize(repeating: Slot(), count: count)
            wheel = TimerWheel(now: Instant(nanoseconds: start))
        }
        deinit { slots.deallocate() }

        mutating func arm(_ index: Int, _ deadline: UInt64) {
            wheel.arm(slots, index, at: Instant(nanoseconds: deadline))
            model[index] = deadline
        }
        mutating func disarm(_ index: Int) {
            wheel.disarm(slots, index)
            model[index] = nil
        }
        mutating func expired(_ now: UInt64) -> Set<Int> {
            var found: Set<Int> = []
            while let index = wheel.expired(slots, now: Instant(nanoseconds: now)) {
                holds(!found.contains(index), "told twice")
                found.insert(index)
            }
            return found
        }
    }

    private static let tick: UInt64 = 1 << TimerWheel.tickShift
    private static let lap = tick * UInt64(TimerWheel.buckets)

    @Test("R7, R13: against a model over random arms, disarms and leaps: never early, at most a tick late")
    func model() {
        var numbers = SplitMix64(seed: 42)
        func random(_ limit: UInt64) -> UInt64 { .random(in: 0..<limit, using: &numbers) }
        var now: UInt64 = 3_000_000_007
        var bench = Bench(slots: 60, at: now)
        for _ in 0..<20_000 {
            let index = Int(random(60))
            switch random(10) {
            case 0...4:
                bench.arm(index, now + random(random(8) == 0 ? TimerWheelTests.lap * 3 : TimerWheelTests.tick * 50))
            case 5: bench.disarm(index)
            default:
                now += random(random(50) == 0 ? TimerWheelTests.lap * 2 : TimerWheelTests.tick * 3)
                for found in bench.expired(now) {
                    holds(bench.model[found].map { $0 <= now } == true, "early, or not armed")
                    bench.model[found] = nil
                }
                for (index, deadline) in bench.model where deadline + TimerWheelTests.tick <= now {
                    Issue.record("slot \(index) is late: due \(deadline), now \(now)")
                    return
                }
                let sleep = bench.wheel.sleep(now: Instant(nanoseconds: now))
                holds((sleep == nil) == bench.model.isEmpty)
                if let sleep, let first = bench.model.values.min() {
                    holds(now + sleep.nanoseconds <= max(first, now) + TimerWheelTests.tick, "sleeps past a deadline")
                }
            }
            holds(bench.wheel.armed == bench.model.count)
        }
    }

    @Test("a sleep is never zero for ever: each ends with a deadline or a later bucket")
    func noSpin() {
        var now: UInt64 = 17
        var bench = Bench(slots: 2, at: now)
        bench.arm(0, now + TimerWheelTests.lap * 2 + 5)
        var wakes = 0
        while bench.model[0] != nil {
            let sleep = bench.wheel.sleep(now: Instant(nanoseconds: now))?.nanoseconds ?? 0
            now += sleep
            if !bench.expired(now).isEmpty { bench.model[0] = nil }
            wakes += 1
            guard wakes < 10 else {
                Issue.record("ten wakeups for a deadline two laps away")
                return
            }
        }
        holds(now >= 17 + TimerWheelTests.lap * 2 + 5)
    }

    @Test("arming again moves a deadline; disarming twice is nothing; the end of time does not trap")
    func edges() {
        var bench = Bench(slots: 3, at: 0)
        bench.arm(0, TimerWheelTests.tick * 5)
        bench.arm(0, TimerWheelTests.tick * 50)
        holds(bench.expired(TimerWheelTests.tick * 10).isEmpty)
        holds(bench.expired(TimerWheelTests.tick * 51) == [0])
        bench.disarm(0)
        bench.disarm(0)
        holds(bench.wheel.sleep(now: Instant(nanoseconds: 0)) == nil)
        bench.arm(1, .max)
        holds(bench.expired(TimerWheelTests.lap * 100).isEmpty)
        holds(bench.wheel.sleep(now: Instant(nanoseconds: TimerWheelTests.lap * 100)) != nil)
    }

    @Test("a deadline in the past is told at the next tick, not lost for a lap")
    func past() {
        var bench = Bench(slots: 1, at: TimerWheelTests.tick * 100)
        bench.arm(0, TimerWheelTests.tick * 3)
        holds(bench.expired(TimerWheelTests.tick * 101 + 1) == [0])
    }
}
