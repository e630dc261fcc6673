import Pipeline
import PipelineFlows

/// The flows of about the last minute, for `top`, in buckets as long as the workers' tick, so that each bucket has one
/// tick of each worker, and a steady flow looks steady.
///
/// Bounded: a bucket with too many flows keeps the largest, and aggregates the others by instance, so that sums by
/// instance, env and org stay exact (R27).
struct TrafficWindow {
    struct Sums: Equatable {
        var connections: UInt64 = 0
        var bytesOut: UInt64 = 0
        var bytesIn: UInt64 = 0

        var bytes: UInt64 {
            let (sum, overflow) = bytesOut.addingReportingOverflow(bytesIn)
            return overflow ? .max : sum
        }
        /// A flow's weight when the bucket is trimmed; one without bytes has some too.
        fileprivate var weight: UInt64 { bytes >> 10 &+ connections }

        mutating func add(_ other: Sums) {
            connections = Sums.sum(connections, other.connections)
            bytesOut = Sums.sum(bytesOut, other.bytesOut)
            bytesIn = Sums.sum(bytesIn, other.bytesIn)
        }
        private static func sum(_ a: UInt64, _ b: UInt64) -> UInt64 { b > .max - a ? .max : a + b }
    }

    private struct Bucket {
        var number: UInt64
        var flows: [FlowKey: Sums] = [:]
        /// Aggregated flows.
        var aggregated: UInt64 = 0
    }

    /// What ``view(buckets:now:)`` shows at most.
    static let bucketLimit = 16
    /// Besides those, some that are not complete yet.
    private static let kept = bucketLimit + 8
    /// How long after its end a bucket's records may come: the worker's next tick, plus the next read.
    private static let transport: UInt64 = 1_500_000_000
    static let shortestBucket = TimeSpan.milliseconds(500)

    /// How long a bucket is.
    private(set) var interval: TimeSpan
    private let flowLimit: Int
    private var buckets: [Bucket] = []

    /// - Parameter flowLimit: the most separate flows of a bucket; temporarily up to twice as many.
    init(interval: TimeSpan = .seconds(5), flowLimit: Int = 4096) {
        self.interval = max(interval, TrafficWindow.shortestBucket)
        self.flowLimit = flowLimit
    }

    /// The window restarts if it changes.
    mutating func setInterval(_ new: TimeSpan) {
        let new = max(new, TrafficWindow.shortestBucket)
        guard new != interval else { return }
        interval = new
        buckets = []
    }

    private func number(_ time: UInt64) -> UInt64 { time / interval.nanoseconds }

    /// - Parameter now: wall clock, nanoseconds since 1970, as in records.
    mutating func add(_ record: FlowRecord, now: UInt64) {
        // The clock was set back: later buckets would hide all new records.
        if let newest = buckets.last, newest.number > number(now) &+ 2 { buckets = [] }
        let number = min(number(record.lastSeen), self.number(now) &+ 1)
        guard let place = place(number) else { return }
        buckets[place].flows[record.key, default: Sums()].add(
            Sums(
                connections: UInt64(record.connections), bytesOut: record.bytesOut, bytesIn: record.bytesIn))
        if buckets[place].flows.count > flowLimit * 2 { aggregate(place) }
    }

    /// Where the bucket of that number is; nil: it is too old. They are in order, and nearly all records are of the last.
    private mutating func place(_ number: UInt64) -> Int? {
        var place = buckets.count
        while place > 0, buckets[place - 1].number >= number {
            if buckets[place - 1].number == number { return place - 1 }
            place -= 1
        }
        guard buckets.count < TrafficWindow.kept || place > 0 else { return nil }
        buckets.insert(Bucket(number: number), at: place)
        guard buckets.count > TrafficWindow.kept else { return place }
        buckets.removeFirst()
        return place - 1
    }

    private mutating func aggregate(_ place: Int) {
        var kept: [FlowKey: Sums] = [:]
        let order = buckets[place].flows.sorted { $0.value.weight > $1.value.weight }
        for (index, flow) in order.enumerated() {
            var key = flow.key
            if index >= flowLimit {
                if !TrafficWindow.isAggregated(key) { buckets[place].aggregated += 1 }
                (key.destination, key.port, key.proto) = (.unspecified, 0, 0)
                // Too many instances: aggregated without an instance.
                if kept[key] == nil, kept.count >= flowLimit * 3 / 2 {
                    (key.instance, key.source) = (.max, .unspecified)
                }
            }
            kept[key, default: Sums()].add(flow.value)
        }
        buckets[place].flows = kept
    }

    /// Aggregated flows have no destination.
    static func isAggregated(_ key: FlowKey) -> Bool { key.destination == .unspecified && key.port == 0 }

    /// The newest buckets that are complete.
    struct View {
        let buckets: [[FlowKey: Sums]]
        /// Wall clock, nanoseconds since 1970.
        let from: UInt64
        let to: UInt64
        let aggregated: UInt64
    }

    /// - Parameters:
    ///   - count: how many buckets: 1 to ``bucketLimit``.
    ///   - now: wall clock.
    func view(buckets count: Int, now: UInt64) -> View {
        let late = interval.nanoseconds + TrafficWindow.transport
        // The number behind the last one that is complete.
        let end = number(now > late ? now - late : 0)
        let begin = end - min(end, UInt64(min(max(1, count), TrafficWindow.bucketLimit)))
        let shown = buckets.filter { (begin..<end).contains($0.number) }
        return View(
            buckets: shown.map(\.flows), from: begin * interval.nanoseconds, to: end * interval.nanoseconds,
            aggregated: shown.reduce(0) { $0 + $1.aggregated })
    }
}
