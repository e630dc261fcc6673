import Pipeline
import PipelineRouting
import PipelineState

/// Updates that become durable together and then take effect one after the other (ADR 0112). Each is compared with what
/// those before it leave; nothing that the node serves or keeps is touched before all of them are durable.
///
/// Threading: the control thread.
public final class UpdateGroup {
    struct Member {
        let prepared: LastGood.Prepared
        /// Its batch in ``records``; nil: nothing is different.
        let batch: Int?
    }

    let records: StateGroup
    private(set) var members: [Member] = []
    /// As its updates leave it.
    public private(set) var last: LastUpdate?
    private(set) var position: UpdatePosition

    init(_ records: StateGroup, _ last: LastUpdate?, _ position: UpdatePosition) {
        (self.records, self.last, self.position) = (records, last, position)
    }

    /// How many updates it has, and the bytes that are written for them.
    public var count: Int { members.count }
    public var byteCount: Int { records.byteCount }
    /// There is nothing to write.
    public var isDurable: Bool { records.count == 0 }

    /// An object as its updates leave it; nil: there is none.
    public func text(_ kind: StateKind, _ id: [UInt8]) -> [UInt8]? {
        id.withUnsafeBufferPointer { records.value(RecordKind.desired(kind), $0) }.map { Array($0) }
    }

    /// Puts an update behind the others; one that is large can only be kept by itself.
    public func add(_ prepared: LastGood.Prepared) throws(UpdateRefusal) {
        guard !prepared.isLarge else {
            throw UpdateRefusal("it is too long for a group", remedy: "send it by itself", isPassing: true)
        }
        guard !prepared.isUnchanged(since: last) else {
            members.append(Member(prepared: prepared, batch: nil))
            return
        }
        var difference = prepared.difference
        let position = prepared.position(behind: self.position, sequence: records.sequence)
        difference.put(Facts.of(prepared.next) + position.facts)
        do throws(StateFault) { try records.stage(difference.batch) } catch { throw UpdateRefusal(error) }
        (last, self.position) = (prepared.next, position)
        members.append(Member(prepared: prepared, batch: records.count - 1))
    }
}

extension LastGood {
    /// Over files that are the store's (ADR 0111).
    public func makeGroup() throws(StateFault) -> UpdateGroup { UpdateGroup(try store.makeGroup(), last, position) }

    func anyGroup() throws(UpdateRefusal) -> UpdateGroup {
        do throws(StateFault) { return try makeGroup() } catch { throw UpdateRefusal(error) }
    }

    /// One that no disk gets, whatever its files look like; nil: nothing may be changed.
    public func makeGroupInMemory() -> UpdateGroup? {
        store.makeGroupInMemory().map { UpdateGroup($0, last, position) }
    }

    /// On return it is to be applied, and is not durable.
    public func keepInMemory(_ group: UpdateGroup) throws(StateFault) {
        try store.keepInMemory(group.records)
        note(group.last, group.position)
    }

    /// Has a thread make it durable. Until ``end(_:)`` nothing else is kept.
    public func handOver(_ group: UpdateGroup) throws(StateFault) { try store.handOver(group.records) }

    /// A descriptor, readable once the group that was handed over may be ended; nil: none was, or it may be.
    public var groupNotice: Int32? { store.groupNotice }
    /// A group was handed over, and has not ended.
    public var hasGroup: Bool { store.hasGroup }
    /// And may be ended without a wait.
    public var isGroupOver: Bool { store.isGroupOver }
    public var groupFigures: GroupFigures { store.groupFigures }

    /// Ends a group, and waits for it: on return it is durable, and is to be applied. A fault changes nothing.
    public func end(_ group: UpdateGroup) throws(StateFault) {
        try store.endGroup()
        tables.isBehind = true
        if group.members.contains(where: { $0.prepared.difference.update.form == .document }) { losses = [] }
        note(group.last, group.position)
    }

    /// Applies what has ended well, in order.
    /// - Returns: what each update did.
    public func apply(_ group: UpdateGroup, to routing: RoutingState, at now: Instant? = nil) -> [ApplyReport] {
        var notes = AppliedNotes(store)
        let reports = group.members.map { member in
            guard let batch = member.batch else { return ApplyReport() }
            let touched = member.prepared.difference.touched
            notes.willChange(touched)
            group.records.takeEffect(batch)
            guard !member.prepared.difference.isEmpty else { return ApplyReport() }
            return settled(routing.apply(touched, of: objects, at: now), routing, now, &notes)
        }
        keep(notes, routing)
        tables.isBehind = false
        return reports
    }
}

extension UpdateRefusal {
    /// What a store says may be over soon.
    public init(_ fault: StateFault) {
        self.init(
            fault.message,
            remedy: "then send it again"
                + (fault.leavesMemory ? "; until then the node takes nothing but \(UpdateRefusal.takingAway)" : ""),
            isPassing: true)
    }

    /// Of one of which something is in force.
    public init(inPart fault: StateFault) {
        self.init(fault.messageInPart, remedy: "then send it again", isPassing: true)
    }

    private static let takingAway = "what takes away (lost readiness, suspensions, removals), which is not durable"
}
