import Pipeline

/// Which destinations answered this host not long ago, and when they did last: what has answered since a failed connect began is
/// not dead, whoever's connection it was (ADR 0049). Pure; bounded (R27): two halves, of which the older one goes when the
/// newer one is full or has its age.
struct AnsweredPaths {
    /// Of one half.
    static let limit = 2048
    /// Destinations that one asker may bring into a half: nobody pushes out what others have found.
    static let share = 256
    /// Nanoseconds; an answer is known for once to twice as long.
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

    /// When it answered last, as far as is known; 0: never.
    func last(_ destination: Endpoint) -> UInt64 {
        max(newer[destination, default: 0], older[destination, default: 0])
    }

    private mutating func rotate(_ now: UInt64, isFull: Bool = false) {
        guard isFull || now &- newerSince >= AnsweredPaths.age else { return }
        // A clock that was set back makes it long as well: then nothing of before means anything.
        older = now < newerSince || now - newerSince >= 2 * AnsweredPaths.age ? [:] : newer
        newer = [:]
        counts = [:]
        newerSince = now
    }
}

/// A connection that reached its destination from here.
struct AnsweredPath: Equatable, Sendable {
    let destination: Endpoint
    /// When the connect came about: wall clock, nanoseconds since 1970.
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
