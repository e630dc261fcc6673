import Pipeline
import PipelineRouting
import PipelineState

/// What an update changes in what a store has: as one entry of its log; or, where that would be too long, as a new
/// snapshot.
struct Difference {
    /// More objects or bytes are no entry of a log.
    static let most = 50_000
    static let mostBytes = 32 << 20

    let update: StateUpdate
    private(set) var touched = TouchedObjects()
    private(set) var shrink = ShrinkGuard()
    private(set) var count = 0
    private(set) var batch = StateBatch()
    private var bytes = 0
    private let records: StateGroup
    /// There is nothing before that could be forgotten.
    private let isFirst: Bool

    /// The store has nothing that can be relied on: the document is all there is.
    let isAnew: Bool

    var isLarge: Bool { isAnew || count > Difference.most || bytes > Difference.mostBytes }

    /// - Parameter records: what there is, with what came before it in its group.
    init(_ update: StateUpdate, _ records: StateGroup) {
        self.update = update
        self.records = records
        isFirst = StateKind.allCases.allSatisfy { records.count(RecordKind.desired($0)) == 0 }
        isAnew = records.spoiled != nil
        for kind in StateKind.allCases {
            shrink.counts[kind] = ShrinkGuard.Count(before: records.count(RecordKind.desired(kind)))
        }
        guard !isAnew else {
            countAnew()
            return
        }
        var kept: [StateKind: Int] = [:]
        update.forEachPut { kind, id, text in
            let before = records.value(RecordKind.desired(kind), id)
            if before == nil { shrink.counts[kind]?.added += 1 } else { kept[kind, default: 0] += 1 }
            if let before, before.elementsEqual(text) { return }
            note(kind, id, before)
            bytes += text.count
            if !isLarge { batch.put(RecordKind.desired(kind), id, text) }
        }
        for (kind, id) in update.deletes { id.withUnsafeBufferPointer { remove(kind, $0) } }
        if update.form == .document { removeOthers(update, kept) }
    }

    var isEmpty: Bool { count == 0 && !isAnew }

    /// How many there were is known in any case: of those, at least so many go.
    private mutating func countAnew() {
        var puts: [StateKind: Int] = [:]
        update.forEachPut { kind, _, _ in
            puts[kind, default: 0] += 1
            count += 1
        }
        for (kind, before) in shrink.counts {
            shrink.counts[kind]?.removed = max(0, before.before - (puts[kind] ?? 0))
            shrink.counts[kind]?.added = max(0, (puts[kind] ?? 0) - before.before)
        }
    }

    /// What the document has not.
    private mutating func removeOthers(_ update: StateUpdate, _ kept: [StateKind: Int]) {
        for kind in StateKind.allCases where records.count(RecordKind.desired(kind)) > kept[kind] ?? 0 {
            var gone: [[UInt8]] = []
            records.forEach(RecordKind.desired(kind)) { id, _ in if !update.has(kind, id) { gone.append(Array(id)) } }
            for id in gone { id.withUnsafeBufferPointer { remove(kind, $0) } }
        }
    }

    private mutating func remove(_ kind: StateKind, _ id: Bytes) {
        guard let before = records.value(RecordKind.desired(kind), id) else { return }
        shrink.counts[kind]?.removed += 1
        note(kind, id, before)
        if !isLarge { batch.delete(RecordKind.desired(kind), id) }
    }

    private mutating func note(_ kind: StateKind, _ id: Bytes, _ before: UnsafeRawBufferPointer?) {
        count += 1
        bytes += id.count
        guard !isLarge else { return }
        touched.insert(kind, id)
        guard let record = unfinished(kind, id, before) else { return }
        bytes += record.count
        record.withUnsafeBytes { batch.put(RecordKind.applied(kind), id, $0) }
    }

    /// What is applied under an id, kept with its change: a crash before that is applied must not forget it. Once it is
    /// applied, this is put right. Nil: it is kept already.
    private func unfinished(_ kind: StateKind, _ id: Bytes, _ before: UnsafeRawBufferPointer?) -> [UInt8]? {
        guard !isFirst else { return nil }
        let known = records.value(RecordKind.applied(kind), id).flatMap { AppliedObject(record: $0) }
        if let known, known.version != .desired { return nil }
        return AppliedObject(before.map { .text(Array($0)) } ?? .nothing, known?.flags ?? []).record
    }

    mutating func put(_ facts: [(name: String, value: String)]) {
        for fact in facts {
            Array(fact.value.utf8).withUnsafeBytes { batch.put(RecordKind.fact, Array(fact.name.utf8), $0) }
        }
    }

    // MARK: As a snapshot

    /// All that there is with the update in it.
    func write(_ writer: inout SnapshotWriter, _ facts: [(name: String, value: String)]) throws(StateFault) {
        if !isAnew { try writeKnown(&writer) }
        try update.forEachPut { kind, id, text throws(StateFault) in
            if !isAnew {
                let before = records.value(RecordKind.desired(kind), id)
                if let before, before.elementsEqual(text) { return }
                try finish(kind, id, before, &writer)
            }
            try writer.put(RecordKind.desired(kind), id, text)
        }
        for fact in facts {
            let value = Array(fact.value.utf8)
            try writer.put(value, RecordKind.fact, Array(fact.name.utf8))
        }
    }

    /// What stays of what there is, and what is kept beside objects.
    private func writeKnown(_ writer: inout SnapshotWriter) throws(StateFault) {
        let deletes = Set(update.deletes.map { StateKey(kind: RecordKind.desired($0.kind), id: $0.id) })
        for kind in StateKind.allCases {
            let desired = RecordKind.desired(kind)
            try records.visit(desired) { id, value throws(StateFault) in
                let isGone =
                    update.form == .document
                    ? !update.has(kind, id)
                    : !deletes.isEmpty && deletes.contains(StateKey(kind: desired, id: Array(id)))
                if isGone {
                    try finish(kind, id, value, &writer)
                } else {
                    try writer.put(desired, id, value)
                }
            }
            try records.visit(RecordKind.applied(kind)) { id, value throws(StateFault) in
                try writer.put(RecordKind.applied(kind), id, value)
            }
        }
        for kind in RecordKind.besides {
            try records.visit(kind) { id, value throws(StateFault) in try writer.put(kind, id, value) }
        }
    }

    private func finish(
        _ kind: StateKind, _ id: Bytes, _ before: UnsafeRawBufferPointer?, _ writer: inout SnapshotWriter
    ) throws(StateFault) {
        if let record = unfinished(kind, id, before) { try writer.put(record, RecordKind.applied(kind), id) }
    }
}
