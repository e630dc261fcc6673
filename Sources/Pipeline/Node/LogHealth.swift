/// What was said of a log stream.
struct LogHealth {
    enum News: Equatable {
        case none, broken, failed
        case recovered(dropped: UInt64)
    }
    private var isSaidFailing = false
    private var hasSaidBroken = false
    /// Of the lines that were dropped, those until it failed.
    private var droppedBefore: UInt64 = 0

    init() {}

    /// What was dropped until now is no news of a new outlet.
    init(after counts: LogStream.Counts) { droppedBefore = counts.dropped }

    mutating func news(_ counts: LogStream.Counts) -> News {
        if counts.hasEnded {
            defer { hasSaidBroken = true }
            return hasSaidBroken ? .none : .broken
        }
        let isFailing = counts.error != 0 || counts.isDropping || counts.isStalled
        guard isFailing != isSaidFailing else {
            if !isFailing { droppedBefore = counts.dropped }
            return .none
        }
        isSaidFailing = isFailing
        guard !isFailing else { return .failed }
        defer { droppedBefore = counts.dropped }
        return .recovered(dropped: counts.dropped - min(counts.dropped, droppedBefore))
    }
}
