import CLinux
import Pipeline
import PipelineLastGood
import PipelineRouting

/// The turn of an update where a guard holds one: what is held, waits, is confirmed, dropped or released (R29, ADR 0114).
extension UpdateBatch {
    // MARK: What comes

    /// A guard holds a push. What it takes away waits with it.
    func hold(
        _ push: PushedUpdate, _ subject: StateUpdate, _ unread: RouteProblems, _ refusal: UpdateRefusal
    ) -> Member.Outcome {
        let head = makeHead(refusal)
        held.hold(HeldUpdates.Item(push, subject, unread, TakingAway()), head)
        return .held(head, refusal, revision: revision)
    }

    private func makeHead(_ refusal: UpdateRefusal) -> HeldUpdates.Head {
        HeldUpdates.Head(
            id: desired.nextHeldID(), why: refusal.problem, since: cl_wall_clock(), stopsStream: refusal.stopsStream)
    }

    /// Behind what is held: none of it is taken but what takes away.
    func wait(
        _ update: WaitingUpdate, _ subject: StateUpdate, _ unread: RouteProblems, _ push: PushedUpdate
    ) -> Bool {
        guard let head = held.head else {
            refuse(update, held.releasing)
            return true
        }
        let item = HeldUpdates.Item(push, subject, unread, TakingAway(of: subject, seed: desired.kept.seed))
        let isKnown = held.isLast(item)
        if !isKnown, let refusal = held.refusal(of: item, behind: group.last, desired.source.name) {
            refuse(update, refusal)
            return true
        }
        return takeAway(isKnown ? TakingAway() : item.taking, of: subject, update) { count in
            if !isKnown { held.append(item) }
            let place = HeldUpdates.Place(head: head, isKnown: isKnown, takenAway: count, waiting: held.waiting)
            return .waits(place, revision: revision)
        }
    }

    /// A guard holds what a routes file says. Of what it says later, what takes away is taken.
    func holdFile(_ update: WaitingUpdate, _ subject: StateUpdate, _ outcome: Member.Outcome) -> Bool {
        let isFirst = heldFile == nil
        let taking = isFirst ? TakingAway() : TakingAway(of: subject, seed: desired.kept.seed)
        return takeAway(taking, of: subject, update) { _ in
            if isFirst { heldFile = HeldFile(since: cl_wall_clock()) } else { heldFile?.documents += 1 }
            return outcome
        }
    }

    /// What an update takes away goes with the group, though the update itself has to wait.
    /// - Parameter waits: gets how many objects that changes.
    /// - Returns: false if that is to be taken by itself.
    func takeAway(
        _ taking: TakingAway, of subject: StateUpdate, _ update: WaitingUpdate, _ waits: (Int) -> Member.Outcome
    ) -> Bool {
        do throws(UpdateRefusal) {
            var takenAway: TakenAway?
            if let change = try change(taking, subject) {
                guard let prepared = try prepare(update, change, UpdateOptions()) else { return false }
                takenAway = TakenAway(update: change, prepared: prepared)
            }
            append(update, subject, update.options, waits(takenAway?.prepared.count ?? 0), takenAway)
        } catch { refuse(update, error) }
        return true
    }

    /// Nil: it takes nothing away that is still there.
    func change(_ taking: TakingAway, _ subject: StateUpdate) throws(UpdateRefusal) -> StateUpdate? {
        guard !taking.isEmpty else { return nil }
        let seed = desired.kept.seed
        let texts = taking.texts(over: group.text, seed: seed)
        // What was cut meanwhile reads as zeros.
        if let fault = desired.kept.spoiled { throw UpdateRefusal(fault) }
        guard !texts.isEmpty else { return nil }
        return StateUpdate.putting(texts, actor: subject.actor, request: subject.request, seed: seed)
    }

    // MARK: What an operator decides

    func confirm(_ update: WaitingUpdate, _ id: String) -> Bool {
        guard held.head?.id == id, let item = held.first, let subject = held.firstToApply(seed: desired.kept.seed)
        else {
            refuse(update, held.refusal(ofUnknown: id))
            return true
        }
        let options = UpdateOptions(isConfirmed: true, allowsOlder: item.push.isOlder)
        return take(update, subject, options) { prepared in
            let following = held.waiting
            held.removeFirst(now)
            return .prepared(prepared, unread: item.unread, following: following)
        } orElse: {
            .refused($0, revision: revision)
        }
    }

    func discard(_ update: WaitingUpdate, _ id: String) -> Bool {
        guard let head = held.head, head.id == id, let item = held.first else {
            refuse(update, held.refusal(ofUnknown: id))
            return true
        }
        let following = held.waiting
        held.removeFirst(now)
        append(update, item.update, update.options, .discarded(head, following: following, revision: revision))
        return true
    }

    // MARK: What follows

    /// It is time for the next of those that waited.
    var isReleaseDue: Bool { held.isReleaseDue(now) }

    /// Takes it.
    /// - Returns: false if it is to be taken by itself.
    func releaseNext() -> Bool {
        guard let item = held.first, let subject = held.firstToApply(seed: desired.kept.seed) else { return false }
        return add(
            WaitingUpdate(
                subject: .released(subject),
                sender: RunningNode.Sender(source: .push, peer: item.push.peer, way: "push, which waited"),
                options: UpdateOptions(allowsOlder: item.push.isOlder), byteCount: 0
            ) { _ in })
    }

    func release(_ update: WaitingUpdate, _ subject: StateUpdate) -> Bool {
        let unread = held.first?.unread ?? RouteProblems()
        return take(update, subject, update.options) { prepared in
            held.took(now)
            hasReleased = true
            return .prepared(prepared, unread: unread, following: 0)
        } orElse: { refusal in
            hasReleased = true
            guard !refusal.stopsStream else {
                let head = makeHead(refusal)
                held.hold(head)
                return .held(head, refusal, revision: revision)
            }
            if refusal.isPassing {
                held.pauseRelease(until: now + UpdateBatch.releasePause)
            } else {
                held.took(now, refused: refusal.problem)
            }
            return .refused(refusal, revision: revision)
        }
    }
}
