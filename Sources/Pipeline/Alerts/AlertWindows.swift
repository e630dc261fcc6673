import FilterEgressAccounting
import Pipeline

/// A sliding-window count in tenths: the newest tenth so far and the nine before. Never more than the true count of the
/// window.
struct SlidingCount {
    static let buckets: UInt64 = 10

    private var counts = InlineArray<10, UInt32>(repeating: 0)
    /// The newest one's number.
    private var bucket: UInt64 = 0
    private(set) var sum: UInt64 = 0

    /// The number of the tenth of a window that a time is in.
    static func bucket(_ nanoseconds: UInt64, ofWindow window: UInt64) -> UInt64 {
        nanoseconds / max(1, window / buckets)
    }

    mutating func advance(to newest: UInt64) {
        guard newest > bucket else { return }
        for step in 1...min(newest - bucket, SlidingCount.buckets) {
            let place = Int((bucket &+ step) % SlidingCount.buckets)
            sum -= UInt64(counts[place])
            counts[place] = 0
        }
        bucket = newest
    }

    /// To the newest tenth.
    mutating func add(_ count: UInt32) {
        let place = Int(bucket % SlidingCount.buckets)
        let room = UInt32.max - counts[place]
        counts[place] += min(count, room)
        sum += UInt64(min(count, room))
    }
}

/// How many distinct things happened in a sliding window as ``SlidingCount`` has it; exact up to ``limit``.
struct DistinctWindow {
    /// What is kept of one window.
    static let limit = 4096

    /// By its hash, the tenth in which it happened last.
    private var last: [UInt64: UInt64] = [:]
    private var bucket: UInt64 = 0
    /// The table overflowed: there are more than ``count``.
    private(set) var isAtBound = false

    var count: Int { last.count }

    /// - Returns: how many places became free.
    mutating func advance(to newest: UInt64) -> Int {
        guard newest > bucket else { return 0 }
        bucket = newest
        let before = last.count
        if before > 0 { last = last.filter { $0.value + SlidingCount.buckets > newest } }
        if last.count < before || last.isEmpty { isAtBound = false }
        return before - last.count
    }

    /// - Parameter hasRoom: whether one more place may be taken.
    /// - Returns: true if one was.
    mutating func note(_ hash: UInt64, hasRoom: Bool) -> Bool {
        if last.updateValue(bucket, forKey: hash) != nil { return false }
        guard hasRoom, last.count <= DistinctWindow.limit else {
            last.removeValue(forKey: hash)
            isAtBound = true
            return false
        }
        return true
    }
}

/// Known destinations of an instance, in 8 KiB: two rotating Bloom filters. When the newer one has ``capacity`` entries
/// it becomes the older one, whose previous content is dropped. Frequent destinations stay known.
///
/// With four probes of 8 bits a place, at most one new place in twenty is taken for a known one: alerts come a little
/// later, never too early.
struct RecentPlaces {
    static let capacity = 4096
    private static let words = capacity * 8 / 64
    private static let probes: UInt64 = 4

    private var newer = [UInt64](repeating: 0, count: words)
    private var older: [UInt64] = []
    private var inNewer = 0

    /// - Parameter hash: keyed: workloads choose where they go.
    /// - Returns: true if it is new.
    mutating func insert(_ hash: UInt64) -> Bool {
        guard !RecentPlaces.contains(newer, hash) else { return false }
        let isNew = !RecentPlaces.contains(older, hash)
        if inNewer == RecentPlaces.capacity {
            older = newer
            newer = [UInt64](repeating: 0, count: RecentPlaces.words)
            inNewer = 0
        }
        for probe in 0..<RecentPlaces.probes {
            let bit = RecentPlaces.bit(hash, probe)
            newer[bit >> 6] |= 1 << UInt64(bit & 63)
        }
        inNewer += 1
        return isNew
    }

    private static func contains(_ filter: [UInt64], _ hash: UInt64) -> Bool {
        guard !filter.isEmpty else { return false }
        return (0..<probes).allSatisfy { probe in
            let bit = bit(hash, probe)
            return filter[bit >> 6] & 1 << UInt64(bit & 63) != 0
        }
    }

    private static func bit(_ hash: UInt64, _ probe: UInt64) -> Int {
        Int((hash & 0xFFFF_FFFF &+ probe &* (hash >> 32 | 1)) % UInt64(words * 64))
    }
}

/// An instance's usual volume: a decayed average over whole windows.
struct UsualVolume {
    /// Windows that weigh in the average: an hour, of five minutes each.
    static let memory = 12.0
    /// The least number of whole windows for a comparison.
    static let enough = 6
    /// While an alert is active, the average adapts this much slower, so that a flood does not become usual meanwhile.
    static let caution = 8.0

    private(set) var average = 0.0
    /// Whole windows that were seen, up to ``memory``; -1: the one that the instance appeared in has not ended.
    private var seen = -1
    /// The number of the window that ``current`` is of.
    private var window: UInt64?
    private(set) var bytesOut: UInt64 = 0
    private(set) var bytesIn: UInt64 = 0

    var current: UInt64 {
        let (sum, overflow) = bytesOut.addingReportingOverflow(bytesIn)
        return overflow ? .max : sum
    }
    var isKnown: Bool { seen >= UsualVolume.enough }

    mutating func advance(to newest: UInt64, isAlerting: Bool) {
        guard let last = window else {
            window = newest
            return
        }
        guard newest > last else { return }
        learn(Double(current), isAlerting)
        // Windows without a byte.
        for _ in 1..<max(1, min(newest - last, 1000)) { learn(0, isAlerting) }
        window = newest
        (bytesOut, bytesIn) = (0, 0)
    }

    private mutating func learn(_ bytes: Double, _ isAlerting: Bool) {
        seen = min(seen + 1, Int(UsualVolume.memory))
        guard seen > 0 else { return }
        average += (bytes - average) / (Double(seen) * (isAlerting ? UsualVolume.caution : 1))
    }

    mutating func add(out: UInt64, into: UInt64) {
        bytesOut = out > .max - bytesOut ? .max : bytesOut + out
        bytesIn = into > .max - bytesIn ? .max : bytesIn + into
    }

    /// The threshold of unusual volume.
    func bound(_ settings: AlertSettings.Volume) -> UInt64 {
        max(settings.floor, UInt64(min(average * Double(settings.factor), 9e18)))
    }
}
