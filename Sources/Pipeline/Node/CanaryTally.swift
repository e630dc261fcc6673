import Pipeline

/// The evidence of a canary at one moment, or what came between two.
package struct CanaryTally: Sendable, Equatable {
    package typealias Kind = CanaryEvidence.Kind

    /// By side, bucket and kind.
    private var counts: [UInt64]

    package init() {
        counts = Array(
            repeating: 0, count: CanarySide.allCases.count * CanaryEvidence.buckets * Kind.allCases.count)
    }

    package init(_ evidence: borrowing CanaryEvidence) {
        self.init()
        for side in CanarySide.allCases {
            for bucket in 0..<CanaryEvidence.buckets {
                let place = CanaryPlace(side, bucket: bucket)
                for kind in Kind.allCases { self[kind, place] = evidence.read(kind, place) }
            }
        }
    }

    package subscript(_ kind: Kind, _ place: CanaryPlace) -> UInt64 {
        get { counts[CanaryTally.index(kind, place)] }
        set { counts[CanaryTally.index(kind, place)] = newValue }
    }

    private static func index(_ kind: Kind, _ place: CanaryPlace) -> Int {
        (place.side.rawValue * CanaryEvidence.buckets + place.bucket) * Kind.allCases.count + kind.rawValue
    }

    /// What has come since.
    package func since(_ earlier: CanaryTally) -> CanaryTally {
        var later = self
        for index in counts.indices { later.counts[index] = counts[index] &- earlier.counts[index] }
        return later
    }

    package func byBucket(_ kind: Kind, _ side: CanarySide) -> [Double] {
        (0..<CanaryEvidence.buckets).map { Double(self[kind, CanaryPlace(side, bucket: $0)]) }
    }

    package func total(_ kind: Kind, _ side: CanarySide) -> UInt64 {
        (0..<CanaryEvidence.buckets).reduce(0) { $0 &+ self[kind, CanaryPlace(side, bucket: $1)] }
    }

    /// Connections of which it is known whether they reached a backend.
    package func decided(_ side: CanarySide) -> UInt64 {
        [Kind.relayed, .refused, .notConnected, .left].reduce(0) { $0 &+ total($1, side) }
    }

    /// The geometric mean of the time from accept to a backend; nil: none was reached.
    package func typicalTime(_ side: CanarySide) -> TimeSpan? {
        let count = total(.relayed, side)
        guard count > 0 else { return nil }
        return CanaryTally.time(ofLog: Double(total(.time, side)) / Double(count))
    }

    /// The inverse of ``CanaryEvidence/log(_:)``.
    static func time(ofLog log: Double) -> TimeSpan {
        let exponent = min(max(log / 256, 0), 62)
        let whole = exponent.rounded(.down)
        return TimeSpan(nanoseconds: UInt64(Double(UInt64(1) << UInt64(whole)) * (1 + exponent - whole)))
    }
}

/// Tallies of the past, for windows that are longer than said by an eighth at most, in bounded memory.
struct CanaryHistory {
    /// Windows in which evidence is looked at, beside all of it: an error that begins late is seen in the first, a rare one in
    /// the last.
    static let windows: [TimeSpan] = [.seconds(5), .seconds(60), .seconds(600)]

    /// By window, the oldest first: one each eighth of it.
    private var past: [[(at: Instant, tally: CanaryTally)]] = windows.map { _ in [] }

    mutating func add(_ tally: CanaryTally, at now: Instant) {
        for (index, window) in CanaryHistory.windows.enumerated() {
            if let last = past[index].last, now.since(last.at).nanoseconds < window.nanoseconds / 8 { continue }
            past[index].append((now, tally))
            // The first is the newest that is old enough.
            while past[index].count > 1, now.since(past[index][1].at) >= window { past[index].removeFirst() }
        }
    }

    /// What came in each window, the shortest first, and all.
    func windows(_ tally: CanaryTally, at now: Instant) -> [CanaryTally] {
        let ofWindows = zip(CanaryHistory.windows, past).compactMap { window, entries in
            entries.last { now.since($0.at) >= window }.map { tally.since($0.tally) }
        }
        return ofWindows + [tally]
    }

    var count: Int { past.reduce(0) { $0 + $1.count } }
}
