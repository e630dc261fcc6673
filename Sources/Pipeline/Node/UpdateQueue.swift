import CLinux
import Pipeline
import PipelineLastGood
import PipelineRouting
import PipelineState

/// The way of updates into a running node (R22, ADR 0112). They wait for their turn; are compared, each with what those
/// before it leave; are made durable as one group by a thread; then take effect one after the other, are published at once,
/// and are answered and journaled each for itself. What else changes what is kept waits between groups.
///
/// Threading: the control thread, which waits for no disk here.
final class UpdateQueue {
    /// What may wait. The newest is refused beyond that, unless nothing waits.
    static let mostWaiting = 8192
    static let mostWaitingBytes = 64 << 20
    private enum Item {
        case update(WaitingUpdate)
        /// What changes other things, and goes between groups.
        case other(() -> Void)
    }

    private unowned let node: RunningNode
    private let desired: DesiredState
    private var items: [Item] = []
    private var waitingBytes = 0
    private var waitingUpdates = 0
    /// What is being made durable, or waits until a worker is ready for it.
    private var current: UpdateBatch?
    /// One of those that waited behind a held update goes at a time, so that a long line does not keep this thread.
    private var mayRelease = true
    /// Nil: updates are taken.
    private var closedBecause: UpdateRefusal?

    init(_ node: RunningNode, _ desired: DesiredState) { (self.node, self.desired) = (node, desired) }

    private var kept: LastGood { desired.kept }

    /// A group is on its way: nothing else may change what is kept.
    var hasGroup: Bool { current != nil }
    /// Something is on its way, or waits.
    var isBusy: Bool { current != nil || !items.isEmpty }
    /// How many wait for their turn.
    var waiting: Int { waitingUpdates }
    /// Nothing more is taken: the node ends.
    var isClosed: Bool { closedBecause != nil }
    /// A descriptor, readable when ``advance()`` has work.
    var notice: Int32? { kept.groupNotice }
    /// It waits for no event.
    var nextTick: Instant? {
        let isWaiting = current.map { $0.isDurable } ?? !items.isEmpty
        guard !isWaiting else { return Instant(nanoseconds: cl_now()) + .milliseconds(1) }
        return hasGroup || isClosed ? nil : desired.held.due
    }

    // MARK: Waiting

    /// Its turn comes with the next ``advance()``.
    func take(_ update: WaitingUpdate) {
        if let refusal = closedBecause ?? refusal(ofMore: update.byteCount) { return refuse(update, refusal) }
        waitingBytes += update.byteCount
        waitingUpdates += 1
        items.append(.update(update))
    }

    private func refusal(ofMore bytes: Int) -> UpdateRefusal? {
        guard waitingUpdates > 0 else { return nil }
        guard waitingUpdates >= UpdateQueue.mostWaiting || waitingBytes + bytes > UpdateQueue.mostWaitingBytes else {
            return nil
        }
        return UpdateRefusal(
            "\(waitingUpdates) updates of \(waitingBytes) bytes wait for the disk already",
            remedy: "send it again later", isPassing: true)
    }

    /// What changes what is kept in another way comes behind those that wait, and not while a group is on its way.
    func wait(_ other: @escaping () -> Void) { items.append(.other(other)) }

    private var isOtherNext: Bool { if case .other? = items.first { true } else { false } }

    private func runOthers() {
        while case .other(let body)? = items.first {
            items.removeFirst()
            body()
        }
    }

    // MARK: Groups

    /// Does what can be done without a wait.
    func advance() {
        mayRelease = true
        while true {
            if let batch = current {
                // What others have published since is to be applied first.
                guard isDurable(batch), node.isSettled else { return }
                finish(batch)
            } else {
                runOthers()
                node.doBetweenUpdates()
                guard let batch = prepare() else { return }
                handOver(batch)
            }
        }
    }

    /// False: the disk is not done. A group that could not be made durable has changed nothing, and is durable as that.
    private func isDurable(_ batch: UpdateBatch) -> Bool {
        guard !batch.isDurable else { return true }
        guard kept.isGroupOver else { return false }
        do throws(StateFault) { try kept.end(batch.group) } catch { batch.fail(error) }
        batch.isDurable = true
        return true
    }

    /// Puts it in force and answers. The next one is compared while the workers take this one over.
    private func finish(_ batch: UpdateBatch) {
        current = nil
        let reports = takeEffect(batch)
        guard !isOtherNext, !node.hasWorkBetweenUpdates else {
            _ = node.settles()
            return answer(batch, reports)
        }
        let following = prepare()
        let hasSettled = node.settles()
        answer(batch, reports)
        guard let following else { return }
        if hasSettled { handOver(following) } else { refuse(following, .unsettled) }
    }

    /// What waits behind a held update that was decided about has its turn before all others (R29).
    private var isReleaseDue: Bool { !isClosed && desired.held.isReleaseDue(Instant(nanoseconds: cl_now())) }

    /// What waits, compared; nil: nothing does. Nothing is changed by that.
    private func prepare() -> UpdateBatch? {
        var taken = 0
        defer { remove(taken) }
        guard isReleaseDue ? mayRelease : update(at: 0) != nil else { return nil }
        let batch: UpdateBatch
        do throws(StateFault) { batch = try makeBatch() } catch {
            desired.held.pauseRelease(until: Instant(nanoseconds: cl_now()) + UpdateBatch.releasePause)
            while let update = update(at: taken) {
                taken += 1
                refuse(update, UpdateRefusal(error))
            }
            return nil
        }
        while !batch.isFull {
            if batch.isReleaseDue, !isClosed {
                guard batch.releaseNext() else { break }
            } else {
                guard let update = update(at: taken), batch.add(update) else { break }
                taken += 1
            }
        }
        mayRelease = mayRelease && !batch.hasReleased
        return batch.members.isEmpty ? nil : batch
    }

