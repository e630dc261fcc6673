import Pipeline
import Testing

@Suite("Token bucket")
struct TokenBucketTests {
    @Test(
        "against a model that counts: so many at once, one more each while, and never more",
        arguments: 0..<20 as Range<UInt64>)
    func model(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let (cost, burst) = (1 + random.next() % 1000, 1 + random.next() % 20)
        var bucket = TokenBucket(cost: cost, burst: cost * burst)
        // In parts of a token, of which there are `cost`.
        var (filled, tokens) = (UInt64(1_000_000), burst * cost)
        var now = filled
        for _ in 0..<5000 {
            now += random.below(3) == 0 ? random.next() % (cost * burst * 2) : random.next() % cost
            tokens = min(burst * cost, tokens + now - filled)
            filled = now
            let may = tokens >= cost
            #expect((bucket.next <= Instant(nanoseconds: now)) == may)
            let took = bucket.take(Instant(nanoseconds: now))
            #expect(took == may)
            if may { tokens -= cost }
        }
    }

    @Test("what costs more than the burst is never taken")
    func never() {
        var bucket = TokenBucket(cost: 10, burst: 9)
        for now in [UInt64(0), 5, 1_000_000, 1 << 60] {
            let took = bucket.take(Instant(nanoseconds: now))
            #expect(!took)
        }
    }
}
