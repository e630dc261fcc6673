/// The rows that make up a time range: whole days where possible, hours and minutes at its ends.
struct LedgerRange: Equatable {
    struct Part: Equatable {
        let level: LedgerLevel
        /// Rows from here on, and before `end`.
        let start: Int64
        let end: Int64
    }

    let parts: [Part]
    /// The covered range: at least the requested one.
    let start: Int64
    let end: Int64

    /// - Parameters:
    ///   - oldest: of a level's rows; nil: it has none. Where a level does not reach back far enough, the end of the range
    ///     is widened to the next coarser one.
    ///   - isWhole: false if a level misses rows of a time between these two: the end is widened then as well.
    init(
        from: Int64, to: Int64, now: Int64, oldest: (LedgerLevel) -> Int64?,
        isWhole: (LedgerLevel, Int64, Int64) -> Bool = { _, _, _ in true }
    ) {
        let to = max(from + 1, to)
        /// A level's part of an edge lies within the bucket of the next coarser one, and so do the parts in between.
        func isThere(_ level: LedgerLevel, _ time: Int64) -> Bool {
            guard let first = oldest(level), first <= level.start(of: time) else { return false }
            return [(LedgerLevel.minutes, LedgerLevel.hours), (.hours, .days)].allSatisfy { finer, coarser in
                finer < level || isWhole(finer, coarser.start(of: time), coarser.ceiling(time))
            }
        }
        func edge(_ time: Int64, up: Bool) -> Int64 {
            for level in [LedgerLevel.minutes, .hours] where isThere(level, time) {
                return up ? level.ceiling(time) : level.start(of: time)
            }
            return up ? LedgerLevel.days.ceiling(time) : LedgerLevel.days.start(of: time)
        }
        start = edge(from, up: false)
        // Nothing lies in the future, so that a range up to now may take the whole bucket.
        end = to >= now ? LedgerLevel.days.ceiling(max(to, now) + 1) : max(edge(to, up: true), start + 60)
        parts = LedgerRange.cut(start, end, .days)
    }

    /// One level's buckets alone.
    init(_ part: Part) { (parts, start, end) = ([part], part.start, part.end) }

    private static func cut(_ start: Int64, _ end: Int64, _ level: LedgerLevel) -> [Part] {
        guard start < end else { return [] }
        guard let finer = LedgerLevel(rawValue: level.rawValue - 1) else {
            return [Part(level: level, start: start, end: end)]
        }
        let first = level.ceiling(start)
        let last = level.start(of: end)
        guard first < last else {
            // No whole bucket, or an end in the one after: each side on its own.
            return first == last && first > start && first < end
                ? cut(start, first, finer) + cut(first, end, finer) : cut(start, end, finer)
        }
        return cut(start, first, finer) + [Part(level: level, start: first, end: last)] + cut(last, end, finer)
    }
}

extension LedgerRange.Part {
    /// The buckets that have rows: found one from the other, since there may be a million rows in each.
    func buckets(_ db: LedgerDatabase) throws -> [Int64] {
        let next = "SELECT min(at) FROM \(level.table) WHERE at >= ? AND at < ?"
        var found: [Int64] = []
        while let at = try db.integer(next, [(found.last ?? start - 1) + 1, end]) { found.append(at) }
        return found
    }
}
