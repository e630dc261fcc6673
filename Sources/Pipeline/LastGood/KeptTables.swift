import Pipeline
import PipelineRouting
import PipelineState

/// What a node knows of the tables that are written for its next start (ADR 0116).
struct KeptTables {
    /// Something is kept and not yet applied: a table would say less than the records.
    var isBehind = false
    /// How objects are applied could not be kept, so what is in force is not what the records lead to.
    var isBarred = false
    /// Else none is read or written: for whoever only looks.
    var isUsed = false
    /// Of the rules by which the newest one was made.
    fileprivate var key: [UInt8] = []
    /// What was to be written could not be, or was not worth it: none is tried before that change.
    fileprivate var next: UInt64 = 0
    fileprivate var least = TableImage.least
    /// What this node began from, and serves from still; nil: it has read all.
    fileprivate(set) var file: DerivedFile?
    /// What is being written, kept here so that its last owner is this thread.
    fileprivate var image: TableImage?
    private var notices: [StateNotice] = []

    mutating func note(_ more: [StateNotice]) { notices += more }
    mutating func takeNotices() -> [StateNotice] {
        defer { notices = [] }
        return notices
    }
}

extension LastGood {
    /// Of a store that has gone through the moment of its newest table: that one's nonce.
    private static let fact = Array("table".utf8)
    /// How many changes later one that could not be written is tried again.
    private static let pause: UInt64 = 10_000

    /// Starts from a table, if there is one that fits, and has them written. Before ``restore(_:meanwhile:)``.
    /// - Parameter least: of fewer routes none is written.
    package func useTables(least: Int = TableImage.least) { (tables.isUsed, tables.least) = (true, least) }

    // MARK: A start

    func openTable(for routing: RoutingState) -> KeptTable? {
        guard tables.isUsed else { return nil }
        let nonce = LastGood.fact.withUnsafeBufferPointer { store.value(RecordKind.fact, $0) }.map { Array($0) }
        let (file, notices) = store.openDerived(version: MappedTable.version, key: routing.rulesKey, nonce: nonce)
        tables.note(notices)
        guard let file else { return nil }
        guard let table = MappedTable(file.content, info: file.info, owner: file) else {
            noteUnused(file.path, "it makes no sense")
            return nil
        }
        var changed: [[UInt8]] = []
        for kind in [RecordKind.desired(.route), RecordKind.applied(.route)] {
            store.forEachChanged(kind) { changed.append(Array($0)) }
        }
        tables.file = file
        return KeptTable(table, changed: changed, desired: count(.route))
    }

    func noteStart(from table: KeptTable?, _ routing: RoutingState) {
        guard table != nil else { return }
        if routing.mappedRoutes > 0 {
            tables.key = routing.rulesKey
        } else {
            noteUnused(tables.file?.path ?? directory, routing.tableRefusal)
            tables.file = nil
        }
    }

    private func noteUnused(_ path: String, _ why: String) {
        tables.note([StateNotice("state_table_unused", "\(path): \(why); all is read instead")])
    }

    /// The table that it began from was cut, or written to: all is read from texts, in its place. Cheap as long as it was
    /// not.
    /// - Returns: nil: there is no such thing, or something is kept and not yet applied.
    public func mendTable(of routing: RoutingState) -> ApplyReport? {
        guard !tables.isBehind, !store.hasGroup, let file = tables.file, store.isSpoiled(file) else { return nil }
        tables.file = nil
        store.forgetDerived()
        let blocks = routing.forgetMapped()
        let report = routing.restore(StoredObjects(store: store), StoredApplied(store: store)) {
            if let blocks { _ = routing.apply(together: [blocks]) }
        }
        var notes = AppliedNotes(store)
        notes.take(report)
        keep(notes, routing)
        tables.note([
            StateNotice(
                "state_table_damaged",
                "\(file.path): its bytes were changed, or can't be read any more; all is read from texts now, nothing is "
                    + "lost; nobody but the node may touch its files")
        ])
        return report
    }

    // MARK: The next one

    /// The next start can use one, if the rules are as they are now.
    public func hasTable(for routing: RoutingState) -> Bool {
        tables.isUsed && store.hasDerived && tables.key == routing.rulesKey
    }

    func wantsTable(_ routing: RoutingState) -> Bool {
        guard tables.isUsed, !store.hasGroup, store.figures.sequence >= tables.next else { return false }
        return !hasTable(for: routing)
    }

    /// Writes what is in force now, which is all that is kept; nil: it can't, or is not worth it.
    func tableTask(_ routing: RoutingState) -> DerivedTask? {
        guard tables.isUsed, !tables.isBarred, !store.isDeriving, store.changesInMemory == 0,
            let image = routing.image(least: tables.least)
        else { return nil }
        tables.next = store.figures.sequence + LastGood.pause
        let nonce = LastGood.secret()
        var batch = StateBatch()
        nonce.withUnsafeBytes { batch.put(RecordKind.fact, LastGood.fact, $0) }
        do throws(StateFault) { try store.append(batch, durably: false) } catch {
            fault = error
            return nil
        }
        tables.key = image.key
        tables.image = image
        return DerivedTask(version: MappedTable.version, key: image.key, nonce: nonce) { put throws(StateFault) in
            try image.write(put)
        }
    }

    /// - Parameter known: of the newest one before what is over was taken.
    func noteWritten(since known: UInt64?) {
        if store.derivedSequence != known { tables.next = 0 }
        if !store.isDeriving, !store.isCompacting { tables.image = nil }
    }
}
