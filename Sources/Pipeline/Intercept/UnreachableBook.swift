import Pipeline

/// An unreachable destination, and the instance that tried it.
struct UnreachableProof: Equatable, Sendable {
    let destination: Endpoint
    let lasts: TimeSpan
    let asker: UnreachableBook.Asker
    /// The earliest start of the connect: wall clock, nanoseconds since 1970.
    let began: UInt64

    /// Nil: the record proves nothing of its destination.
    init?(_ record: ConnectionRecord) {
        guard record.unreachableFor != .zero else { return nil }
        destination = record.destination
        lasts = record.unreachableFor
        asker = UnreachableBook.Asker(record)
        began = UnreachableProof.began(record)
    }

    static func began(_ record: ConnectionRecord) -> UInt64 {
        record.endedAt - min(record.endedAt, record.duration.nanoseconds)
    }
}

/// A model of the kernel's sets of unreachable destinations (ADR 0049), which keeps them from filling up, and from
/// being taken by one instance. Pure; bounded (R27).
struct UnreachableBook {
    enum Asker: Hashable, Sendable {
        case instance(UInt32)
        case network(IPAddress)

        init(_ record: ConnectionRecord) {
            self =
                record.instanceNumber == InstanceIdentity.unknown
                ? .network(record.peer.address.network) : .instance(record.instanceNumber)
        }
    }

    /// Of each family: the kernel removes expired elements a little later, and refuses whole batches that don't fit.
    static let limit = EgressRules.unreachableSize / 4 * 3
    /// The most current destinations of one instance.
    static let share = 128

    private struct Entry {
        let until: Instant
        let asker: Asker
    }

    private var entries: [Endpoint: Entry] = [:]
    private var counts: [Asker: Int] = [:]
    private var ofIPv4 = 0

    var count: Int { entries.count }

    enum Answer { case new, known, full }

    /// - Returns: `new` if the kernel's set must be updated. Known entries are not prolonged: new connects are refused,
    ///   so further proof comes from older ones.
    mutating func admit(_ proof: UnreachableProof, _ now: Instant) -> Answer {
        guard entries[proof.destination] == nil else { return .known }
        let isIPv4 = proof.destination.address.isIPv4
        let ofFamily = isIPv4 ? ofIPv4 : entries.count - ofIPv4
        guard ofFamily < UnreachableBook.limit, counts[proof.asker, default: 0] < UnreachableBook.share else {
            return .full
        }
        entries[proof.destination] = Entry(until: now + proof.lasts, asker: proof.asker)
        counts[proof.asker, default: 0] += 1
        if isIPv4 { ofIPv4 += 1 }
        return .new
    }

    /// Removes expired entries.
    mutating func expire(_ now: Instant) {
        for (destination, entry) in entries where entry.until <= now { remove(destination, entry) }
    }

    /// Removes an entry that the kernel refused.
    mutating func forget(_ destination: Endpoint) {
        if let entry = entries[destination] { remove(destination, entry) }
    }

    private mutating func remove(_ destination: Endpoint, _ entry: Entry) {
        entries[destination] = nil
        if destination.address.isIPv4 { ofIPv4 -= 1 }
        let left = counts[entry.asker, default: 0] - 1
        counts[entry.asker] = left > 0 ? left : nil
    }
}
