import Pipeline

/// Bits of `ct mark`.
package struct ConnectionMark: Sendable, Equatable {
    package let value: UInt32
    package let mask: UInt32
    package init(value: UInt32, mask: UInt32 = .max) {
        self.value = value
        self.mask = mask
    }
}

/// What is counted from conntrack, and how.
package struct ConntrackSettings: Sendable, Equatable {
    /// How often the whole table is read: what a crash may lose of live connections (R21).
    package var interval = TimeSpan.seconds(5)
    /// Connections that are followed at once (R27); about 64 bytes each.
    package var tableLimit = 1 << 20
    /// Flow keys between two rounds of records; more make a round early.
    package var pendingLimit = 1 << 16
    /// Of the socket that hears of ends, in bytes.
    package var receiveBuffer = 16 << 20
    /// False: TCP is all the relay's, as where every connection is intercepted.
    package var countsTCP = true
    /// TCP with this connection mark is the relay's, and counted there.
    package var relayedMark: ConnectionMark?
    /// Ports of `redirect` listeners: TCP that is rewritten to one of them is the relay's.
    package var relayedPorts: Set<UInt16> = []
    package init() {}
}

/// Turns what conntrack says into growth by flow, each byte once (R21). No socket and no clock: it is told.
///
/// An entry's counters grow while it lives, so what is known of each is kept, by its id *and* tuple: the id alone is a
/// hash of 32 bits, and of 100,000 live entries two share one. What is not known is counted whole: by the first dump
/// that shows it, or by its end. Hence state is never thrown away while its entry may live; a table that is full takes no
/// more entries, and those that it did not take are counted at their end, or when there is room.
struct ConntrackAccount {
    struct Statistics: Equatable {
        /// Entries that began before we did: only what they grow by is counted, since an earlier run may have counted
        /// the rest.
        var baselined: UInt64 = 0
        /// Times that an entry was not followed, the table being full; it is counted later.
        var deferred: UInt64 = 0
        /// Entries whose end was not heard: what they grew by since they were last seen is lost.
        var missedEnds: UInt64 = 0
        /// Times that an entry had no counters.
        var withoutCounters: UInt64 = 0
    }

    private struct State {
        var out: UInt64
        var into: UInt64
        var start: UInt64
        /// Number of the dump that showed it last.
        var seen: UInt32
        /// Whose it was then; nil: nobody's here any more.
        var instance: UInt32?
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
    /// The number of the dump that is under way, or was the last; one that broke off gives its number to the next.
    private var dumpNumber: UInt32 = 0
    private var wholeDumps: UInt32 = 0
    private var isDumping = false
    /// Those that ended while a dump was under way, which may still show them as they were before.
    private var endedMeanwhile: Set<UInt64> = []
    private var hasBaseline = false
    private var isBaselineWhole = true
    private(set) var statistics = Statistics()

    /// - Parameters:
    ///   - countsFrom: nanoseconds since 1970. Nothing that began at or after it was ever counted: the start of this
    ///     run, or the time of the last record that an earlier run stored. Needs `nf_conntrack_timestamp`.
    ///   - instance: whose address this is; nil: nobody's here, and not counted.
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
    ///   - hasHeardEnds: all ends that the kernel told of until the dump before this one was over have been seen. Else an
    ///     entry that is missing may have one that waits, which would count all of it again.
    mutating func finishDump(isComplete: Bool, hasHeardEnds: Bool = true) {
        isDumping = false
        endedMeanwhile.removeAll(keepingCapacity: true)
        guard isComplete else { return }
        hasBaseline = true
        wholeDumps = dumpNumber
        guard hasHeardEnds else { return }
        // Missing twice, since an entry that moves in a table which grows can be missed once, and would then be counted
        // whole again.
        let gone = table.filter { wholeDumps &- $0.value.seen >= 2 }.keys
        for key in gone { table[key] = nil }
        statistics.missedEnds += UInt64(gone.count)
    }

    // MARK: Entries

    /// - Parameter now: wall clock, nanoseconds since 1970.
    mutating func see(_ entry: ConntrackEntry, isEnd: Bool, now: UInt64) {
        let current = instance(entry.original.source)
        let name = ConntrackAccount.name(entry)
        // What it grew by before its instance left is that one's still: once, then it is only followed.
        let known = table[name]
        guard !isRelayed(entry), current != nil || known != nil else { return }
        if isEnd {
            if isDumping { endedMeanwhile.insert(name) }
        } else if endedMeanwhile.contains(name) {
            return
        }
        if entry.originalBytes == nil { statistics.withoutCounters += 1 }
        let state = State(
            out: entry.originalBytes ?? 0, into: entry.replyBytes ?? 0, start: entry.start, seen: dumpNumber,
            instance: current)
        if isEnd {
            table[name] = nil
        } else if known != nil || table.count < settings.tableLimit {
            table[name] = state
        } else {
            if !hasBaseline { isBaselineWhole = false }
            statistics.deferred += 1
            return
        }
        let whose = ConntrackAccount.isSame(known, state) ? known?.instance ?? current : current
        if let whose { count(entry, whose, state, known, now) }
    }

    private mutating func count(
        _ entry: ConntrackEntry, _ instance: UInt32, _ state: State, _ known: State?, _ now: UInt64
    ) {
        let last = entry.stop != 0 ? entry.stop : now
        let first = entry.start != 0 ? min(entry.start, last) : last
        if let known, ConntrackAccount.isSame(known, state) {
            let (out, into) = (state.out - known.out, state.into - known.into)
            guard out > 0 || into > 0 else { return }
            add(entry, instance, Growth(out: out, into: into, first: first, last: last))
        } else if known == nil, wasThereBefore(entry) {
            statistics.baselined += 1
        } else {
            add(entry, instance, Growth(connections: 1, out: state.out, into: state.into, first: first, last: last))
        }
    }

    /// A later entry can get the name of one whose end we missed: its counters begin anew.
    private static func isSame(_ known: State?, _ now: State) -> Bool {
        guard let known else { return false }
        return now.out >= known.out && now.into >= known.into
            && (known.start == now.start || known.start == 0 || now.start == 0)
    }

    /// Whether what it has counted so far may have been counted by an earlier run.
    private func wasThereBefore(_ entry: ConntrackEntry) -> Bool {
        entry.start != 0 ? entry.start < countsFrom : !hasBaseline || !isBaselineWhole
    }

    private mutating func add(_ entry: ConntrackEntry, _ instance: UInt32, _ growth: Growth) {
        let tuple = entry.original
        let port = tuple.proto == 1 || tuple.proto == 58 ? tuple.icmp : tuple.destinationPort
        let key = FlowKey(
            instance: instance, source: tuple.source, destination: tuple.destination, port: port, proto: tuple.proto)
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
        // A redirect answers from another address or port than was asked for.
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
