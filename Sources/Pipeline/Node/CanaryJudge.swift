import Glibc
import Pipeline

/// What is worse on a canary than beside it, by more than chance.
package struct CanaryFinding: Sendable, Equatable {
    package enum Cause: Sendable, Equatable {
        /// So many of so many connections.
        case rate(CanaryEvidence.Kind, canary: Ratio, others: Ratio)
        /// The typical time from accept to a backend.
        case time(canary: TimeSpan, others: TimeSpan, connections: UInt64)
    }
    package struct Ratio: Sendable, Equatable {
        package let failed: UInt64
        package let all: UInt64
    }
    package let cause: Cause

    package var text: String {
        switch cause {
        case .rate(let kind, let canary, let others):
            "\(CanaryFinding.text(kind)): \(canary.failed) of \(canary.all) connections of the canary, \(others.failed) of "
                + "\(others.all) others"
        case .time(let canary, let others, let connections):
            "slow: \(CanaryFinding.text(canary)) from accept to a backend for \(connections) connections of the canary, "
                + "\(CanaryFinding.text(others)) for others"
        }
    }

    private static func text(_ kind: CanaryEvidence.Kind) -> String {
        switch kind {
        case .refused: "refused"
        case .notConnected: "no backend connected"
        case .left: "left by the client before a backend was connected"
        case .broken: "ended by a reset, a timeout or a stage"
        case .unanswered: "closed without a byte to the client"
        case .begun, .relayed, .time, .squaredTime, .ended: "\(kind)"
        }
    }

    static func text(_ time: TimeSpan) -> String {
        let micros = time.nanoseconds / 1000
        return micros < 10_000 ? "\(micros) µs" : "\(micros / 1000) ms"
    }
}

