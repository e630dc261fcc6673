/// The schedule of weighted round robin: the backend of each turn (R11).
///
/// Every window of as many turns as the schedule is long gives each backend exactly its weight, wherever the window
/// begins, because the schedule repeats. A backend's turns are spread evenly over it: the k-th of `w` stands at
/// (k + phase) / w of its length. Phases differ by the golden ratio, so that turns of unlike weights fall between each
/// other, not on each other.
public enum TurnSchedule {
    /// The most turns of one schedule (R27). Weights that ask for more are scaled down, which rounds the shares.
    public static let limit = 65536

    /// - Parameter weights: 0...256 each; those of 0 get no turn.
    /// - Returns: indexes into `weights`; empty for plain round robin, and if all weights are 0.
    public static func make(_ weights: [UInt16]) -> [UInt16] {
        guard weights.count <= Int(UInt16.max), let first = weights.first, weights.contains(where: { $0 != first })
        else { return [] }
        let shares = reduced(weights)
        var turns: [(at: UInt64, index: UInt16)] = []
        turns.reserveCapacity(shares.reduce(0, +))
        var phase: UInt64 = 1 << 31
        for (index, share) in shares.enumerated() {
            for turn in 0..<share {
                // (turn + phase) / share, as a fraction of 2^32; share is at most 256.
                turns.append(((UInt64(turn) << 32 + phase) / UInt64(share), UInt16(index)))
            }
            // 2^32 / golden ratio
            phase = (phase + 2_654_435_769) & 0xFFFF_FFFF
        }
        turns.sort { ($0.at, $0.index) < ($1.at, $1.index) }
        return turns.map(\.index)
    }

    /// Turns of each, as few as give the same shares.
    private static func reduced(_ weights: [UInt16]) -> [Int] {
        var divisor = 0
        for weight in weights { divisor = greatestCommonDivisor(divisor, Int(weight)) }
        guard divisor > 0 else { return weights.map { _ in 1 } }
        let shares = weights.map { Int($0) / divisor }
        let total = shares.reduce(0, +)
        guard total > limit else { return shares }
        return shares.map { $0 == 0 ? 0 : max(1, $0 * limit / total) }
    }

    private static func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int {
        var (a, b) = (a, b)
        while b != 0 { (a, b) = (b, a % b) }
        return a
    }
}
