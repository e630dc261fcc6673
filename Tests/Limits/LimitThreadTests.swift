import Foundation
import Pipeline
import Synchronization
import Testing

@testable import PipelineLimits

/// Threads that all run `body`, each with its number; returns when all have.
private func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
    let group = DispatchGroup()
    for number in 0..<count {
        group.enter()
        Thread.detachNewThread {
            body(number)
            group.leave()
        }
    }
    group.wait()
}

/// Lets nobody go on before all are there, over and over.
private final class Barrier: Sendable {
    private let count: UInt64
    private let arrived = Atomic<UInt64>(0)
    init(_ count: Int) { self.count = UInt64(count) }
    func meet() {
        let number = arrived.wrappingAdd(1, ordering: .acquiringAndReleasing).oldValue
        let goal = (number / count + 1) * count
        while arrived.load(ordering: .acquiring) < goal { sched_yield() }
    }
}

/// Counts that many threads add to.
private final class Tally: Sendable {
    private let counts: Mutex<[Int]>
    init(_ size: Int) { counts = Mutex([Int](repeating: 0, count: size)) }
    func add(_ other: [Int]) {
        counts.withLock { counts in
            for index in other.indices { counts[index] += other[index] }
        }
    }
    var all: [Int] { counts.withLock { $0 } }
}

private final class Clock: Sendable {
    private let value: Atomic<UInt64>
    private let step: UInt64
    init(_ start: UInt64, step: UInt64) {
        value = Atomic(start)
        self.step = step
    }
    func tick() -> UInt64 { value.wrappingAdd(step, ordering: .relaxed).oldValue }
}

private let second: UInt64 = 1_000_000_000

@Suite("A limit's table under threads")
struct LimitThreadTests {
    @Test("eight threads on one key, clocks apart: within 1% of the limit, and never above")
    func oneKey() throws {
        let rate = ConnectionRate(count: 1000, period: .seconds(1), burst: 50)
        let probe = try LimitProbe(rate: rate)
        let (clock, tally) = (Clock(second, step: 20_000), Tally(1))
        let end = 11 * second
        onThreads(8) { thread in
            // Each worker's clock is behind by its own part of a turn.
            let lag = UInt64(thread) * 100_000
            var admitted = 0
            while case let now = clock.tick(), now < end {
                if probe.admit(7, at: now - lag).refusal == nil { admitted += 1 }
            }
            tally.add([admitted])
        }
        let limit = 50 + 10 * 1000
        #expect(tally.all[0] <= limit && tally.all[0] >= limit * 99 / 100, "\(tally.all[0]) of \(limit)")
        #expect(probe.handle.entryCount(of: LimitKeyBits(high: 7, low: 0)) == 1)
    }

    @Test("eight threads, at most N at once, exactly, and all given back")
    func concurrent() throws {
        let probe = try LimitProbe(concurrent: 3)
        let (active, most) = (Shared(), Shared())
        onThreads(8) { _ in
            for step in 0..<20_000 {
                guard let reservation = probe.admit(7, at: second + UInt64(step)).reservation else { continue }
                most.raise(to: active.add())
                active.remove()
                reservation.pointee.remove()
            }
        }
        #expect(most.value <= 3 && most.value >= 1)
        #expect(probe.look(7, at: second).active == 0)
    }

    @Test("R27: 100,000 sources against 10,000 entries: no more memory, no source above its limit, refusals counted")
    func manySources() throws {
        let sources = 100_000
        let rate = ConnectionRate(count: 1, period: .seconds(1), burst: 2)
        let probe = try LimitProbe(rate: rate, entries: 10_000)
        let (clock, tally, full) = (Clock(second, step: 10_000), Tally(sources), Tally(1))
        let end = 7 * second
        onThreads(4) { thread in
            var admitted = [Int](repeating: 0, count: sources)
            var (refused, numbers) = (0, SplitMix64(seed: UInt64(thread + 1)))
            while case let now = clock.tick(), now < end {
                // Half of the traffic is a tenth of a percent of the sources.
                let source = numbers.below(numbers.below(2) == 0 ? sources : 100)
                switch probe.admit(UInt64(source), at: now) {
                case .admitted: admitted[source] += 1
                case .refused(.tableFull): refused += 1
                case .refused: break
                }
            }
            tally.add(admitted)
            full.add([refused])
        }
        #expect(tally.all.allSatisfy { $0 <= 2 + 6 })
        #expect(tally.all.prefix(100).allSatisfy { $0 <= 8 })
        #expect(probe.table.touched <= UInt64(probe.table.capacity) && probe.table.capacity == 10_000)
        #expect(full.all[0] > 10_000 && probe.table.refusedInserts == UInt64(full.all[0]))
        #expect(probe.table.inserts > 10_000, "entries were used again")
    }

