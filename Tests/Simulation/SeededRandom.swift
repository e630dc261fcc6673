import Pipeline

/// What a seed's scenario draws from: the same on every machine, so that a seed means one run.
struct SeededRandom {
    private var numbers: SplitMix64

    init(seed: UInt64) { numbers = SplitMix64(seed: seed &* 0x9E37_79B9_7F4A_7C15 &+ 0xD1B5_4A32_D192_ED03) }

    mutating func next() -> UInt64 { numbers.next() }

    /// 0..<limit; 0 if there is nothing to choose from.
    mutating func below(_ limit: Int) -> Int { limit <= 0 ? 0 : Int(next() >> 1) % limit }
    mutating func pick(_ range: ClosedRange<Int>) -> Int { range.lowerBound + below(range.count) }
    mutating func pick<T>(_ items: [T]) -> T { items[below(items.count)] }
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }

    /// Sizes as networks have them: mostly small, now and then large.
    mutating func size(upTo limit: Int) -> Int {
        guard limit > 0 else { return 0 }
        switch below(4) {
        case 0: return below(min(limit, 16) + 1)
        case 1: return below(min(limit, 1500) + 1)
        default: return below(limit + 1)
        }
    }
}
