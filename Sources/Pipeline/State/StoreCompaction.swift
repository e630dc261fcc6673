import CLinux
import Glibc
import Pipeline
import PipelineThreads
import Synchronization

/// Writes the snapshot that takes the place of a snapshot and what changed since.
///
/// Threading: made and taken by the store's thread; `run` on its own.
final class Compaction: @unchecked Sendable {
    let number: UInt64
    private let place: StatePlace
    private let base: SnapshotFile
    private let changes: Overlay
    private let sequence: UInt64
    /// Of the logs that are in the new snapshot.
    let logBytes: Int
    /// Written first: until the new snapshot is in its place, it goes with the one before.
    let derivation: Derivation?
    private let isCancelled = Atomic<Bool>(false)
    private let isOver = Atomic<Bool>(false)
    /// Written before `isOver`.
    private var result: SnapshotFile?
    private var fault: StateFault?
    var handle: UInt64?

    init(
        _ number: UInt64, _ place: StatePlace, _ base: SnapshotFile, _ changes: Overlay, sequence: UInt64,
        logBytes: Int, deriving task: DerivedTask? = nil
    ) {
        // Both are to be there for a while.
        let need = (base.byteCount + changes.byteCount) * 2 + place.settings.reserveBytes
        derivation = task.map {
            Derivation(number, place, secret: base.header.secret, sequence: sequence, need: need, $0)
        }
        self.number = number
        self.place = place
        self.base = base
        self.changes = changes
        self.sequence = sequence
        self.logBytes = logBytes
    }

    func cancel() {
        isCancelled.store(true, ordering: .releasing)
        derivation?.cancel()
    }

    /// nil: it is not over.
    func outcome() -> (snapshot: SnapshotFile?, fault: StateFault?)? {
        isOver.load(ordering: .acquiring) ? (result, fault) : nil
    }

    func run() {
        derivation?.run()
        do throws(StateFault) { result = try merge() } catch { fault = error }
        isOver.store(true, ordering: .releasing)
    }

    private func merge() throws(StateFault) -> SnapshotFile {
        let builder = try SnapshotBuilder(
            directory: place.directory,
            SnapshotBuilder.Identity(number: number, secret: base.header.secret, sequence: sequence), place.disk
        ) { self.isCancelled.load(ordering: .acquiring) }
        do throws(StateFault) {
            // Bytes that went bad since it was opened must not get a good checksum.
            try base.check(place)
            var changed: [Record] = []
            changed.reserveCapacity(changes.count)
            changes.visit { changed.append($0) }
            changed.sort { $0.compare($1) < 0 }
            try MergedRecords.forEach(base, 0..<base.records, changed) { record throws(StateFault) in
                try builder.put(record)
            }
            try builder.finish()
            let snapshot: SnapshotFile
            do throws(StateFault) { snapshot = try place.install(builder) } catch {
                // In its place or not, the logs lead to the same.
                guard case .uncertain(let path, let error) = error else { throw error }
                throw .failed(path: path, doing: "syncing its directory", error: error)
            }
            place.removeOlder(than: base.header.number)
            return snapshot
        } catch {
            builder.abandon()
            throw error
        }
    }
}

extension StatePlace {
    /// Puts a finished snapshot in its place: durable on return.
    func install(_ builder: SnapshotBuilder) throws(StateFault) -> SnapshotFile {
        let path = path("snapshot.\(builder.number)")
        // Mapped before it can be found: what can't be mapped is not in the way.
        let snapshot: SnapshotFile
        do throws(FileFlaw) {
            snapshot = try SnapshotFile.open(builder.path, number: builder.number, disk, isKnown: true)
        } catch {
            throw error.fault(builder.path)
        }
        var failed = disk.rename(builder.path, to: path)
        guard failed >= 0 else { throw StateFault.of(path, "putting it in its place", failed) }
        failed = disk.syncDirectory(directory)
        guard failed >= 0 else { throw .uncertain(path: path, error: -failed) }
        return snapshot
    }

    /// A snapshot of its own and the log that goes on from it: a crash leaves both or what was before.
    /// - Parameter isAlone: false: the log also goes on from older files that lead to the same.
    func makeSnapshot(
        _ number: UInt64, secret: [UInt8], sequence: UInt64, synced: UInt64, isAlone: Bool = true,
        _ body: (inout SnapshotWriter) throws(StateFault) -> Void
    ) throws(StateFault) -> (SnapshotFile, AppendLog) {
        let identity = SnapshotBuilder.Identity(number: number, secret: secret, sequence: sequence)
        let builder = try SnapshotBuilder(directory: directory, identity, disk)
        var log: AppendLog?
        do throws(StateFault) {
            var writer = SnapshotWriter(builder: builder)
            try body(&writer)
            try builder.finish()
            let header = LogHeader(
                number: number, written: cl_wall_clock(), store: LogHeader.store(secret: secret),
                alone: isAlone ? number : 0,
                first: sequence + 1)
            var none: [UInt8] = []
            let made = try makeLog(header, &none, synced: synced)
            log = made
            return (try install(builder), made)
        } catch {
            builder.abandon()
            if let log { disk.close(log.file) }
            if case .uncertain = error { throw error }
            _ = disk.remove(path("log.\(number)"))
            throw error
        }
    }

    /// What is older than the state before the newest.
    func removeOlder(than number: UInt64) {
        guard let files = try? StateFiles(self) else { return }
        for older in files.snapshots where older < number { _ = disk.remove(path("snapshot.\(older)")) }
        for older in files.logs where older < number { _ = disk.remove(path("log.\(older)")) }
        for name in files.aside.dropLast(StatePlace.mostAside) { _ = disk.remove(path(name)) }
    }