    @Test("threads that insert the same new keys at once end with one entry a key, and one burst")
    func sameNewKey() throws {
        let (threads, rounds) = (4, 3000)
        let probe = try LimitProbe(rate: ConnectionRate(count: 1, period: .seconds(1), burst: 2), entries: 16)
        let (barrier, wrong, tally) = (Barrier(threads), Shared(), Tally(rounds))
        onThreads(threads) { thread in
            var admitted = [Int](repeating: 0, count: rounds)
            for round in 0..<rounds {
                // Long enough apart for every entry to be free again, so that slots change hands in each round.
                let (key, now) = (UInt64(round), second * UInt64(10 + round * 10))
                barrier.meet()
                for _ in 0..<2 where probe.admit(key, at: now).refusal == nil { admitted[round] += 1 }
                // Neighbours, so that the buckets are contended by other keys as well.
                _ = probe.admit(UInt64(1_000_000 + round * threads + thread), at: now)
                barrier.meet()
                if thread == 0, probe.handle.entryCount(of: LimitKeyBits(high: key, low: 0)) != 1 { _ = wrong.add() }
                barrier.meet()
            }
            tally.add(admitted)
        }
        #expect(wrong.value == 0)
        #expect(tally.all.allSatisfy { $0 == 2 }, "\(tally.all.filter { $0 != 2 }.count) rounds gave another burst")
    }
}

/// A count that knows its largest.
private final class Shared: Sendable {
    private let count = Atomic<Int>(0)
    var value: Int { count.load(ordering: .relaxed) }
    func add() -> Int { count.wrappingAdd(1, ordering: .relaxed).newValue }
    func remove() { count.wrappingSubtract(1, ordering: .relaxed) }
    func raise(to other: Int) { _ = count.max(other, ordering: .relaxed) }
}

/// The interleavings of two inserts, by hand: threads meet them once in a million.
@Suite("Two workers insert one key")
struct LimitInsertTests {
    private let key = LimitKeyBits(high: 42, low: 0)
    private let now = 100 * second

    private func probe() throws -> LimitProbe {
        try LimitProbe(rate: ConnectionRate(count: 1, period: .seconds(1), burst: 2), entries: 8)
    }

    /// A worker that has claimed a slot, and then, perhaps, published it.
    private func begin(_ table: LimitHandle, publishes: Bool = true) throws -> (slot: LimitSlot, number: UInt64) {
        let (slot, number) = try #require(table.claim(table.place(of: key), now))
        slot.setKey(key)
        if publishes { publish(table, slot, number) }
        return (slot, number)
    }
    private func publish(_ table: LimitHandle, _ slot: LimitSlot, _ number: UInt64) {
        slot.publish(tag: table.place(of: key).tag, word: LimitWord.tentative(number))
    }
    private func settle(_ table: LimitHandle, _ begun: (slot: LimitSlot, number: UInt64)) {
        table.settle(begun.slot, LimitWord.tentative(begun.number), key, table.place(of: key), now)
    }

    @Test("both published: the lower slot wins, whoever settles first", arguments: [true, false])
    func bothPublished(_ lowerFirst: Bool) throws {
        let probe = try probe()
        let (lower, higher) = (try begin(probe.handle), try begin(probe.handle))
        for begun in lowerFirst ? [lower, higher] : [higher, lower] { settle(probe.handle, begun) }
        #expect(probe.handle.entryCount(of: key) <= 1)
        #expect(probe.admitted(42, 5, at: now) == 2)
        #expect(probe.handle.entryCount(of: key) == 1)
    }

    @Test("one sleeps before it publishes: it gives way to the entry that went live meanwhile")
    func sleepsBeforePublishing() throws {
        let probe = try probe()
        let sleeper = try begin(probe.handle, publishes: false)
        #expect(probe.admitted(42, 1, at: now) == 1)
        publish(probe.handle, sleeper.slot, sleeper.number)
        // The second of the burst, while both are to be seen.
        #expect(probe.admitted(42, 1, at: now) == 1)
        settle(probe.handle, sleeper)
        #expect(probe.handle.entryCount(of: key) == 1)
        #expect(probe.admitted(42, 5, at: now) == 0)
    }

    @Test("one sleeps after it published: others settle its slot, and count on it")
    func sleepsAfterPublishing() throws {
        let probe = try probe()
        let sleeper = try begin(probe.handle)
        #expect(probe.admitted(42, 5, at: now) == 2)
        settle(probe.handle, sleeper)
        #expect(probe.handle.entryCount(of: key) == 1 && probe.admitted(42, 5, at: now) == 0)
    }

    @Test("one sleeps with the word of a slot that has since changed hands: it can't bring the old key back")
    func oldWord() throws {
        let probe = try probe()
        let first = try begin(probe.handle)
        let second = try begin(probe.handle)
        settle(probe.handle, first)
        settle(probe.handle, second)
        // The loser's slot goes to other keys; then the loser wakes up, twice.
        for other in 100..<107 { _ = probe.admit(UInt64(other), at: now) }
        settle(probe.handle, second)
        settle(probe.handle, first)
        #expect(probe.handle.entryCount(of: key) == 1)
        #expect((100..<107).allSatisfy { probe.handle.entryCount(of: LimitKeyBits(high: $0, low: 0)) == 1 })
    }
}
