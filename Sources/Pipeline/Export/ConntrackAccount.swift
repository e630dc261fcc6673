import Pipeline
import PipelineFlows

/// Bits of `ct mark`.
package struct ConnectionMark: Sendable, Equatable {
    package let value: UInt32
    package let mask: UInt32
    package init(value: UInt32, mask: UInt32 = .max) {
        self.value = value
        self.mask = mask
    }
}

/// The settings of conntrack counting.
package struct ConntrackSettings: Sendable, Equatable {
    /// How often the whole table is read, which bounds what a crash loses of open connections (R21).
    package var interval = TimeSpan.seconds(5)
    /// The most tracked connections (R27); about 64 bytes each.
    package var tableLimit = 1 << 20
    /// Flow keys between two ticks of records; more of them trigger an early tick.
    package var pendingLimit = 1 << 16
    /// The buffer of the event socket, in bytes.
    package var receiveBuffer = 16 << 20
    /// False: TCP is all the relay's, as where every connection is intercepted.
    package var countsTCP = true
    /// TCP with this connection mark is the relay's, and counted there.
    package var relayedMark: ConnectionMark?
    /// Ports of `redirect` listeners: TCP that is rewritten to one of them is the relay's.
    package var relayedPorts: Set<UInt16> = []
    package init() {}
}

/// Turns conntrack messages into growth by flow, each byte once (R21). Pure: no socket and no clock.
///
/// An entry's counters grow while it lives, so the last values are stored by id *and* tuple: the id alone is a 32-bit
/// hash, which two of 100,000 live entries share. Unknown entries are counted whole, by their first dump or their end.
/// Stored counters are therefore never dropped while the entry may live; a full table takes no new entries, which are
/// counted at their end, or when there is room.
///
/// Bytes are billed to each side that is an instance, whoever began the entry: two neighbours are both billed, as on
/// two nodes; an instance that talks to itself by a translated address once. The connection itself counts only for its
/// initiator, so that a server with many clients does not look like a scanner.
struct ConntrackAccount {
    struct Statistics: Equatable {
        /// Entries older than this run: only their growth is counted, since an earlier run may have counted the rest.
        var baselined: UInt64 = 0
        /// How often an entry was not tracked because the table was full; it is counted later.
        var deferred: UInt64 = 0
        /// Entries whose end was missed: their growth since the last dump is lost.
        var missedEnds: UInt64 = 0
        /// How often an entry had no counters.
        var withoutCounters: UInt64 = 0
    }

    /// The instances on either side; `InstanceIdentity.unknown`: not on this node.
    private struct Owners {
        var beginner: UInt32
        var answerer: UInt32

        static let nobody = Owners(beginner: InstanceIdentity.unknown, answerer: InstanceIdentity.unknown)
        var isNobody: Bool { beginner == InstanceIdentity.unknown && answerer == InstanceIdentity.unknown }

        func or(_ other: Owners) -> Owners {
            Owners(
                beginner: beginner == InstanceIdentity.unknown ? other.beginner : beginner,
                answerer: answerer == InstanceIdentity.unknown ? other.answerer : answerer)
        }
    }

    private struct State {
        /// What its beginner has sent, and got.
        var out: UInt64
        var into: UInt64
        var start: UInt64
        /// Number of the dump that showed it last.
        var seen: UInt32
        /// Its instances then.
        var owners: Owners
    }

    private struct Growth {
        var connections: UInt32 = 0
        var out: UInt64 = 0
        var into: UInt64 = 0
        var first: UInt64
        var last: UInt64
    }

    private let settings: ConntrackSettings
    /// Entries that began at or after this are new, whatever shows them first.
    private let countsFrom: UInt64
    private let instance: (IPAddress) -> UInt32?
    private var table: [UInt64: State] = [:]
    private var pending: [FlowKey: Growth] = [:]
    private var sequence: UInt64 = 0
    /// The number of the current or last dump; an aborted one passes its number to the next.
    private var dumpNumber: UInt32 = 0
    private var wholeDumps: UInt32 = 0
    private var isDumping = false
    /// Entries that ended during a dump, which may still list them.
    private var endedMeanwhile: Set<UInt64> = []
    private var hasBaseline = false
    private var isBaselineWhole = true
    private(set) var statistics = Statistics()

