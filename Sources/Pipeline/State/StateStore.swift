import CLinux
import Pipeline

/// A record's name.
public struct StateKey: Hashable, Sendable {
    /// The caller's: 1...255.
    public let kind: UInt8
    /// 1...1024 bytes.
    public let id: [UInt8]

    public init(kind: UInt8, id: [UInt8]) {
        self.kind = kind
        self.id = id
    }
}

/// Records that outlive a crash: a snapshot that is mapped, and a log of what changed since (ADR 0100).
///
/// Threading: one thread at a time. A compaction has a thread of its own.
public final class StateStore {
    let disk: any Disk
    let directory: String
    let settings: StateSettings
    let seed: HashSeed
    /// Kept open: with it goes the lock.
    private let lock: StoreLock
    /// Which directory it is.
    let folder: DiskStatus.Identity
    /// Nil: what is durable is told by the logs alone.
    let head: StateHead?

    // What there is: `live` over `frozen` over `base`.
    var base: SnapshotFile
    /// When its file was written, as of the last look.
    var baseModified: Int64
    /// What a compaction merges into the next snapshot.
    var frozen: Overlay?
    var live: Overlay
    private var counts: [Int]

    var log: AppendLog
    /// Entries that are in the log, and not known to be durable.
    var unsynced: [UInt8] = []
    /// Of the last entry; of the last that is durable.
    var sequence: UInt64
    var synced: UInt64
    /// The first that memory alone has, if it is behind ``synced``.
    var firstInMemory: UInt64 = 0
    /// Snapshots and logs are counted alike; no number is used twice.
    var nextNumber: UInt64
    /// Of logs between the snapshot and the one that is appended to.
    var olderLogBytes: Int

    var reserve: StateReserve
    /// Why nothing may be changed any more.
    var closed: StateFault?
    /// Others may write to its directory, when it was last looked at.
    var isExposed = false
    /// What is being made durable: until that has ended nothing else is changed.
    var inFlight: GroupInFlight?
    /// Nil: no group was handed over yet, or there is none to be had.
    var durability: DurabilityThread?
    var isThreadMissing = false
    public internal(set) var groupFigures = GroupFigures()
    var compaction: Compaction?
    /// A derived file is being written, by itself.
    var derivation: Derivation?
    /// Of the newest derived file that this store has used or written.
    public internal(set) var derivedSequence: UInt64?
    /// No compaction is tried again before there is as much in the logs.
    var compactAbove = 0
    /// There is one whole snapshot: a second one is written when there is time.
    var wantsCopy = false
    private var notices: [StateNotice] = []

    init(
        _ opened: OpenedState, lock: StoreLock, reserve: StateReserve, head: StateHead?, folder: DiskStatus.Identity,
        _ place: StatePlace
    ) {
        disk = place.disk
        directory = place.directory
        settings = place.settings
        self.lock = lock
        self.reserve = reserve
        self.head = head
        self.folder = folder
        base = opened.base
        baseModified = opened.base.modified
        seed = HashSeed(secret: opened.base.header.secret)
        live = opened.overlay
        counts = opened.base.header.counts
        log = opened.log
        sequence = opened.sequence
        synced = opened.sequence
        nextNumber = opened.nextNumber
        olderLogBytes = opened.olderLogBytes
        live.visit { noteCount($0, was: base.find($0.kind, $0.id, hash: $0.hash(seed)) != nil) }
        head?.write(sequence)
    }

    /// Goes on with what the directory turned out to hold.
    func adopt(_ opened: OpenedState) {
        disk.close(log.file)
        (base, baseModified) = (opened.base, opened.base.modified)
        frozen = nil
        live = opened.overlay
        counts = opened.base.header.counts
        live.visit { noteCount($0, was: base.find($0.kind, $0.id, hash: $0.hash(seed)) != nil) }
        log = opened.log
        unsynced = []
        sequence = opened.sequence
        nextNumber = opened.nextNumber
        olderLogBytes = opened.olderLogBytes
        noteDurable(sequence)
    }

    deinit {
        // It writes to files that are closed here.
        durability?.stop()
        inFlight = nil
        endCompaction()
        endDeriving()
        if closed == nil, log.isTrusted, synced < sequence { _ = disk.sync(log.file) }
        disk.close(log.file)
        head?.close()
        lock.end(disk)
    }

    // MARK: What there is

    /// Made at the first open, and the same ever since: 16 bytes.
    public var secret: [UInt8] { base.header.secret }

    /// Valid until the next ``append(_:durably:)``, ``replaceAll(_:)`` or ``adoptCompaction()``; begins at a multiple of 8.
    public func value(_ kind: UInt8, _ id: UnsafeBufferPointer<UInt8>) -> UnsafeRawBufferPointer? {
        guard let record = find(kind, id, hash: SipHash.hash(id, domain: kind, seed: seed)), !record.isDeletion else {
            return nil
        }
        return record.value
    }

    func find(_ kind: UInt8, _ id: UnsafeBufferPointer<UInt8>, hash: UInt64) -> Record? {
        live.find(kind, id, hash: hash) ?? frozen?.find(kind, id, hash: hash) ?? base.find(kind, id, hash: hash)
    }