    /// Where the store takes nothing, of what comes it is looked at what takes away.
    private func makeBatch() throws(StateFault) -> UpdateBatch {
        do throws(StateFault) { return UpdateBatch(try kept.makeGroup(), desired) } catch {
            guard error.leavesMemory, let group = kept.makeGroupInMemory() else { throw error }
            return UpdateBatch(group, desired, fault: error)
        }
    }

    private func remove(_ count: Int) {
        for index in 0..<count {
            guard let update = update(at: index) else { continue }
            waitingBytes -= update.byteCount
            waitingUpdates -= 1
        }
        items.removeFirst(count)
    }

    private func update(at index: Int) -> WaitingUpdate? {
        guard index < items.count, case .update(let update) = items[index] else { return nil }
        return update
    }

    private func handOver(_ batch: UpdateBatch) {
        guard node.settles() else { return refuse(batch, .unsettled) }
        current = batch
        do throws(StateFault) {
            if let fault = batch.fault { throw fault }
            if batch.isAlone {
                // A new snapshot of all there is: written on this thread, as a reload's.
                try batch.keepAlone()
            } else if batch.group.isDurable {
                try kept.end(batch.group)
            } else {
                return try kept.handOver(batch.group)
            }
        } catch { batch.fail(error) }
        batch.isDurable = true
    }

    // MARK: What became of them

    private func takeEffect(_ batch: UpdateBatch) -> [ApplyReport] {
        takeHeld(batch)
        guard !batch.isFailed else { return [] }
        let now = Instant(nanoseconds: cl_now())
        node.forgetDrains(now)
        let reports = batch.apply(to: node.routing, now)
        node.revision = desired.last?.revision
        if batch.changes > 0 { node.putInForce(reports, now) }
        if let fault = batch.undurable {
            node.sayNotDurable(batch.changes, fault)
        } else if batch.changes > 0 {
            desired.refusedPlace = nil
        }
        return reports
    }

    /// What is held and waits from here on.
    private func takeHeld(_ batch: UpdateBatch) {
        (desired.held, desired.heldFile) = (batch.held, batch.heldFile)
        node.sayReleased(desired)
    }

    private func answer(_ batch: UpdateBatch, _ reports: [ApplyReport]) {
        var reports = reports[...]
        for member in batch.members {
            let report = member.prepared.map { _ in reports.popFirst() ?? ApplyReport() } ?? ApplyReport()
            member.update.done(outcome(of: member, report, batch.undurable))
        }
    }

    private func outcome(
        of member: UpdateBatch.Member, _ report: ApplyReport, _ undurable: StateFault?
    ) -> UpdateOutcome {
        // What it takes away came before it; why what is held is not in force stays what it is.
        if let takenAway = member.takenAway { node.record(takenAway, of: member, report, undurable) }
        switch member.outcome {
        case .prepared(let prepared, let unread, let following):
            desired.refusal = nil
            node.record(member, report)
            return .taken(TakenUpdate(report, prepared, unread: unread, following: following))
        case .refused(let refusal, let revision):
            desired.refusal = refusal.problem
            if !member.isRetried(refusal) { node.record(member, refusal) }
            return .refused(refusal, revision: revision)
        case .held(let head, let refusal, let revision):
            desired.refusal = refusal.problem
            node.record(member, refusal)
            if let head { node.sayHeld(head) }
            return .held(head, refusal, revision: revision)
        case .waits(let place, let revision):
            if !place.isKnown { node.record(member, place.refusal) }
            return .waits(place, revision: revision)
        case .partly(let count, let refusal, let revision):
            desired.refusal = refusal.problem
            node.record(member, refusal)
            return .partly(takenAway: count, refusal, isDurable: undurable == nil, revision: revision)
        case .discarded(let head, let following, let revision):
            desired.refusal = nil
            node.record(member, discarded: head)
            return .discarded(head, following: following, revision: revision)
        case .fileHeld(let refusal):
            return .held(nil, refusal, revision: desired.last?.revision)
        }
    }

    private func refuse(_ batch: UpdateBatch, _ refusal: UpdateRefusal) {
        batch.fail(refusal)
        takeHeld(batch)
        answer(batch, [])
    }

    private func refuse(_ update: WaitingUpdate, _ refusal: UpdateRefusal) {
        desired.refusal = refusal.problem
        node.record(UpdateBatch.Member(update, refusal, revision: desired.last?.revision), refusal)
        update.done(.refused(refusal, revision: desired.last?.revision))
    }

    // MARK: The end

    /// Takes no more: what waits for its turn is refused. What is on its way comes to its end.
    func close(_ refusal: UpdateRefusal) {
        closedBecause = refusal
        let waiting = items
        items = []
        (waitingBytes, waitingUpdates) = (0, 0)
        for item in waiting {
            switch item {
            case .update(let update): refuse(update, refusal)
            case .other: items.append(item)
            }
        }
    }

    /// What is on its way is given up: whether it is durable is not known.
    /// - Returns: true if something was.
    func abandon(_ refusal: UpdateRefusal) -> Bool {
        runOthers()
        guard let batch = current else { return false }
        current = nil
        refuse(batch, refusal)
        return true
    }
}