    /// - Parameters:
    ///   - countsFrom: nanoseconds since 1970. Nothing that began at or after it was ever counted: the start of this
    ///     run, or the time of the last record that an earlier run stored. Needs `nf_conntrack_timestamp`.
    ///   - instance: the instance with this address; nil: none here, and not counted.
    init(_ settings: ConntrackSettings, countsFrom: UInt64, instance: @escaping (IPAddress) -> UInt32?) {
        self.settings = settings
        self.countsFrom = countsFrom
        self.instance = instance
    }

    var tracked: Int { table.count }
    /// Take the records now.
    var isFull: Bool { pending.count >= settings.pendingLimit }

    // MARK: Dumps

    mutating func beginDump() {
        dumpNumber = wholeDumps &+ 1
        isDumping = true
        endedMeanwhile.removeAll(keepingCapacity: true)
    }

    /// - Parameters:
    ///   - isComplete: false if it broke off, or the kernel says that it may have missed entries.
    ///   - hasHeardEnds: all ends reported before the end of the previous dump have been read. Otherwise a missing
    ///     entry's end may still be queued, and would count all of it again.
    mutating func finishDump(isComplete: Bool, hasHeardEnds: Bool = true) {
        isDumping = false
        endedMeanwhile.removeAll(keepingCapacity: true)
        guard isComplete else { return }
        hasBaseline = true
        wholeDumps = dumpNumber
        guard hasHeardEnds else { return }
        // Must be missing twice: an entry that moves in a growing table can be missed once, and would then be counted
        // whole again.
        let gone = table.filter { wholeDumps &- $0.value.seen >= 2 }.keys
        for key in gone { table[key] = nil }
        statistics.missedEnds += UInt64(gone.count)
    }

    // MARK: Entries

    /// - Parameter now: wall clock, nanoseconds since 1970.
    mutating func see(_ entry: ConntrackEntry, isEnd: Bool, now: UInt64) {
        guard !isRelayed(entry) else { return }
        let current = owners(entry)
        let name = ConntrackAccount.name(entry)
        // Growth before its instance left is billed to that instance once; then the entry is only tracked.
        let known = table[name]
        guard !current.isNobody || known != nil else { return }
        if isEnd {
            if isDumping { endedMeanwhile.insert(name) }
        } else if endedMeanwhile.contains(name) {
            return
        }
        if entry.originalBytes == nil { statistics.withoutCounters += 1 }
        let state = State(
            out: entry.originalBytes ?? 0, into: entry.replyBytes ?? 0, start: entry.start, seen: dumpNumber,
            owners: current)
        if isEnd {
            table[name] = nil
        } else if known != nil || table.count < settings.tableLimit {
            table[name] = state
        } else {
            if !hasBaseline { isBaselineWhole = false }
            statistics.deferred += 1
            return
        }
        let before = ConntrackAccount.isSame(known, state) ? known?.owners ?? .nobody : .nobody
        let whose = before.or(current)
        if !whose.isNobody { count(entry, whose, state, known, now) }
    }

    private func owners(_ entry: ConntrackEntry) -> Owners {
        let beginner = instance(entry.original.source) ?? InstanceIdentity.unknown
        // TCP to an instance is the relay's own leg, or was begun by a side that is not billed here.
        guard entry.original.proto != 6 else { return Owners(beginner: beginner, answerer: InstanceIdentity.unknown) }
        // Behind translation, the address that answers is the instance's own.
        return Owners(
            beginner: beginner, answerer: instance(entry.reply.source) ?? InstanceIdentity.unknown)
    }

