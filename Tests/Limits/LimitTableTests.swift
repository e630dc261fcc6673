import Pipeline
import Testing

@testable import PipelineLimits

private let second: UInt64 = 1_000_000_000

/// A table that one test asks, with time as it says.
struct LimitProbe {
    let table: LimitTable
    var handle: LimitHandle { table.handle }

    init(
        rate: ConnectionRate? = nil, concurrent: UInt32? = nil, bytesUp: ByteRate? = nil, entries: UInt64 = 64
    ) throws {
        let settings = LimitSettings(
            key: .client(v6: 64, v4: 32), rate: rate, concurrent: concurrent, bytesUp: bytesUp, entries: entries)
        table = try #require(LimitTable(name: "probe", settings: settings, seed: .init(1, 2)))
    }

    func admit(_ key: UInt64, at nanoseconds: UInt64) -> LimitAnswer {
        handle.admit(LimitKeyBits(high: key, low: 0), at: Instant(nanoseconds: nanoseconds))
    }
    /// How many of `count` at once may begin.
    func admitted(_ key: UInt64, _ count: Int, at nanoseconds: UInt64) -> Int {
        (0..<count).count { _ in admit(key, at: nanoseconds).refusal == nil }
    }
    func look(_ key: UInt64, at nanoseconds: UInt64) -> LimitState {
        handle.look(LimitKeyBits(high: key, low: 0), at: Instant(nanoseconds: nanoseconds))
    }
}

extension LimitAnswer {
    var reservation: UnsafePointer<ReservationCount>? {
        guard case .admitted(let reservation, _) = self else { return nil }
        return reservation
    }
    var bucket: UnsafePointer<ByteBuckets>? {
        guard case .admitted(_, let bucket) = self else { return nil }
        return bucket
    }
}

@Suite("A limit's table, with the time as a parameter")
struct LimitTableTests {
    private static func perSecond(_ count: UInt64, burst: UInt64) -> ConnectionRate {
        ConnectionRate(count: count, period: .seconds(1), burst: burst)
    }

    @Test("a burst at once, then one an interval, and the whole burst after a pause")
    func burstAndRate() throws {
        let probe = try LimitProbe(rate: Self.perSecond(10, burst: 4))
        let start = 100 * second
        #expect(probe.admitted(1, 10, at: start) == 4)
        #expect(probe.admit(1, at: start + second / 10 - 1).refusal == .rateExceeded)
        #expect(probe.admitted(1, 10, at: start + second / 10) == 1)
        #expect(probe.admitted(1, 10, at: start + 3 * second / 10) == 2)
        #expect(probe.admitted(1, 10, at: start + 3600 * second) == 4)
        #expect(probe.admitted(2, 10, at: start + 3600 * second) == 4, "another key has its own")
    }

    @Test("what was refused is not charged")
    func refusalsAreFree() throws {
        let probe = try LimitProbe(rate: Self.perSecond(1, burst: 1))
        #expect(probe.admitted(1, 1000, at: second) == 1)
        #expect(probe.admitted(1, 1000, at: 2 * second) == 1)
    }

    @Test("a minute's and an hour's rate, and the burst unless said")
    func periods() throws {
        #expect(ConnectionRate(count: 200, period: .seconds(1)).burst == 200)
        #expect(ConnectionRate(count: 120, period: .seconds(60)).burst == 2)
        #expect(ConnectionRate(count: 5, period: .seconds(3600)).burst == 1)
        let probe = try LimitProbe(rate: ConnectionRate(count: 3, period: .seconds(3600)))
        var admitted = 0
        for minute in 0..<600 { admitted += probe.admitted(1, 1, at: UInt64(minute + 1) * 60 * second) }
        #expect(admitted == 30)
    }

    @Test("a rate that doesn't divide its period is never exceeded, and met to a thousandth")
    func oddRate() throws {
        let probe = try LimitProbe(rate: Self.perSecond(999_983, burst: 10))
        var admitted = 0
        for step in 0..<100_000 { admitted += probe.admitted(1, 2, at: second + UInt64(step) * 1000) }
        #expect(admitted <= 10 + 99_998 && admitted >= 99_900)
    }

    @Test("a worker whose clock is behind, or a clock that steps back, gives nobody more")
    func clockBehind() throws {
        let probe = try LimitProbe(rate: Self.perSecond(10, burst: 5))
        #expect(probe.admitted(1, 10, at: 50 * second) == 5)
        for back in stride(from: UInt64(0), to: 50 * second, by: Int(second)) {
            #expect(probe.admitted(1, 10, at: 50 * second - back) == 0)
        }
        #expect(probe.admitted(1, 10, at: 50 * second + second / 10) == 1)
    }

    @Test("the ends of time don't trap, and give no more than a burst", arguments: [0, 1, UInt64.max - 1, .max])
    func endsOfTime(_ now: UInt64) throws {
        let slow = try LimitProbe(rate: ConnectionRate(count: 1, period: .seconds(3600), burst: 700))
        #expect(slow.admitted(1, 1000, at: now) == 700)
        #expect(slow.admitted(1, 1000, at: .max) <= 700)
        #expect(try LimitProbe(concurrent: 2).admitted(1, 10, at: now) == 2)
    }

