import Pipeline
import PipelineRouting
import PipelineState

/// Desired state as a node keeps it: what is wanted, what of it is applied otherwise, and whose update was the last.
///
/// An update is prepared (nothing is changed by that), kept (durable from then on), and applied. What it takes from
/// whom is decided by ``RoutingState`` alone; this keeps what decides it.
///
/// Threading: the control thread.
public final class LastGood {
    public let directory: String
    let store: StateStore
    private var besides = Besides()
    /// Nil: nothing was applied from here yet.
    public internal(set) var last: LastUpdate?
    /// The last update is kept in the reserve of a full disk alone, or its last steps could not be written.
    public internal(set) var fault: StateFault?
    /// What is wrong with the files of the store, as of the last look.
    public private(set) var filesFault: StateFault?
    /// Changes that were durable and that this start did not find any more, until a whole document is kept.
    public internal(set) var losses: [String] = []
    var position: UpdatePosition
    /// The boot guard's, with what it had before this start.
    var mark: BootMark
    var startsBefore = 0
    var isStarting = false
    /// See ``KeptTables``.
    var tables = KeptTables()

    init(_ directory: String, _ store: StateStore) {
        (self.directory, self.store) = (directory, store)
        last = Facts.read(store)
        position = Facts.position(store)
        mark = store.readMark(BootMark.file).flatMap { BootMark($0) } ?? BootMark()
    }

    /// - Parameter waiting: as ``StateStore/open(_:label:seed:waiting:)``.
    public static func open(
        _ directory: String, waiting: ((_ process: Int32?) -> Bool)? = nil
    ) throws(StateFault) -> (state: LastGood, notices: [StateNotice]) {
        let opened = try StateStore.open(directory, label: label, seed: LastGood.secret, waiting: waiting)
        let kept = LastGood(directory, opened.store)
        kept.losses = opened.notices.filter(\.isLoss).map(\.text)
        return (kept, opened.notices)
    }

    /// By what people know an update.
    static let label = EntryLabel(StateKey(kind: RecordKind.fact, id: Array("revision".utf8)), noun: "revision")

    static func secret() -> [UInt8] {
        let random = (UInt64.random(in: .min ... .max), UInt64.random(in: .min ... .max))
        return withUnsafeBytes(of: random) { Array($0) }
    }

