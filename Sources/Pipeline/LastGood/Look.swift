import Pipeline
import PipelineRouting
import PipelineState

/// Last good in memory: what a directory or a running node has, for what would become of it. Nothing on disk is changed.
extension LastGood {
    /// What a directory holds, whether a node has it open or not.
    /// - Returns: `notices` of what a start would do with what is damaged.
    public static func look(at directory: String) throws(StateFault) -> (state: LastGood, notices: [StateNotice]) {
        let looked = try StateStore.look(at: directory, seed: secret)
        return (LastGood(directory, looked.store), looked.notices)
    }

    /// Of a node that has applied nothing yet.
    public static func none() throws(StateFault) -> LastGood {
        let looked = try StateStore.look(at: nil, seed: secret)
        return LastGood(looked.store.directoryName, looked.store)
    }

    /// What a running node keeps.
    /// - Parameters:
    ///   - update: a document of all that is desired.
    ///   - applied: ``forEachApplied(_:)``.
    public static func copy(
        of update: StateUpdate, applied: [(kind: UInt8, id: [UInt8], record: [UInt8])], last: LastUpdate?
    ) throws(StateFault) -> LastGood {
        let copy = try none()
        try copy.store.replaceAll { writer throws(StateFault) in
            try update.forEachPut { kind, id, text throws(StateFault) in
                try writer.put(RecordKind.desired(kind), id, text)
            }
            for object in applied {
                try writer.put(object.record, RecordKind.applied(number: object.kind), object.id)
            }
            for fact in last.map(Facts.of) ?? [] {
                try writer.put(Array(fact.value.utf8), RecordKind.fact, Array(fact.name.utf8))
            }
        }
        copy.last = last
        return copy
    }

    /// How objects are applied where that is not simply as desired, in the form that is kept.
    public func forEachApplied(_ body: (_ kind: UInt8, _ id: Bytes, _ record: UnsafeRawBufferPointer) -> Void) {
        for kind in StateKind.allCases {
            store.forEach(RecordKind.applied(kind)) { id, record in body(kind.rawValue, id, record) }
        }
    }

    /// Objects as they are desired, a page at a time, in the order of ids.
    /// - Returns: what to go on behind; nil: that was the last page.
    public func desiredPage(
        _ kind: StateKind, behind id: [UInt8]?, count: Int, _ body: (UnsafeRawBufferPointer) -> Void
    ) -> [UInt8]? {
        store.page(RecordKind.desired(kind), behind: id, count: count) { _, text in body(text) }
    }
}

extension RecordKind {
    /// - Parameter kind: of a ``StateKind``, as it came from elsewhere.
    fileprivate static func applied(number kind: UInt8) -> UInt8 { (kind & 15) + 16 }
}