/// Compares both sides of a canary. Chance is excluded twice. Among connections: the signed root of the G statistic is at
/// least 5, which chance reaches once in some three million looks. Among clients: buckets of them differ less from each
/// other than the sides do, so that one client that is always refused is no finding, on whichever side it is.
package struct CanaryJudge {
    /// Connections on either side below which nothing is said.
    static let leastConnections: UInt64 = 12
    private static let leastFailures: UInt64 = 8
    private static let leastRoot = 5.0
    private static let leastOfBuckets = 4.0
    /// With fewer, nothing is known of how much clients differ.
    private static let fewBuckets = 4

    private let tally: CanaryTally

    package init(_ tally: CanaryTally) { self.tally = tally }

    package var finding: CanaryFinding? {
        let before: [CanaryEvidence.Kind] = [.refused, .notConnected, .left]
        let decided: [CanaryEvidence.Kind] = [.relayed] + before
        for kind in before {
            if let finding = finding(kind, of: decided) { return finding }
        }
        for kind in [CanaryEvidence.Kind.broken, .unanswered] {
            if let finding = finding(kind, of: [.ended]) { return finding }
        }
        return slowness
    }

    // MARK: Rates

    private func finding(_ kind: CanaryEvidence.Kind, of all: [CanaryEvidence.Kind]) -> CanaryFinding? {
        let ratio = { (side: CanarySide) in
            CanaryFinding.Ratio(
                failed: tally.total(kind, side), all: all.reduce(0) { $0 &+ tally.total($1, side) })
        }
        let (canary, others) = (ratio(.canary), ratio(.others))
        guard canary.all >= CanaryJudge.leastConnections, others.all >= CanaryJudge.leastConnections,
            canary.failed >= CanaryJudge.leastFailures
        else { return nil }
        let (worse, usual) = (canary.share, others.share)
        // What is no jump.
        guard worse > usual * 1.5 + 0.02, CanaryJudge.root(canary, others) >= CanaryJudge.leastRoot else { return nil }
        let rates = { (side: CanarySide) in
            let failed = tally.byBucket(kind, side)
            let counts = all.map { tally.byBucket($0, side) }
            return failed.indices.compactMap { bucket -> Double? in
                let count = counts.reduce(0) { $0 + $1[bucket] }
                return count > 0 ? failed[bucket] / count : nil
            }
        }
        guard CanaryJudge.differ(rates(.canary), rates(.others), by: 0, orFew: 0.5) else { return nil }
        return CanaryFinding(cause: .rate(kind, canary: canary, others: others))
    }

    /// The root of G for both sides against one common rate.
    private static func root(_ canary: CanaryFinding.Ratio, _ others: CanaryFinding.Ratio) -> Double {
        let all = Double(canary.all) + Double(others.all)
        let common = (Double(canary.failed) + Double(others.failed)) / all
        let part = { (seen: Double, expected: Double) in
            seen > 0 && expected > 0 ? seen * log(seen / expected) : 0
        }
        let sum = [canary, others].reduce(0) { sum, side in
            let (failed, count) = (Double(side.failed), Double(side.all))
            return sum + part(failed, common * count) + part(count - failed, (1 - common) * count)
        }
        return max(0, 2 * sum).squareRoot()
    }

    /// Whether the means of buckets differ by more than `margin`, and by far more than the buckets themselves do.
    /// - Parameter few: by how much each bucket has to differ where there are few.
    private static func differ(_ canary: [Double], _ others: [Double], by margin: Double, orFew few: Double) -> Bool {
        guard let (mean, error) = mean(canary), let (otherMean, otherError) = self.mean(others) else { return false }
        guard canary.count >= fewBuckets else { return canary.allSatisfy { $0 - otherMean >= margin + few } }
        let surplus = mean - otherMean - margin
        return surplus > 0 && surplus >= leastOfBuckets * (error + otherError).squareRoot()
    }

    /// The mean, and the square of its standard error; nil: of nothing.
    private static func mean(_ values: [Double]) -> (Double, Double)? {
        guard !values.isEmpty else { return nil }
        let count = Double(values.count)
        let mean = values.reduce(0, +) / count
        guard values.count > 1 else { return (mean, 0) }
        let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        return (mean, squares / (count - 1) / count)
    }

    // MARK: Time

    /// Twice as long, in steps of ``CanaryEvidence/Kind/time``; four times where there are few buckets.
    private static let octave = 256.0
    /// Less is no matter for a client, however many times it is.
    private static let leastDelay = TimeSpan.milliseconds(1).nanoseconds / 5

    private var slowness: CanaryFinding? {
        let (count, otherCount) = (tally.total(.relayed, .canary), tally.total(.relayed, .others))
        guard count >= CanaryJudge.leastConnections, otherCount >= CanaryJudge.leastConnections,
            let time = tally.typicalTime(.canary), let otherTime = tally.typicalTime(.others),
            time.nanoseconds >= otherTime.nanoseconds &+ CanaryJudge.leastDelay
        else { return nil }
        let (mean, error) = spread(.canary)
        let (otherMean, otherError) = spread(.others)
        let surplus = mean - otherMean - CanaryJudge.octave
        guard surplus > 0, surplus >= CanaryJudge.leastRoot * (error + otherError).squareRoot() else { return nil }
        let means = { (side: CanarySide) in
            zip(tally.byBucket(.time, side), tally.byBucket(.relayed, side)).compactMap { sum, count in
                count > 0 ? sum / count : nil
            }
        }
        guard
            CanaryJudge.differ(
                means(.canary), means(.others), by: CanaryJudge.octave, orFew: CanaryJudge.octave)
        else { return nil }
        return CanaryFinding(cause: .time(canary: time, others: otherTime, connections: count))
    }

    /// The mean of one side's logarithms, and the square of its standard error.
    private func spread(_ side: CanarySide) -> (Double, Double) {
        let count = Double(tally.total(.relayed, side))
        let mean = Double(tally.total(.time, side)) / count
        let variance = max(0, Double(tally.total(.squaredTime, side)) / count - mean * mean)
        // However alike a few may be, the next may differ by an eighth.
        return (mean, max(variance, 32 * 32) / count)
    }
}

extension CanaryFinding.Ratio {
    fileprivate var share: Double { all == 0 ? 0 : Double(failed) / Double(all) }
}