    /// Keys the hashes over names: the same over restarts, and known to nobody.
    public var seed: HashSeed {
        let halves = store.secret.withUnsafeBytes { bytes in
            (bytes.loadUnaligned(as: UInt64.self), bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        }
        return HashSeed(halves.0, halves.1)
    }

    /// It has objects.
    public var isEmpty: Bool { StateKind.allCases.allSatisfy { count($0) == 0 } }
    public func count(_ kind: StateKind) -> Int { store.count(RecordKind.desired(kind)) }
    /// Objects that are not applied as they are desired.
    public var otherwise: Int { StateKind.allCases.reduce(0) { $0 + store.count(RecordKind.applied($1)) } }
    public var objects: some DesiredObjects { StoredObjects(store: store) }
    public var figures: StateStore.Figures { store.figures }
    /// Why nothing new is kept, though what there is is used; nil: it is.
    public var exposure: StateFault? { store.exposure }
    public var isOnReserve: Bool { store.isOnReserve }
    public func takeNotices() -> [StateNotice] { tables.takeNotices() + store.takeNotices() }

    /// Goes on where the node ended (R5, R23).
    /// - Parameter meanwhile: see ``RoutingState/restore(_:_:meanwhile:)``.
    public func restore(_ routing: RoutingState, meanwhile: () -> Void = {}) -> ApplyReport {
        Besides.restore(routing, store)
        let table = openTable(for: routing)
        let report = routing.restore(
            StoredObjects(store: store), StoredApplied(store: store), from: table, meanwhile: meanwhile)
        noteStart(from: table, routing)
        var notes = AppliedNotes(store)
        notes.take(report)
        keep(notes, routing)
        return report
    }

    // MARK: An update

    /// One that may be kept and applied.
    public struct Prepared {
        let difference: Difference
        let next: LastUpdate
        /// How many objects it changes.
        public var count: Int { difference.count }
        /// It has the revision of the one before, and other content.
        public let isRevisionReused: Bool
        /// It is no entry of a log: it is kept as a new snapshot, by itself.
        public var isLarge: Bool { difference.isLarge }
        /// What is applied with it.
        public var revision: UInt64? { next.revision }
        /// It is the last one then.
        public var place: LastUpdate { next }

        /// What of it takes away; nothing of one that is large.
        public func takingAway(seed: HashSeed) -> TakingAway {
            TakingAway(of: difference.update, touching: difference.touched, seed: seed)
        }

        func isUnchanged(since last: LastUpdate?) -> Bool { difference.isEmpty && next == last }

        func position(behind position: UpdatePosition, sequence: UInt64) -> UpdatePosition {
            guard !difference.isEmpty else { return position }
            return UpdatePosition(
                number: position.number &+ 1, before: sequence, digest: difference.update.digest)
        }
    }

    /// Compares an update with what there is. Changes nothing.
    /// - Parameters:
    ///   - source: see ``LastUpdate/source``.
    ///   - now: nanoseconds since 1970.
    ///   - group: what there is by then, if it is to be a part of it.
    ///   - place: what its sender takes for the last one; nil: what that is.
    public func prepare(
        _ update: StateUpdate, from source: String, _ options: UpdateOptions = UpdateOptions(), now: UInt64,
        behind group: UpdateGroup? = nil, as place: LastUpdate? = nil
    ) throws(UpdateRefusal) -> Prepared {
        let group = if let group { group } else { try anyGroup() }
        let last = place ?? group.last
        if let refusal = last?.refusal(of: update, from: source, options) { throw refusal }
        if last == nil, case .change(let base?) = update.form {
            throw UpdateRefusal(
                "the change stands on revision \(base), but nothing is applied", remedy: "push a whole document first")
        }
        if !options.isConfirmed, let refusal = refusal(ofSetAside: update) { throw refusal }
        if let fault = store.spoiled, update.form != .document {
            throw UpdateRefusal(fault.message, remedy: "a change says too little")
        }
        let difference = Difference(update, group.records)
        // What was cut meanwhile reads as zeros.
        if !difference.isAnew, let fault = store.spoiled { throw UpdateRefusal(fault) }
        if !options.isConfirmed, let refusal = difference.shrink.refusal("the update") { throw refusal }
        let next = LastUpdate.after(last, update, from: source, at: now)
        let isReused =
            last.map { $0.source == source && update.revision != nil && $0.revision == update.revision } ?? false
        return Prepared(difference: difference, next: next, isRevisionReused: isReused && !difference.isEmpty)
    }

    /// Makes a prepared update durable, by itself. A fault changes nothing.
    public func keep(_ prepared: Prepared) throws(StateFault) {
        guard !prepared.isUnchanged(since: last) else { return }
        var difference = prepared.difference
        let position = prepared.position(behind: position, sequence: store.figures.sequence)
        let facts = Facts.of(prepared.next) + position.facts
        if difference.isLarge {
            try store.replaceAll { writer throws(StateFault) in try difference.write(&writer, facts) }
        } else {
            difference.put(facts)
            try store.append(difference.batch, durably: true)
        }
        tables.isBehind = true
        if difference.update.form == .document { losses = [] }
        note(prepared.next, position)
    }

    /// What is kept from here on.
    func note(_ last: LastUpdate?, _ position: UpdatePosition) {
        self.last = last
        guard position != self.position else { return }
        self.position = position
        noteUpdate()
    }

    /// Applies what was kept.
    public func apply(_ prepared: Prepared, to routing: RoutingState, at now: Instant? = nil) -> ApplyReport {
        defer { tables.isBehind = false }
        guard !prepared.difference.isEmpty else { return ApplyReport() }
        if prepared.difference.isAnew { routing.keepAllTimes() }
        return settled(
            prepared.difference.isLarge
                ? routing.applyAll(of: objects, at: now)
                : routing.apply(prepared.difference.touched, of: objects, at: now), routing, now)
    }

    /// Applies all that is kept, under rules that may be others now.
    /// - Parameter blocks: the `route` blocks, which are part of the same change.
    public func applyAll(with blocks: StateDocument, to routing: RoutingState, at now: Instant) -> ApplyReport {
        defer { tables.isBehind = false }
        return settled(routing.applyAll(of: objects, with: blocks, at: now), routing, now)
    }

    /// What one change frees, who waits for it has at once.
    private static let passes = 4

    private func settled(_ report: ApplyReport, _ routing: RoutingState, _ now: Instant?) -> ApplyReport {
        var notes = AppliedNotes(store)
        let report = settled(report, routing, now, &notes)
        keep(notes, routing)
        return report
    }

    func settled(
        _ report: ApplyReport, _ routing: RoutingState, _ now: Instant?, _ notes: inout AppliedNotes
    ) -> ApplyReport {
        var report = report
        notes.take(report)
        for _ in 0..<LastGood.passes where routing.isUnsettled {
            let next = routing.apply(TouchedObjects(), of: objects, at: now)
            notes.take(next)
            report.add(next)
        }
        return report
    }

    /// Gives addresses whose cooldown is over to those who wait for them (R31).
    public func applyWaiting(to routing: RoutingState, at now: Instant) -> ApplyReport {
        settled(routing.apply(TouchedObjects(), of: objects, at: now), routing, now)
    }

    /// Keeps what has changed without an update: drains that are over, and times after the wall clock was set. Cheap.
    public func keepTimes(of routing: RoutingState) { keep(AppliedNotes(store), routing) }

    // MARK: How it is applied

    /// Keeps how objects are applied. This is not synced: until it is, a start would find the change kept and not yet
    /// applied, and apply it again.
    func keep(_ notes: AppliedNotes, _ routing: RoutingState) {
        var batch = StateBatch()
        notes.put(&batch)
        besides.collect(routing)
        besides.put(&batch, store)
        guard !batch.isEmpty else { return besides.written() }
        do throws(StateFault) {
            try store.append(batch, durably: false)
            besides.written()
            fault = nil
        } catch {
            fault = error
            // What is in force is not what a start would find.
            if !notes.isEmpty { tables.isBarred = true }
            // Else memory would go on to say how objects were applied before.
            if error.leavesMemory, store.keepInMemory(batch) { besides.written() }
        }
    }

    // MARK: Housekeeping

    /// How many changes are in force that no disk has.
    public var changesInMemory: Int { store.changesInMemory }

    /// Makes them durable, if the disk takes them by now.
    public func writeFromMemory() {
        do throws(StateFault) { if try store.writeFromMemory() { fault = nil } } catch { fault = error }
    }

    /// Its files are those that it has written, or are again by now (ADR 0111); else why nothing may be changed.
    public func check() throws(StateFault) { try store.check() }

    /// ``tidy(whenOver:)`` has work.
    public var wantsTidying: Bool { store.wantsCompaction || store.isCompactionOver || store.isDerivingOver }

    /// A thread of its own writes a snapshot or a table.
    public var isTidying: Bool { store.isCompacting || store.isDeriving }

    /// What others did to the files of a node that nobody pushes to is found, and mended where that can be.
    /// - Returns: what can't be mended and was not known yet.
    public func lookAtFiles() -> StateFault? {
        let known = filesFault
        do throws(StateFault) {
            try store.check()
            filesFault = nil
        } catch { filesFault = error }
        return filesFault == known ? nil : filesFault
    }

    /// Nothing that the store says may be relied on (a file was damaged, and nothing on disk leads to the same): why.
    public var spoiled: StateFault? { store.spoiled }

    /// Takes over a snapshot that a thread has written, and has the next one written when it is time; so with tables. Cheap.
    /// - Parameters:
    ///   - routing: has applied all that is kept; nil: no table is written.
    ///   - whenOver: on that thread.
    public func tidy(
        _ routing: RoutingState? = nil, whenOver: @escaping @Sendable () -> Void = {}
    ) -> StateNotice? {
        let known = store.derivedSequence
        let notice = store.adoptCompaction()
        store.adoptDerived()
        noteWritten(since: known)
        // Between the end of a group and its effect the store has not what its log has.
        guard !tables.isBehind else { return notice }
        do throws(StateFault) {
            if store.wantsCompaction {
                try store.beginCompaction(deriving: routing.flatMap { tableTask($0) }, whenOver: whenOver)
            } else if let routing, wantsTable(routing), let task = tableTask(routing) {
                try store.beginDeriving(task, whenOver: whenOver)
            }
        } catch { fault = error }
        store.refillReserve()
        return notice
    }
}

/// What the store has of the last update.
enum Facts {
    static func of(_ update: LastUpdate) -> [(name: String, value: String)] {
        [
            ("source", update.source), ("revision", update.revision.map(String.init) ?? ""), ("actor", update.actor),
            ("at", String(update.at)),
        ]
    }

