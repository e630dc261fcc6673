import Pipeline
import PipelineLimits
import Testing

/// The limit as one would write it with all the memory in the world: nothing is ever forgotten.
private struct Model {
    let interval: UInt64
    let burst: UInt64
    let concurrent: Int
    var arrival: [UInt64: UInt64] = [:]
    var active: [UInt64: Int] = [:]

    func refusal(_ key: UInt64, _ now: UInt64) -> LimitRefusal? {
        if max(arrival[key] ?? 0, now) + interval > now + burst * interval { return .rateExceeded }
        return active[key, default: 0] >= concurrent ? .tooManyConnections : nil
    }
    mutating func admit(_ key: UInt64, _ now: UInt64) {
        arrival[key] = max(arrival[key] ?? 0, now) + interval
        active[key, default: 0] += 1
    }
    /// Something would be lost with its entry, or may be for all that a worker's clock tells.
    func isPinned(_ key: UInt64, _ now: UInt64) -> Bool {
        active[key, default: 0] > 0 || arrival[key].map { $0 + 1_000_000_000 > now } == true
    }
}

@Suite("A limit's table against a model that forgets nothing")
struct LimitModelTests {
    @Test("the same answers on any schedule, and full only when it is", arguments: 0..<40)
    func schedule(_ seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let burst = UInt64.random(in: 1...5, using: &random)
        let concurrent = Int.random(in: 1...4, using: &random)
        let isOneBucket = seed % 2 == 0
        let rate = ConnectionRate(count: .random(in: 1...50, using: &random), period: .seconds(1), burst: burst)
        let probe = try LimitProbe(
            rate: rate, concurrent: UInt32(concurrent), entries: isOneBucket ? 8 : 64)
        var model = Model(interval: rate.refill.nanoseconds / burst, burst: burst, concurrent: concurrent)
        let keys: ClosedRange<UInt64> = 1...(isOneBucket ? 14 : 90)
        var open: [(key: UInt64, reservation: UnsafePointer<ReservationCount>)] = []
        var now: UInt64 = 0
        var full = 0
        for _ in 0..<4000 {
            now += UInt64.random(in: 0...(Bool.random(using: &random) ? 10_000_000 : 400_000_000), using: &random)
            // Another worker's clock, a turn behind.
            let seen = now - min(now, .random(in: 0...5_000_000, using: &random))
            if !open.isEmpty, Int.random(in: 0..<5, using: &random) < 2 {
                let ended = open.remove(at: .random(in: 0..<open.count, using: &random))
                ended.reservation.pointee.remove()
                model.active[ended.key, default: 0] -= 1
            }
            let key = UInt64.random(in: keys, using: &random)
            let answer = probe.admit(key, at: seen)
            switch answer {
            case .refused(.tableFull):
                full += 1
                let pinned = keys.count { $0 != key && model.isPinned($0, seen) }
                // Its own entry may have gone by the clock of a worker that is ahead.
                #expect(pinned >= 8 && !model.isPinned(key, now), "seed \(seed)")
            case .refused(let refusal):
                #expect(refusal == model.refusal(key, seen), "seed \(seed)")
            case .admitted(let reservation, _):
                #expect(model.refusal(key, seen) == nil, "seed \(seed)")
                model.admit(key, seen)
                open.append((key, try #require(reservation)))
            }
        }
        #expect(!isOneBucket || full > 0, "a schedule that never fills the table shows nothing")
    }
}
