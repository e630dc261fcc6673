import Pipeline
import Testing

@testable import PipelineRuntime

@Suite("Passive ejection")
struct EjectionTests {
    private final class Bench {
        let cell = UnsafeMutablePointer<BackendCell>.allocate(capacity: 1)
        let policy = UnsafeMutablePointer<EjectionPolicy>.allocate(capacity: 1)
        init(after: UInt32, base: TimeSpan = .seconds(1), max: TimeSpan = .seconds(10)) {
            cell.initialize(to: BackendCell(Endpoint(.unspecified, 0)))
            policy.initialize(to: EjectionPolicy(after: after, base: base, max: max))
        }
        deinit {
            cell.deinitialize(count: 1)
            cell.deallocate()
            policy.deallocate()
        }
        func fail(at seconds: UInt64, times: Int = 1) {
            for _ in 0..<times {
                cell.pointee.noteFailure(at: Instant(nanoseconds: seconds * 1_000_000_000), UnsafePointer(policy))
            }
        }
        func isIn(at seconds: UInt64) -> Bool {
            cell.pointee.isEligible(at: Instant(nanoseconds: seconds * 1_000_000_000))
        }
    }

    @Test("R12: so many connect failures in a row eject, and one fewer does not") func threshold() {
        let bench = Bench(after: 3)
        bench.fail(at: 100, times: 2)
        #expect(bench.isIn(at: 100))
        bench.fail(at: 100)
        #expect(!bench.isIn(at: 100))
        #expect(bench.isIn(at: 101))
        #expect(bench.cell.pointee.failures.load(ordering: .relaxed) == 3)
        #expect(bench.cell.pointee.eligibleSince.load(ordering: .relaxed) == 101_000_000_000)
    }

    @Test("R12: a connect that comes about begins the count anew, and ends no ejection") func success() {
        let bench = Bench(after: 2)
        bench.fail(at: 100)
        bench.cell.pointee.noteConnect()
        bench.fail(at: 100)
        #expect(bench.isIn(at: 100))
        bench.fail(at: 100)
        bench.cell.pointee.noteConnect()
        #expect(!bench.isIn(at: 100))
        #expect(bench.cell.pointee.connects.load(ordering: .relaxed) == 2)
    }

    @Test("R12: after its return the first failure ejects again, for twice as long, up to the longest") func backoff() {
        let bench = Bench(after: 3)
        bench.fail(at: 100, times: 3)
        // 1, 2, 4, 8 seconds, then 10.
        var now: UInt64 = 101
        for length in [2, 4, 8, 10, 10] as [UInt64] {
            bench.fail(at: now)
            #expect(!bench.isIn(at: now + length - 1))
            #expect(bench.isIn(at: now + length))
            now += length
        }
        bench.cell.pointee.noteConnect()
        bench.fail(at: now, times: 3)
        #expect(bench.isIn(at: now + 1), "a good connect makes the next ejection a first one")
    }

    @Test("R12: failures of connects that were under way don't make an ejection longer") func late() {
        let bench = Bench(after: 1)
        bench.fail(at: 100, times: 50)
        #expect(bench.isIn(at: 101))
        #expect(bench.cell.pointee.ejections.load(ordering: .relaxed) == 1)
    }

    @Test("R12: without a policy, or with none that ejects, nobody is ejected") func never() {
        let bench = Bench(after: 0)
        bench.fail(at: 100, times: 100)
        bench.cell.pointee.noteFailure(at: Instant(nanoseconds: 1), nil)
        #expect(bench.isIn(at: 100))
    }

    @Test("lengths never overflow: the longest holds") func lengths() {
        let policy = EjectionPolicy(after: 1, base: .seconds(30), max: .seconds(300))
        #expect(policy.length(after: 0) == .seconds(30))
        #expect(policy.length(after: 1) == .seconds(60))
        for earlier in [4, 33, 63, 64, UInt32.max] { #expect(policy.length(after: earlier) == .seconds(300)) }
        let endless = EjectionPolicy(after: 1, base: TimeSpan(nanoseconds: .max), max: TimeSpan(nanoseconds: .max))
        let bench = Bench(after: 1, base: endless.base, max: endless.max)
        bench.fail(at: 5)
        #expect(!bench.isIn(at: 1_000_000_000))
    }
}
