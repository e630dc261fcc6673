import CLinux
import Pipeline
import PipelineJournal
import PipelineLastGood
import PipelineRouting
import PipelineState
import PipelineText

/// What updates do to a running node (R22): put in force, said, journaled. Their way is ``UpdateQueue``'s.
extension RunningNode {
    /// Where an update comes from, and who says so.
    struct Sender {
        let source: RouteSource
        var peer: JournalEntry.Peer?
        /// As the journal names the way.
        var way: String
        /// Who it is, if the update does not say.
        var actor: String?
    }

    /// Every worker has applied the last change, or has by the end of a short wait.
    func settles() -> Bool { waitUntilSettled(milliseconds: patience) }

    /// It was asked to end: it drains, or does so once its disk has answered.
    package var isEnding: Bool { isStopping || updates?.isClosed ?? false }

    /// How many updates wait for their turn.
    package var updatesWaiting: Int { updates?.waiting ?? 0 }

    func forgetDrains(_ now: Instant) { routing.forgetDrains { drains.isDone($0, now: now) } }

    /// Does what changes what is kept besides updates, and goes between them.
    func doBetweenUpdates() {
        let now = Instant(nanoseconds: cl_now())
        tidyState(now)
        dropHeldOfOthers()
        lookAtCanary(now)
        lookAtRoutes(now)
        if let due = routing.nextCooldown, due <= now, isSettled { endCooldowns(now) }
    }

    /// Some of that is due.
    var hasWorkBetweenUpdates: Bool {
        let now = Instant(nanoseconds: cl_now())
        return [canary?.nextLook, routing.nextCooldown].contains { $0.map { $0 <= now } ?? false }
            || desired?.kept.wantsTidying ?? false
    }

    /// Does it behind the updates that wait, and not while some are being made durable.
    package func afterUpdates(_ body: @escaping () -> Void) {
        if let updates, updates.isBusy { updates.wait(body) } else { body() }
    }

    /// R31: an address whose cooldown is over goes to who waits for it.
    func endCooldowns(_ now: Instant) {
        forgetDrains(now)
        let waited = routing.cooling(RunningNode.shownAddresses)
        let report = desired.map { $0.kept.applyWaiting(to: routing, at: now) } ?? routing.applyWaiting(at: now)
        guard let report else { return }
        putInForce([report], now)
        _ = settles()
        let left = routing.cooling(RunningNode.shownAddresses)
        let over = waited.named.filter { one in !left.named.contains { $0.address == one.address } }
        log.say("cooldown_over", "addresses that were another env's are served") { line in
            line.list("addresses", over) { $0.string($1.address.description) }
            line.field("waiting", left.count)
        }
    }
    private static let shownAddresses = 100

    /// Publishes what updates have done: at once, for all of them.
    func putInForce(_ reports: [ApplyReport], _ now: Instant) {
        for report in reports { desired?.note(report) }
        if let desired, reports.contains(where: { $0.isWhole || $0.applied[.instance] != nil }) {
            bound = routing.boundAddresses(of: desired.kept.objects)
        }
        publishRouting(now)
    }

    /// Publishes what ``routing`` has now, and waits until workers serve by it.
    func putInForce(_ now: Instant) {
        publishRouting(now)
        _ = settles()
    }

    private func publishRouting(_ now: Instant) {
        drains.update(routing.currentDrains, now: now)
        let change = listeners.apply(plannedListeners, [:], now: now)
        publish()
        if !change.isEmpty { say(change) }
    }

    // MARK: Journal and log

