import Pipeline

/// Where nothing answered this host, and who has asked.
struct UnreachableProof: Equatable, Sendable {
    let destination: Endpoint
    let lasts: TimeSpan
    let asker: UnreachableBook.Asker
    /// Before this the connect did not begin: wall clock, nanoseconds since 1970.
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

/// What the kernel's sets of destinations that do not answer hold, as far as this node has filled them (ADR 0049): so that they are
/// never full, and nobody's destinations take all of them. Pure; bounded (R27).
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

    /// Of each family: the kernel takes what ran out from its set a moment later, and refuses whole batches that don't fit.
    static let limit = EgressRules.unreachableSize / 4 * 3
    /// Destinations that one asker may bring in at once.
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

    /// - Returns: `new` if the kernel is to be told. What is known is not prolonged: nobody gets there, so what says the same
    ///   now was begun before.
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

    /// What ran out is gone.
    mutating func expire(_ now: Instant) {
        for (destination, entry) in entries where entry.until <= now { remove(destination, entry) }
    }

    /// The kernel did not take it.
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
