import CLinux
import Pipeline
import PipelineJournal
import PipelineLastGood
import PipelineRouting
import PipelineState

/// The turn of an update that the disk does not take: it is full, fails, or is read-only. What the update takes away is in
/// force all the same, in memory alone until the disk takes it; the rest of it is refused (ADR 0115).
extension UpdateBatch {
    /// It could not be made durable.
    func fail(_ fault: StateFault) {
        let failed = members
        if fault.leavesMemory, let place { desired.refusedPlace = place }
        fail(UpdateRefusal(fault))
        guard fault.leavesMemory, let group = desired.kept.makeGroupInMemory() else { return }
        (self.group, isAlone, changes) = (group, false, 0)
        for index in members.indices {
            // One that waited is tried again by itself; what it takes away was taken when it came.
            if case .released = failed[index].update.subject { continue }
            if let prepared = failed[index].prepared { takeAway(prepared, of: index, failed[index], fault) }
        }
        guard changes > 0 else { return }
        do throws(StateFault) {
            try desired.kept.keepInMemory(group)
            (isFailed, undurable) = (false, fault)
        } catch { refuseAll(error) }
    }

    private func takeAway(
        _ prepared: LastGood.Prepared, of index: Int, _ failed: Member, _ fault: StateFault
    ) {
        guard let subject = failed.takenAway?.update ?? failed.subject else { return }
        do throws(UpdateRefusal) {
            guard let change = try change(prepared.takingAway(seed: desired.kept.seed), subject) else { return }
            let taken = try desired.kept.prepare(
                change, from: failed.update.sender.source.name, now: cl_wall_clock(), behind: group)
            guard taken.count > 0 else { return }
            try group.add(taken)
            changes += taken.count
            members[index].takenAway = TakenAway(update: change, prepared: taken)
            if case .fileHeld = failed.outcome {
                members[index].outcome = failed.outcome
            } else {
                members[index].outcome = .partly(
                    takenAway: taken.count, UpdateRefusal(inPart: fault), revision: desired.last?.revision)
            }
        } catch {
            // It stays refused, for the disk: that is what is to be mended.
        }
    }

    private func refuseAll(_ fault: StateFault) {
        changes = 0
        for index in members.indices where members[index].takenAway != nil {
            members[index].takenAway = nil
            members[index].outcome = .refused(UpdateRefusal(fault), revision: desired.last?.revision)
        }
    }

    // MARK: Behind what was refused

    /// Where an update stands that follows one which the disk did not take, as its sender may see it, and why it can't be
    /// taken whole; nil: it follows what is in force, or nothing that is known.
    func placeBehindRefused(
        _ subject: StateUpdate, _ options: UpdateOptions
    ) -> (place: LastUpdate, refusal: UpdateRefusal)? {
        guard let place = place ?? desired.refusedPlace,
            let refusal = group.last?.refusal(of: subject, from: desired.source.name, options),
            place.refusal(of: subject, from: desired.source.name, options) == nil
        else { return nil }
        return (place, refusal)
    }

    /// What takes away of an update that can't be taken whole; durable, if the disk takes that.
    /// - Parameter place: what its sender takes for the last one; nil: what that is.
    func takeInPart(
        _ update: WaitingUpdate, _ subject: StateUpdate, _ place: LastUpdate?, _ outcome: (Int) -> Member.Outcome
    ) -> Bool {
        do throws(UpdateRefusal) {
            let prepared = try desired.kept.prepare(
                subject, from: update.sender.source.name, update.options, now: cl_wall_clock(), behind: group,
                as: place)
            defer { if place != nil { self.place = prepared.place } }
            return takeAway(prepared.takingAway(seed: desired.kept.seed), of: subject, update, outcome)
        } catch {
            refuse(update, error)
            return true
        }
    }
}

// MARK: What is said of it

/// What is in force that no disk has.
package struct NotDurable: Equatable {
    /// Nanoseconds since 1970.
    package let since: UInt64
    /// How many objects were taken away.
    package internal(set) var objects: Int
    /// What the disk said last.
    package internal(set) var why: String

    package var text: String {
        "\(objects) objects were taken away (not ready any more, suspended, withdrawn), and no disk has that: a restart "
            + "serves them again; \(why)"
    }
}

extension RunningNode {
    func sayNotDurable(_ objects: Int, _ fault: StateFault) {
        guard let desired else { return }
        let isFirst = desired.notDurable == nil
        var known = desired.notDurable ?? NotDurable(since: cl_wall_clock(), objects: 0, why: "")
        known.objects += objects
        known.why = fault.messageInPart
        desired.notDurable = known
        guard isFirst else { return }
        log.say("state_not_durable", known.text) { $0.field("objects", objects) }
    }

    /// Once the disk has it.
    func sayDurable() {
        guard let desired, let known = desired.notDurable, desired.kept.changesInMemory == 0 else { return }
        (desired.notDurable, desired.refusedPlace) = (nil, nil)
        let text = "what was taken away while the disk took nothing is durable: \(known.objects) objects"
        log.say("state_durable", text) { $0.field("objects", known.objects) }
        var entry = JournalEntry(.applied, source: desired.source.name, what: text)
        entry.revision = desired.last?.revision
        record(entry)
    }

    /// The node ends, and tries a last time.
    func endMemory() {
        guard let desired, desired.notDurable != nil else { return }
        desired.kept.writeFromMemory()
        sayDurable()
        guard let known = desired.notDurable else { return }
        log.say("state_not_durable", "the node ends: \(known.text)") { $0.field("objects", known.objects) }
        var entry = JournalEntry(.rejected, source: desired.source.name, what: "what was taken away is not kept")
        entry.why = known.text
        record(entry)
    }
}
