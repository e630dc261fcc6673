import CLinux
import Pipeline
import PipelineJournal
import PipelineLastGood
import PipelineRouting
import PipelineState
import PipelineText

/// An update's way into a running node (R22): read, compared, kept, applied, published.
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

    struct TakenUpdate {
        let report: ApplyReport
        let count: Int
        let isRevisionReused: Bool
    }

    /// How long the workers may take for the change before, and for this one: they need about an iteration.
    static let patience = 50

    /// Takes an update: durable and in force when this returns.
    func take(
        _ update: StateUpdate, _ sender: Sender, _ options: UpdateOptions
    ) throws(UpdateRefusal) -> TakenUpdate {
        guard let desired else {
            throw UpdateRefusal("this node keeps no desired state", remedy: "give its config a `state` directory")
        }
        do throws(UpdateRefusal) {
            let prepared = try desired.kept.prepare(update, from: sender.source.name, options, now: cl_wall_clock())
            guard waitUntilSettled(milliseconds: RunningNode.patience) else {
                throw .unsettled
            }
            try keep(prepared, desired)
            desired.refusal = nil
            let report = apply(prepared, desired)
            record(update, sender, options, report)
            return TakenUpdate(report: report, count: prepared.count, isRevisionReused: prepared.isRevisionReused)
        } catch {
            desired.refusal = error.problem
            record(update, sender, options, error)
            throw error
        }
    }

    private func keep(_ prepared: LastGood.Prepared, _ desired: DesiredState) throws(UpdateRefusal) {
        do throws(StateFault) {
            try desired.kept.keep(prepared)
        } catch {
            throw UpdateRefusal(error.message, remedy: "then send it again", isPassing: true)
        }
    }

    private func apply(_ prepared: LastGood.Prepared, _ desired: DesiredState) -> ApplyReport {
        let now = Instant(nanoseconds: cl_now())
        routing.forgetDrains { drains.isDone($0, now: now) }
        let report = desired.kept.apply(prepared, to: routing, at: now)
        revision = desired.last?.revision
        putInForce(report, now)
        return report
    }

    /// R31: an address whose cooldown is over goes to who waits for it.
    func endCooldowns(_ now: Instant) {
        routing.forgetDrains { drains.isDone($0, now: now) }
        let waited = routing.cooling(RunningNode.shownAddresses)
        let report = desired.map { $0.kept.applyWaiting(to: routing, at: now) } ?? routing.applyWaiting(at: now)
        guard let report else { return }
        putInForce(report, now)
        let left = routing.cooling(RunningNode.shownAddresses)
        let over = waited.named.filter { one in !left.named.contains { $0.address == one.address } }
        log.say("cooldown_over", "addresses that were another env's are served") { line in
            line.list("addresses", over) { $0.string($1.address.description) }
            line.field("waiting", left.count)
        }
    }
    private static let shownAddresses = 100

    private func putInForce(_ report: ApplyReport, _ now: Instant) {
        desired?.note(report)
        if let desired, report.isWhole || report.applied[.instance] != nil {
            bound = routing.boundAddresses(of: desired.kept.objects)
        }
        putInForce(now)
    }

    /// Publishes what ``routing`` has now, and waits until workers serve by it.
    func putInForce(_ now: Instant) {
        drains.update(routing.currentDrains, now: now)
        let change = listeners.apply(plannedListeners, [:], now: now)
        publish()
        if !change.isEmpty { say(change) }
        _ = waitUntilSettled(milliseconds: RunningNode.patience)
    }

    // MARK: Journal and log

    private func entry(
        _ outcome: JournalEntry.Outcome, _ update: StateUpdate, _ sender: Sender, _ options: UpdateOptions
    ) -> JournalEntry {
        let form = update.form == .document ? "a document" : "a change"
        var entry = JournalEntry(
            outcome, source: sender.source.name,
            what: "\(form) by \(sender.way)\(options.isConfirmed ? ", confirmed" : "")")
        entry.actor = update.actor.isEmpty ? sender.actor : update.actor
        entry.peer = sender.peer
        entry.request = update.request.isEmpty ? nil : update.request
        entry.revision = update.revision
        return entry
    }

    private func record(_ update: StateUpdate, _ sender: Sender, _ options: UpdateOptions, _ report: ApplyReport) {
        var entry = entry(.applied, update, sender, options)
        entry.why = RunningNode.counts(report)
        record(entry)
    }

    private func record(_ update: StateUpdate, _ sender: Sender, _ options: UpdateOptions, _ refusal: UpdateRefusal) {
        var entry = entry(refusal.isHeld ? .held : .rejected, update, sender, options)
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

    // MARK: Housekeeping

    /// Says what the store does by itself, and has it compacted when it is time.
    func tidyState(_ now: Instant) {
        guard let desired else { return }
        desired.kept.keepTimes(of: routing)
        if let fault = desired.lookAtFiles(now) { log.say("state_damaged", fault.message) }
        var notices = desired.kept.takeNotices()
        if let notice = desired.kept.tidy() { notices.append(notice) }
        for notice in notices where notice.event != "state_compacted" { log.say(notice.event, notice.text) }
    }
}

extension UpdateRefusal {
    static let unsettled = UpdateRefusal(
        "a worker has not applied the change before yet", remedy: "try again in a moment", isPassing: true)
}
