import Pipeline

/// Destinations that answered this host recently, with the time: one that answered after a failed connect began is not
/// dead, on whichever connection (ADR 0049). Pure; bounded (R27): two halves, of which the older one is dropped when
/// the newer one is full or old enough.
struct AnsweredPaths {
    /// Of one half.
    static let limit = 2048
    /// The most destinations of one instance in a half, so that none displaces others' entries.
    static let share = 256
    /// Nanoseconds; an answer is kept for one to two times as long.
    static let age: UInt64 = 60_000_000_000

    private var newer: [Endpoint: UInt64] = [:]
    private var older: [Endpoint: UInt64] = [:]
    private var counts: [UnreachableBook.Asker: Int] = [:]
    private var newerSince: UInt64 = 0

    var count: Int { newer.count + older.count }

    /// - Parameter time: wall clock, nanoseconds since 1970; also `now`.
    mutating func note(_ destination: Endpoint, at time: UInt64, by asker: UnreachableBook.Asker, _ now: UInt64) {
        rotate(now)
        if let known = newer[destination] {
            newer[destination] = max(known, time)
            return
        }
        guard counts[asker, default: 0] < AnsweredPaths.share else { return }
        if newer.count >= AnsweredPaths.limit { rotate(now, isFull: true) }
        newer[destination] = time
        counts[asker, default: 0] += 1
    }

    /// The time of the last known answer; 0: never.
    func last(_ destination: Endpoint) -> UInt64 {
        max(newer[destination, default: 0], older[destination, default: 0])
    }

    private mutating func rotate(_ now: UInt64, isFull: Bool = false) {
        guard isFull || now &- newerSince >= AnsweredPaths.age else { return }
        // A clock set back also gives a large difference: earlier entries are meaningless then.
        older = now < newerSince || now - newerSince >= 2 * AnsweredPaths.age ? [:] : newer
        newer = [:]
        counts = [:]
        newerSince = now
    }
}

/// A connection that reached its destination from here.
struct AnsweredPath: Equatable, Sendable {
    let destination: Endpoint
    /// When the connect succeeded: wall clock, nanoseconds since 1970.
    let time: UInt64
    let asker: UnreachableBook.Asker

    /// Nil: it went elsewhere, or nowhere.
    init?(_ record: ConnectionRecord) {
        guard record.isRelayed, record.backend == record.destination else { return nil }
        destination = record.destination
        time = UnreachableProof.began(record) &+ record.timeToConnect.nanoseconds
        asker = UnreachableBook.Asker(record)
    }
}