    /// In the order of ids, bytewise. The store must not be changed meanwhile.
    public func forEach(
        _ kind: UInt8, _ body: (_ id: UnsafeBufferPointer<UInt8>, _ value: UnsafeRawBufferPointer) -> Void
    ) {
        forEach(kind, changes(of: kind), body)
    }

    func forEach(
        _ kind: UInt8, _ changes: [Record],
        _ body: (_ id: UnsafeBufferPointer<UInt8>, _ value: UnsafeRawBufferPointer) -> Void
    ) {
        MergedRecords.forEach(base, base.range(kind), changes) { body($0.id, $0.value) }
    }

    public func count(_ kind: UInt8) -> Int { counts[Int(kind)] }

    /// The newest of what changed, in order.
    /// - Parameter staged: what is put over it.
    func changes(of kind: UInt8, under staged: Overlay? = nil) -> [Record] {
        var changes: [Record] = []
        var above: [Overlay] = []
        for overlay in [staged, live, frozen] {
            guard let overlay else { continue }
            overlay.visit { record in
                guard record.kind == kind else { return }
                if above.allSatisfy({ $0.find(kind, record.id, hash: record.hash(seed)) == nil }) {
                    changes.append(record)
                }
            }
            above.append(overlay)
        }
        changes.sort { $0.compare($1) < 0 }
        return changes
    }

    /// Sizes and ages, for people.
    public struct Figures: Equatable, Sendable {
        public var records = 0
        public var snapshotNumber: UInt64 = 0
        public var snapshotBytes = 0
        /// Nanoseconds since 1970.
        public var snapshotWritten: UInt64 = 0
        public var logBytes = 0
        /// Changed since the snapshot, in memory.
        public var changedRecords = 0
        /// How many changes there ever were, and how many of them are durable.
        public var sequence: UInt64 = 0
        public var durableSequence: UInt64 = 0
    }

    public var figures: Figures {
        Figures(
            records: counts.reduce(0, +), snapshotNumber: base.header.number, snapshotBytes: base.byteCount,
            snapshotWritten: base.header.written, logBytes: logBytes,
            changedRecords: live.count + (frozen?.count ?? 0), sequence: sequence, durableSequence: synced)
    }

    var logBytes: Int { olderLogBytes + log.end - StateFormat.logHeader }

    /// What the store did by itself since this was last asked.
    public func takeNotices() -> [StateNotice] {
        defer { notices = [] }
        return notices
    }

    func note(_ notice: StateNotice) { if notices.count < 64 { notices.append(notice) } }

    // MARK: Changes

    /// Puts what an entry says over what there is.
    func apply(_ entry: LogEntry) {
        entry.visit { record in
            let hash = record.hash(seed)
            let before = find(record.kind, record.id, hash: hash)
            noteCount(record, was: before.map { !$0.isDeletion } ?? false)
            live.set(record, hash: hash)
        }
    }

    private func noteCount(_ record: Record, was: Bool) {
        counts[Int(record.kind)] += (record.isDeletion ? 0 : 1) - (was ? 1 : 0)
    }

    /// After a replacement: nothing is left of what was.
    func begin(_ snapshot: SnapshotFile, _ log: AppendLog) {
        disk.close(self.log.file)
        (base, baseModified) = (snapshot, snapshot.modified)
        frozen = nil
        live = Overlay(seed)
        counts = snapshot.header.counts
        self.log = log
        unsynced = []
        sequence = snapshot.header.sequence
        noteDurable(sequence)
        olderLogBytes = 0
        compactAbove = 0
    }
}

/// Where a store is, and how.
package struct StatePlace: Sendable {
    let directory: String
    let disk: any Disk
    let settings: StateSettings

    package init(directory: String, disk: any Disk, settings: StateSettings = StateSettings()) {
        self.directory = directory
        self.disk = disk
        self.settings = settings
    }

    func path(_ name: String) -> String { "\(directory)/\(name)" }
}

/// Sizes that tests make small.
package struct StateSettings: Sendable {
    package var reserveBytes = 4 << 20
    /// Logs below this are never compacted.
    package var leastLog = 8 << 20
    /// Nor below this share of the snapshot: 1/8.
    package var snapshotShare = 8
    /// More than this is synced without being asked to, since it is kept in memory until then.
    package var mostUnsynced = 4 << 20
    /// More than this is not in force without a disk that has it.
    package var mostInMemory = 16 << 20
    package var label: EntryLabel?
    /// False: a compaction is done when it is begun. For tests.
    package var hasThread = true
    package init() {}
}

/// A snapshot and what changed since, both in order, as one.
enum MergedRecords {
    /// - Parameter changes: in order, with deletions, which are left out.
    static func forEach<Failure: Error>(
        _ snapshot: SnapshotFile, _ range: Range<Int>, _ changes: [Record], _ body: (Record) throws(Failure) -> Void
    ) throws(Failure) {
        var next = 0
        for index in range {
            guard let record = snapshot.record(index) else { continue }
            var isReplaced = false
            while next < changes.count {
                let order = changes[next].compare(record)
                if order > 0 { break }
                if order == 0 { isReplaced = true }
                if !changes[next].isDeletion { try body(changes[next]) }
                next += 1
            }
            if !isReplaced { try body(record) }
        }
        while next < changes.count {
            if !changes[next].isDeletion { try body(changes[next]) }
            next += 1
        }
    }
}