    /// - Parameter what: nil: as its subject says.
    private func entry(
        _ outcome: JournalEntry.Outcome, _ member: UpdateBatch.Member, _ what: String? = nil
    ) -> JournalEntry {
        let sender = member.update.sender
        guard let update = member.subject else {
            let what = if case .discard = member.update.subject { "a discard" } else { "a confirmation" }
            var entry = JournalEntry(outcome, source: sender.source.name, what: "\(what) by \(sender.way)")
            entry.peer = sender.peer
            return entry
        }
        let form = update.form == .document ? "a document" : "a change"
        var entry = JournalEntry(
            outcome, source: sender.source.name,
            what: what ?? "\(form) by \(sender.way)\(member.options.isConfirmed ? ", confirmed" : "")")
        entry.actor = update.actor.isEmpty ? sender.actor : update.actor
        entry.peer = sender.peer
        entry.request = update.request.isEmpty ? nil : update.request
        entry.revision = update.revision
        return entry
    }

    func record(_ member: UpdateBatch.Member, _ report: ApplyReport) {
        var entry = entry(.applied, member)
        entry.why = RunningNode.counts(report)
        record(entry)
    }

    /// Of one that has to wait.
    /// - Parameter undurable: why it is not durable; nil: it is.
    func record(
        _ takenAway: UpdateBatch.TakenAway, of member: UpdateBatch.Member, _ report: ApplyReport,
        _ undurable: StateFault?
    ) {
        let how = undurable == nil ? "before it" : "not durable"
        let what = "a change by \(member.update.sender.way), what it takes away, \(how)"
        var entry = entry(.applied, member, what)
        entry.revision = takenAway.update.revision
        entry.why = RunningNode.counts(report) + (undurable.map { "; \($0.messageInPart)" } ?? "")
        record(entry)
    }

    func record(_ member: UpdateBatch.Member, discarded head: HeldUpdates.Head) {
        var entry = entry(.rejected, member, "\(head.id), which was held, is discarded")
        entry.why = head.why
        record(entry)
    }

    func record(_ member: UpdateBatch.Member, _ refusal: UpdateRefusal) {
        var entry = entry(refusal.isHeld ? .held : .rejected, member)
        entry.why = refusal.problem
        record(entry)
    }

    static func counts(_ report: ApplyReport) -> String {
        var counts = "\(report.added) routes added, \(report.changed) changed, \(report.removed) removed"
        if report.backendsChanged > 0 { counts += ", \(report.backendsChanged) sets of backends changed" }
        if report.cooling > 0 { counts += ", \(report.cooling) addresses wait for their cooldown" }
        if report.kept > 0 { counts += ", \(report.kept) kept as they were" }
        if report.problems.rejected > 0 { counts += ", \(report.problems.rejected) objects quarantined" }
        return counts
    }

    // MARK: The end

    /// Nothing is kept from here on: the node that follows goes on with it.
    func endUpdates() {
        isStopping = true
        // Whoever wrote to the disk last has it still, and so has the lock: until the process ends.
        if updates?.abandon(.unknown) ?? false {
            abandoned = desired
        } else {
            desired?.kept.keepTimes(of: routing)
            endMemory()
        }
        dropHeld("the node ends")
        (updates, desired) = (nil, nil)
    }

    // MARK: Housekeeping

    /// Says what the store does by itself, and has it compacted when it is time.
    private func tidyState(_ now: Instant) {
        guard let desired else { return }
        desired.kept.keepTimes(of: routing)
        if let fault = desired.lookAtFiles(now) { log.say("state_damaged", fault.message) }
        sayDurable()
        if let report = desired.kept.mendTable(of: routing) { putInForce([report], now) }
        var notices = desired.kept.takeNotices()
        if let notice = desired.kept.tidy(routing) { notices.append(notice) }
        for notice in notices where notice.event != "state_compacted" { log.say(notice.event, notice.text) }
    }
}

extension UpdateRefusal {
    static let unsettled = UpdateRefusal(
        "a worker has not applied the change before yet", remedy: "try again in a moment", isPassing: true)
    static let stopping = UpdateRefusal(
        "this node is stopping", remedy: "push to the one that follows it", isPassing: true)
    static let unknown = UpdateRefusal(
        "this node stops, and its disk has not answered: whether the update is kept is not known",
        remedy: "ask the one that follows it (`pipelined status`), and push it again", isPassing: true)
}
