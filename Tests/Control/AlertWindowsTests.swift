import FilterEgressAccounting
import Pipeline
import Testing

@testable import PipelineAlerts

/// `#expect` takes no mutating calls on a variable.
private final class Box<Value> {
    var value: Value
    init(_ value: Value) { self.value = value }
    func with<Result>(_ body: (inout Value) -> Result) -> Result { body(&value) }
}

@Suite("Windows that alerts are counted in")
struct AlertWindowsTests {
    @Test("a count is there for nine tenths of a window after its own, and then gone")
    func edges() {
        var count = SlidingCount()
        count.advance(to: 100)
        count.add(3)
        count.advance(to: 105)
        count.add(4)
        count.advance(to: 109)
        #expect(count.sum == 7)
        count.advance(to: 110)
        #expect(count.sum == 4)
        count.advance(to: 114)
        #expect(count.sum == 4)
        count.advance(to: 115)
        #expect(count.sum == 0)
        count.advance(to: 3)
        count.add(1)
        #expect(count.sum == 1)
        count.advance(to: 1_000_000)
        #expect(count.sum == 0)
    }

    @Test("a count stays at its bound instead of wrapping")
    func bound() {
        var count = SlidingCount()
        count.advance(to: 1)
        count.add(.max)
        count.add(9)
        #expect(count.sum == UInt64(UInt32.max))
        count.advance(to: 11)
        #expect(count.sum == 0)
    }

    @Test("tenths of a window, also of one that is shorter than ten nanoseconds")
    func buckets() {
        #expect(SlidingCount.bucket(59_999_999_999, ofWindow: 60_000_000_000) == 9)
        #expect(SlidingCount.bucket(60_000_000_000, ofWindow: 60_000_000_000) == 10)
        #expect(SlidingCount.bucket(7, ofWindow: 0) == 7)
    }

    @Test("what happens again counts once, and stays as long as it happens")
    func distinct() {
        let window = Box(DistinctWindow())
        #expect(window.with({ $0.advance(to: 10) }) == 0)
        #expect(
            window.with({ $0.note(1, hasRoom: true) }) && window.with({ $0.note(2, hasRoom: true) })
                && !window.with({ $0.note(1, hasRoom: true) }))
        #expect(window.value.count == 2)
        #expect(window.with({ $0.advance(to: 19) }) == 0)
        #expect(!window.with({ $0.note(1, hasRoom: false) }))
        #expect(window.with({ $0.advance(to: 20) }) == 1)
        #expect(window.value.count == 1)
        #expect(window.with({ $0.advance(to: 28) }) == 0)
        #expect(window.with({ $0.advance(to: 29) }) == 1)
        #expect(window.value.count == 0)
    }

    @Test("R27: at the bound nothing more is kept, that is said, and it ends with the window")
    func distinctBound() {
        let window = Box(DistinctWindow())
        _ = window.with({ $0.advance(to: 10) })
        for hash in 0..<UInt64(DistinctWindow.limit) { #expect(window.with({ $0.note(hash, hasRoom: true) })) }
        #expect(!window.value.isAtBound)
        #expect(!window.with({ $0.note(1 << 40, hasRoom: true) }))
        #expect(window.value.isAtBound && window.value.count == DistinctWindow.limit)
        #expect(window.with({ $0.advance(to: 20) }) == DistinctWindow.limit)
        #expect(!window.value.isAtBound && window.value.count == 0)
        #expect(!window.with({ $0.note(1, hasRoom: false) }))
        #expect(window.value.isAtBound && window.value.count == 0)
        _ = window.with({ $0.advance(to: 21) })
        #expect(!window.value.isAtBound)
    }

    @Test("places are new once; hardly one that is new is taken for a known one")
    func places() {
        let places = Box(RecentPlaces())
        let fill = {
            (0..<RecentPlaces.capacity).count { number in places.with { $0.insert(Hashing.mix(UInt64(number))) } }
        }
        let new = fill()
        #expect(new > RecentPlaces.capacity * 98 / 100)
        #expect(fill() == 0)
    }

    @Test("what is asked for again and again is never forgotten; what is not is, in the end")
    func forgets() {
        let places = Box(RecentPlaces())
        let (kept, left) = (Hashing.mix(1), Hashing.mix(2))
        #expect(places.with({ $0.insert(kept) }) && places.with({ $0.insert(left) }))
        for number in 0..<RecentPlaces.capacity * 6 {
            _ = places.with({ $0.insert(Hashing.mix(UInt64(1000 + number))) })
            #expect(!places.with({ $0.insert(kept) }))
        }
        #expect(places.with({ $0.insert(left) }))
    }

    @Test("what is usual is known after six whole windows; the first, which is none, does not count")
    func usual() {
        var volume = UsualVolume()
        volume.advance(to: 5, isAlerting: false)
        volume.add(out: 1_000_000, into: 0)
        for window in 6..<12 as Range<UInt64> {
            volume.advance(to: window, isAlerting: false)
            #expect(!volume.isKnown)
            volume.add(out: 60, into: 40)
        }
        volume.advance(to: 12, isAlerting: false)
        #expect(volume.isKnown && volume.average == 100)
        let settings = AlertSettings.Volume(factor: 10, floor: 500, in: .seconds(60))
        #expect(volume.bound(settings) == 1000)
        #expect(volume.bound(AlertSettings.Volume(factor: 2, floor: 500, in: .seconds(60))) == 500)
        // Windows without a byte weigh as much as others.
        volume.advance(to: 13, isAlerting: false)
        #expect(volume.average > 84 && volume.average < 87)
        volume.advance(to: 100_000, isAlerting: false)
        #expect(volume.average < 1e-9)
    }

    @Test("a flood that is looked at becomes usual slowly; counts stay at their bound")
    func caution() {
        var (calm, careful) = (UsualVolume(), UsualVolume())
        for window in 0...8 as ClosedRange<UInt64> {
            for hinted in [false, true] {
                var volume = hinted ? careful : calm
                volume.advance(to: window, isAlerting: hinted && window == 8)
                volume.add(out: window == 7 ? 100_000 : 100, into: 0)
                if hinted { careful = volume } else { calm = volume }
            }
        }
        #expect(careful.average < calm.average / 4 && careful.average > 100)
        calm.add(out: .max, into: .max)
        calm.add(out: 1, into: 1)
        #expect(calm.current == .max)
        calm.advance(to: 9, isAlerting: false)
        #expect(calm.bound(AlertSettings.Volume(factor: 1000, floor: 1, in: .seconds(60))) <= 9_000_000_000_000_000_000)
    }
}