    static func read(_ store: StateStore) -> LastUpdate? {
        guard let source = fact("source", store) else { return nil }
        return LastUpdate(
            source: source, revision: number("revision", store), actor: fact("actor", store) ?? "",
            at: number("at", store) ?? 0)
    }

    static func position(_ store: StateStore) -> UpdatePosition {
        UpdatePosition(
            number: number("update", store) ?? 0, before: number("update_before", store) ?? 0,
            digest: number("update_digest", store) ?? 0)
    }

    private static func fact(_ name: String, _ store: StateStore) -> String? {
        Array(name.utf8).withUnsafeBufferPointer { store.value(RecordKind.fact, $0) }
            .map { String(decoding: $0, as: UTF8.self) }
    }

    private static func number(_ name: String, _ store: StateStore) -> UInt64? {
        fact(name, store).flatMap { UInt64($0) }
    }
}

extension LastGood {
    /// Objects as they are applied, a page at a time, in the order of ids.
    /// - Returns: what to go on behind; nil: that was the last page.
    public func page(
        _ kind: StateKind, behind id: [UInt8]?, count: Int, _ body: (UnsafeRawBufferPointer) -> Void
    ) -> [UInt8]? {
        let applied = StoredApplied(store: store)
        return store.page(RecordKind.desired(kind), behind: id, count: count) { id, text in
            guard let object = applied.find(kind, id), object.version != .desired else { return body(text) }
            if !object.text.isEmpty { object.text.withUnsafeBytes(body) }
        }
    }

    /// Objects that are not applied as they are desired, a page at a time, in the order of ids: as they are desired, and
    /// whether an earlier version is applied.
    /// - Returns: what to go on behind; nil: that was the last page.
    public func pageOfOthers(
        _ kind: StateKind, behind id: [UInt8]?, count: Int,
        _ body: (_ id: Bytes, _ text: UnsafeRawBufferPointer, _ hasEarlier: Bool) -> Void
    ) -> [UInt8]? {
        store.page(RecordKind.applied(kind), behind: id, count: count) { id, record in
            guard let object = AppliedObject(record: record), object.version != .desired,
                let text = store.value(RecordKind.desired(kind), id)
            else { return }
            body(id, text, !object.text.isEmpty)
        }
    }

    /// An object as it is desired; nil: there is none.
    public func text(_ kind: StateKind, _ id: [UInt8]) -> [UInt8]? {
        id.withUnsafeBufferPointer { store.value(RecordKind.desired(kind), $0) }.map { Array($0) }
    }
}