    private mutating func count(
        _ entry: ConntrackEntry, _ owners: Owners, _ state: State, _ known: State?, _ now: UInt64
    ) {
        let last = entry.stop != 0 ? entry.stop : now
        let first = entry.start != 0 ? min(entry.start, last) : last
        var growth = Growth(connections: 1, out: state.out, into: state.into, first: first, last: last)
        if let known, ConntrackAccount.isSame(known, state) {
            (growth.connections, growth.out, growth.into) = (0, state.out - known.out, state.into - known.into)
            guard growth.out > 0 || growth.into > 0 else { return }
        } else if known == nil, wasThereBefore(entry) {
            statistics.baselined += 1
            return
        }
        if owners.beginner != InstanceIdentity.unknown {
            let (tuple, port) = (entry.original, entry.original.destinationPort)
            add(ConntrackAccount.key(tuple, owners.beginner, peer: tuple.destination, port: port), growth)
        }
        guard owners.answerer != InstanceIdentity.unknown, owners.answerer != owners.beginner else { return }
        (growth.connections, growth.out, growth.into) = (0, growth.into, growth.out)
        guard growth.out > 0 || growth.into > 0 else { return }
        let (tuple, port) = (entry.reply, entry.reply.sourcePort)
        add(ConntrackAccount.key(tuple, owners.answerer, peer: entry.original.source, port: port), growth)
    }

    /// A later entry can reuse the id and tuple of one whose end was missed: its counters restart.
    private static func isSame(_ known: State?, _ now: State) -> Bool {
        guard let known else { return false }
        return now.out >= known.out && now.into >= known.into
            && (known.start == now.start || known.start == 0 || now.start == 0)
    }

    /// Whether what it has counted so far may have been counted by an earlier run.
    private func wasThereBefore(_ entry: ConntrackEntry) -> Bool {
        entry.start != 0 ? entry.start < countsFrom : !hasBaseline || !isBaselineWhole
    }

    /// - Parameters:
    ///   - tuple: what the instance sends.
    ///   - port: the one that its beginner sent to: a client that takes a new one for each question is one flow.
    private static func key(
        _ tuple: ConntrackEntry.Tuple, _ instance: UInt32, peer: IPAddress, port: UInt16
    ) -> FlowKey {
        let isICMP = tuple.proto == 1 || tuple.proto == 58
        return FlowKey(
            instance: instance, source: tuple.source, destination: peer, port: isICMP ? tuple.icmp : port,
            proto: tuple.proto)
    }

    private mutating func add(_ key: FlowKey, _ growth: Growth) {
        guard var sum = pending[key] else {
            pending[key] = growth
            return
        }
        sum.connections &+= growth.connections
        sum.out &+= growth.out
        sum.into &+= growth.into
        sum.first = min(sum.first, growth.first)
        sum.last = max(sum.last, growth.last)
        pending[key] = sum
    }

    private func isRelayed(_ entry: ConntrackEntry) -> Bool {
        guard entry.original.proto == 6 else { return false }
        if !settings.countsTCP { return true }
        if let mark = settings.relayedMark, entry.mark & mark.mask == mark.value { return true }
        // A redirect replies from another address or port than requested.
        let isRewritten =
            entry.reply.source != entry.original.destination
            || entry.reply.sourcePort != entry.original.destinationPort
        return isRewritten && settings.relayedPorts.contains(entry.reply.sourcePort)
    }

    private static func name(_ entry: ConntrackEntry) -> UInt64 {
        var hasher = Hasher()
        hasher.combine(entry.id)
        hasher.combine(entry.zone)
        hasher.combine(entry.original.source)
        hasher.combine(entry.original.destination)
        hasher.combine(entry.original.sourcePort)
        hasher.combine(entry.original.destinationPort)
        hasher.combine(entry.original.proto)
        return UInt64(bitPattern: Int64(hasher.finalize()))
    }

    // MARK: Records

    /// What has grown since the last call.
    mutating func take() -> [FlowRecord] {
        var records: [FlowRecord] = []
        records.reserveCapacity(pending.count)
        for (key, growth) in pending {
            sequence += 1
            records.append(
                FlowRecord(
                    key: key, connections: growth.connections, bytesOut: growth.out, bytesIn: growth.into,
                    firstSeen: growth.first, lastSeen: growth.last, origin: .max, sequence: sequence))
        }
        pending.removeAll(keepingCapacity: true)
        return records
    }
}
