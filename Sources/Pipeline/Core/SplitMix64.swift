/// Random numbers for spreading load and for tests: small, fast, the same on every machine, and no secret (Steele, Lea,
/// Flood 2014).
@frozen public struct SplitMix64: RandomNumberGenerator, Sendable {
    @usableFromInline var state: UInt64
    @inlinable public init(seed: UInt64) { state = seed }

    @inlinable public mutating func next() -> UInt64 {
        let number = Hashing.mix(state)
        state &+= Hashing.step
        return number
    }

    /// 0..<bound, for a bound of at least 1; even to within bound / 2^64.
    @inlinable public mutating func below(_ bound: Int) -> Int {
        Int(truncatingIfNeeded: next().multipliedFullWidth(by: UInt64(max(1, bound))).high)
    }
}