    /// Of what was set aside, as many are kept.
    private static let mostAside = 8
}

extension FileFlaw {
    func fault(_ path: String) -> StateFault {
        switch self {
        case .damaged: .failed(path: path, doing: "reading it", error: EIO)
        case .newer(let version): .newer(path: path, version: version)
        case .failed(let fault): fault
        }
    }
}

extension StateStore {
    var place: StatePlace { StatePlace(directory: directory, disk: disk, settings: settings) }

    /// Everything is replaced by what `body` puts: durable on return; the state before is kept beside it.
    public func replaceAll(_ body: (inout SnapshotWriter) throws(StateFault) -> Void) throws(StateFault) {
        if inFlight != nil { throw .busy(path: directory) }
        if let closed {
            guard case .spoiled = closed else { throw closed }
            try refuseExposed()
        } else {
            try refuseExposed()
            try mendFiles()
        }
        endCompaction()
        // A number that no log before leads to: what comes later must not be put over the old state.
        let next = sequence + 1
        let number = nextNumber
        nextNumber += 1
        do throws(StateFault) {
            let (snapshot, log) = try place.makeSnapshot(
                number, secret: secret, sequence: next, synced: synced, body)
            let before = base.header.number
            begin(snapshot, log)
            if closed != nil { (closed, wantsCopy) = (nil, true) }
            place.removeOlder(than: before)
        } catch {
            if case .uncertain = error { closed = error }
            throw error
        }
        do throws(StateFault) { try mendFiles() } catch {
            closed = .uncertain(path: directory, error: EIO)
            throw closed ?? error
        }
    }

    // MARK: Compaction

    /// The logs have outgrown a share of the snapshot.
    public var wantsCompaction: Bool {
        guard compaction == nil, derivation == nil, closed == nil, inFlight == nil, !isExposed else { return false }
        if wantsCopy { return true }
        return logBytes > compactAbove && logBytes > max(settings.leastLog, base.byteCount / settings.snapshotShare)
    }

    public var isCompacting: Bool { compaction != nil }
    /// ``adoptCompaction()`` has something to take.
    public var isCompactionOver: Bool { compaction?.outcome() != nil }

    /// Begins to write a new snapshot of what there is now, on a thread; changes go on, in a new log. Does nothing while
    /// one runs.
    /// - Parameters:
    ///   - task: writes a derived file of the same moment.
    ///   - whenOver: called on that thread: it is time for ``adoptCompaction()``.
    public func beginCompaction(
        deriving task: DerivedTask? = nil, whenOver: @escaping @Sendable () -> Void = {}
    ) throws(StateFault) {
        try refuseChange()
        guard compaction == nil, derivation == nil else { return }
        wantsCopy = false
        compactAbove = logBytes + max(settings.leastLog, logBytes / 4)
        let free = disk.freeBytes(directory)
        let need = base.byteCount + live.byteCount + settings.reserveBytes
        guard free > need else { throw .full(path: directory, error: ENOSPC) }
        // All before the new log is in the snapshot, and the log begins behind it.
        try flush()
        // What came since an earlier one failed.
        if let frozen {
            live.visit { frozen.set($0, hash: $0.hash(seed)) }
            live = frozen
            self.frozen = nil
        }
        var none: [UInt8] = []
        try beginLog(entry: &none)
        synced = sequence
        let job = Compaction(
            log.number, place, base, live, sequence: sequence, logBytes: olderLogBytes, deriving: task)
        frozen = live
        live = Overlay(seed)
        compaction = job
        do throws(StateFault) {
            job.handle = try runBeside("state", "to compact", job.run, whenOver)
        } catch {
            compaction = nil
            throw error
        }
    }

    /// Runs what may take long on a thread of low priority.
    /// - Parameters:
    ///   - name: of the thread; `purpose`: what for, in words.
    ///   - whenOver: called on that thread.
    /// - Returns: what to join it by; nil: it has run here.
    func runBeside(
        _ name: String, _ purpose: String, _ run: @escaping @Sendable () -> Void,
        _ whenOver: @escaping @Sendable () -> Void
    ) throws(StateFault) -> UInt64? {
        guard settings.hasThread else {
            run()
            return nil
        }
        var handle: UInt64 = 0
        let failed = NamedThread.start(name, stackBytes: 256 << 10, handle: &handle) {
            _ = cl_lower_priority(10)
            run()
            whenOver()
        }
        guard failed >= 0 else { throw StateFault.of(directory, "starting a thread \(purpose)", failed) }
        return handle
    }

    /// Takes a compaction that is over: searches go to the new snapshot.
    /// - Returns: nil while none is over, or a group is being made durable.
    public func adoptCompaction() -> StateNotice? {
        guard inFlight == nil, let job = compaction, let (snapshot, fault) = job.outcome() else { return nil }
        if let handle = job.handle { _ = cl_thread_join(handle) }
        compaction = nil
        if let derived = job.derivation { take(derived) }
        guard let snapshot else {
            let why = fault?.message ?? "it was cancelled"
            return StateNotice(
                "state_compaction_failed", "\(directory): the logs stay: \(why)")
        }
        (base, baseModified) = (snapshot, snapshot.modified)
        frozen = nil
        olderLogBytes -= job.logBytes
        compactAbove = 0
        return StateNotice(
            "state_compacted",
            "\(directory): snapshot.\(snapshot.header.number), \(snapshot.records) records in \(snapshot.byteCount) bytes"
        )
    }

    func endCompaction() {
        guard let job = compaction else { return }
        job.cancel()
        if let handle = job.handle { _ = cl_thread_join(handle) }
        _ = adoptCompaction()
        compaction = nil
    }
}