    @Test("as many at once as the limit says, and one more for each that ends")
    func concurrent() throws {
        let probe = try LimitProbe(concurrent: 3)
        let answers = (0..<5).map { _ in probe.admit(1, at: second) }
        #expect(answers.map(\.refusal) == [nil, nil, nil, .tooManyConnections, .tooManyConnections])
        answers[0].reservation?.pointee.remove()
        #expect(probe.admitted(1, 5, at: second) == 1)
        #expect(
            probe.look(1, at: second)
                == LimitState(
                    isKnown: true, available: nil, active: 3, refusal: .tooManyConnections))
    }

    @Test("what the rate refuses holds nothing, and what the count refuses is not charged")
    func rateAndConcurrent() throws {
        let probe = try LimitProbe(rate: Self.perSecond(1, burst: 3), concurrent: 2)
        let first = probe.admit(1, at: second)
        #expect(probe.admitted(1, 1, at: second) == 1)
        #expect(probe.admit(1, at: second).refusal == .tooManyConnections)
        first.reservation?.pointee.remove()
        #expect(probe.admit(1, at: second).refusal == nil, "the third of the burst is still there")
        #expect(probe.admit(1, at: second).refusal == .rateExceeded)
        #expect(probe.look(1, at: second).active == 2)
    }

    @Test("R27: a full table refuses new keys; entries that limit nobody any more are used again")
    func fullTable() throws {
        let probe = try LimitProbe(rate: Self.perSecond(1, burst: 1), entries: 8)
        for key in 1...8 { #expect(probe.admit(UInt64(key), at: second).refusal == nil) }
        #expect(probe.admit(9, at: second).refusal == .tableFull)
        #expect(probe.look(9, at: second).refusal == .tableFull)
        #expect(probe.table.refusedInserts == 1)
        #expect(probe.table.entriesInUse(at: Instant(nanoseconds: second)) == 8)
        // Whole again at 2 s, free 1 s after that.
        #expect(probe.admit(9, at: 3 * second - 1).refusal == .tableFull)
        #expect(probe.admit(9, at: 3 * second).refusal == nil)
        #expect(probe.table.touched == 8 && probe.table.inserts == 9)
    }

    @Test("an entry is not reused while a connection counts on it, or bytes are owed")
    func pinned() throws {
        let held = try LimitProbe(concurrent: 1, entries: 8)
        let answers = (1...8).map { held.admit(UInt64($0), at: second) }
        #expect(held.admit(9, at: 3600 * second).refusal == .tableFull)
        answers[4].reservation?.pointee.remove()
        #expect(held.admit(9, at: 3600 * second).refusal == nil)
        #expect(held.admit(10, at: 3600 * second).refusal == .tableFull)

        let paced = try LimitProbe(bytesUp: ByteRate(bytesPerSecond: 1000, burst: 4096), entries: 8)
        for key in 1...8 {
            let answer = paced.admit(UInt64(key), at: second)
            answer.bucket?.pointee.up.charge(10_000, at: Instant(nanoseconds: second))
            answer.reservation?.pointee.remove()
        }
        #expect(paced.admit(9, at: 10 * second).refusal == .tableFull, "ten seconds' bytes from the first second on")
        #expect(paced.admit(9, at: 12 * second).refusal == nil)
    }

    @Test("a key that comes back meets its old debts: its bytes, its connections")
    func comesBack() throws {
        let probe = try LimitProbe(bytesUp: ByteRate(bytesPerSecond: 1000, burst: 4096))
        let first = probe.admit(1, at: second)
        first.bucket?.pointee.up.charge(100_000, at: Instant(nanoseconds: second))
        first.reservation?.pointee.remove()
        let again = probe.admit(1, at: 2 * second)
        #expect(again.bucket == first.bucket)
        #expect(again.bucket?.pointee.up.readyAt(Instant(nanoseconds: 2 * second)) != nil)
        #expect(again.bucket?.pointee.down.isUnlimited == true)
    }

    @Test("two choices of a bucket: a table is four fifths full before the first key is refused")
    func load() throws {
        let probe = try LimitProbe(rate: Self.perSecond(1, burst: 1), entries: 10_000)
        var taken = 0
        for key in 0..<10_000 where probe.admit(UInt64(key), at: second).refusal == nil { taken += 1 }
        #expect(taken > 9_500, "\(taken)")
        var untilRefused = 0
        let fresh = try LimitProbe(rate: Self.perSecond(1, burst: 1), entries: 10_000)
        while fresh.admit(UInt64(untilRefused), at: second).refusal == nil { untilRefused += 1 }
        #expect(untilRefused > 7_800, "\(untilRefused)")
    }

    @Test("looking changes nothing")
    func looking() throws {
        let probe = try LimitProbe(rate: Self.perSecond(1, burst: 2))
        for _ in 0..<10 {
            #expect(probe.look(1, at: second) == LimitState(isKnown: false, available: 2, active: 0, refusal: nil))
        }
        #expect(probe.table.touched == 0)
        #expect(probe.admitted(1, 5, at: second) == 2)
        for _ in 0..<10 { #expect(probe.look(1, at: second).refusal == .rateExceeded) }
        #expect(probe.look(1, at: 2 * second).available == 1)
    }
}
