import Pipeline
import Testing

@testable import PipelineRuntime

@Suite("Byte rates")
struct PaceTests {
    /// One flow with an endless source, as a worker drives it: woken late, never early.
    private struct Driver {
        var now: UInt64 = 5_000_000_000
        var entitled: UInt64 = 0
        var moved = 0
        var wakes = 0
        var numbers: SplitMix64
        private static let pause: UInt64 = 1_000_000

        /// Reads what may be read now, then sleeps until it may read again, and a little too long.
        mutating func go(_ bucket: borrowing ByteBucket, lateness: UInt64) {
            wakes += 1
            while true {
                if let ready = bucket.readyAt(Instant(nanoseconds: now)) {
                    entitled = ready.nanoseconds
                    now =
                        max(entitled, now + Driver.pause)
                        + (lateness == 0 ? 0 : .random(in: 0..<lateness, using: &numbers))
                    return
                }
                let piece = bucket.piece(Instant(nanoseconds: now))
                bucket.charge(piece, at: Instant(nanoseconds: entitled == 0 ? now : min(entitled, now)))
                moved += piece
            }
        }
    }

    @Test(
        "R20: the long-run rate is within 1 % from 10 kB/s to 1 GB/s, however late a worker wakes",
        arguments: [10_000, 65_536, 1_000_000, 12_500_000, 125_000_000, 1_000_000_000] as [UInt64],
        [0, 2_000_000, 17_000_000] as [UInt64])
    func rate(bytesPerSecond: UInt64, lateness: UInt64) {
        let bucket = ByteBucket(bytesPerSecond: bytesPerSecond, burst: 0)
        var driver = Driver(numbers: SplitMix64(seed: bytesPerSecond &+ lateness))
        let start = driver.now
        // Long enough that one read more or less is no percent.
        let span = max(
            4_000_000_000, UInt64(bucket.piece(Instant(nanoseconds: 0))) * 400 * 1_000_000_000 / bytesPerSecond)
        while driver.now - start < span { driver.go(bucket, lateness: lateness) }
        let expected = Double(bytesPerSecond) * Double(driver.now - start) / 1e9
        let ratio = Double(driver.moved) / expected
        #expect(ratio > 0.99 && ratio < 1.01, "\(bytesPerSecond) B/s: \(ratio)")
        #expect(driver.wakes <= Int((driver.now - start) / 1_000_000) + 1, "woken more often than once a millisecond")
    }

    @Test("R20: many flows on two workers share one rate, within 1 %")
    func shared() {
        let bucket = ByteBucket(bytesPerSecond: 5_000_000, burst: 100_000)
        var flows = (0..<40).map { Driver(numbers: SplitMix64(seed: UInt64($0))) }
        let start = flows[0].now
        let end = start + 20_000_000_000
        while let next = flows.indices.min(by: { flows[$0].now < flows[$1].now }), flows[next].now < end {
            flows[next].go(bucket, lateness: 9_000_000)
        }
        let moved = flows.reduce(0) { $0 + $1.moved }
        let ratio = Double(moved - 100_000) / (5_000_000.0 * 20)
        #expect(ratio > 0.99 && ratio < 1.01, "\(ratio)")
    }

    @Test("R20: never more than the rate, the burst and one read; a pause saves up no more than the burst")
    func burst() {
        let bucket = ByteBucket(bytesPerSecond: 1_000_000, burst: 200_000)
        for pause in [0, 1_000_000_000, 60_000_000_000] as [UInt64] {
            let now = Instant(nanoseconds: 100_000_000_000 + pause)
            var moved = 0
            while bucket.readyAt(now) == nil {
                bucket.charge(bucket.piece(now), at: now)
                moved += bucket.piece(now)
            }
            #expect(moved <= 200_000 + bucket.piece(now))
            if pause != 0 { #expect(moved >= 200_000 - bucket.piece(now)) }
        }
    }

    @Test("a rate of 0 is none; the largest rates and charges don't overflow")
    func edges() {
        let free = ByteBucket(bytesPerSecond: 0, burst: 0)
        free.charge(.max, at: Instant(nanoseconds: 1))
        holds(free.isUnlimited)
        holds(free.readyAt(Instant(nanoseconds: 0)) == nil)
        let slow = ByteBucket(bytesPerSecond: 1, burst: .max)
        slow.charge(.max, at: Instant(nanoseconds: .max))
        _ = slow.readyAt(Instant(nanoseconds: 0))
        let fast = ByteBucket(bytesPerSecond: .max, burst: 0)
        fast.charge(65536, at: Instant(nanoseconds: 7))
        holds(fast.readyAt(Instant(nanoseconds: 8)) == nil || fast.piece(Instant(nanoseconds: 8)) == 65536)
        holds(ByteBucket(bytesPerSecond: 10_000, burst: 0).piece(Instant(nanoseconds: 8)) == 1460)
    }

    @Test("the queue wakes in order of time against a model; who waits longest goes first among equals")
    func queue() {
        let slots = UnsafeMutablePointer<Slot>.allocate(capacity: 50)
        slots.initialize(repeating: Slot(), count: 50)
        defer { slots.deallocate() }
        var queue = PaceQueue(capacity: 50)
        var model: [Int: UInt64] = [:]
        var numbers = SplitMix64(seed: 9)
        func random(_ limit: UInt64) -> UInt64 { .random(in: 0..<limit, using: &numbers) }
        var now: UInt64 = 0
        for _ in 0..<20_000 {
            let index = Int(random(50))
            switch random(4) {
            case 0, 1:
                let deadline = now + random(1000)
                queue.wake(slots, index, at: Instant(nanoseconds: deadline))
                model[index] = min(model[index] ?? .max, deadline)
            case 2:
                queue.remove(slots, index)
                model[index] = nil
            default:
                now += random(200)
                while let due = queue.popDue(slots, now: Instant(nanoseconds: now)) {
                    holds(model[due].map { $0 <= now && $0 == model.values.min() } == true)
                    model[due] = nil
                }
                holds(model.values.allSatisfy { $0 > now }, "one that is due was left")
            }
            holds(queue.count == model.count)
            holds(queue.next?.nanoseconds == model.values.min())
        }
        for index in 0..<50 {
            queue.remove(slots, index)
            slots[index].paceOrder = 0
        }
        for index in [7, 3, 9] { queue.wake(slots, index, at: Instant(nanoseconds: 5)) }
        // The first has had its turn, and waits again; the others have not.
        holds(queue.popDue(slots, now: Instant(nanoseconds: 5)) == 7)
        slots[7].paceOrder = 0
        queue.wake(slots, 7, at: Instant(nanoseconds: 5))
        for index in [3, 9, 7] { holds(queue.popDue(slots, now: Instant(nanoseconds: 5)) == index) }
    }

    @Test("R27: a connection's slot, with holds and buckets, stays under 512 bytes")
    func size() { #expect(MemoryLayout<Slot>.stride <= 464, "\(MemoryLayout<Slot>.stride)") }
}
