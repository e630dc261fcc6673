import CLinux
import Pipeline
import PipelineLastGood
import PipelineRouting
import PipelineState

/// Updates that are on their way together, with what is known of each. In its turn it is decided whether an update is
/// taken, held, or waits behind what is held (R29): ``HeldTurns.swift``.
///
/// Threading: the control thread.
final class UpdateBatch {
    /// What goes together, at most.
    static let mostUpdates = 512
    static let mostBytes = 4 << 20

    struct Member {
        enum Outcome {
            /// - Parameter following: how many waited behind it.
            case prepared(LastGood.Prepared, unread: RouteProblems, following: Int)
            case refused(UpdateRefusal, revision: UInt64?)
            case held(HeldUpdates.Head?, UpdateRefusal, revision: UInt64?)
            case waits(HeldUpdates.Place, revision: UInt64?)
            case discarded(HeldUpdates.Head, following: Int, revision: UInt64?)
            /// The reload that read it has said so.
            case fileHeld(UpdateRefusal)
            /// The disk takes nothing of it; what it takes away is in force all the same.
            case partly(takenAway: Int, UpdateRefusal, revision: UInt64?)
        }
        let update: WaitingUpdate
        /// Nil: what was confirmed is not there.
        let subject: StateUpdate?
        let options: UpdateOptions
        var outcome: Outcome
        /// It has to wait, and this goes before it.
        var takenAway: TakenAway?

        /// What of it becomes durable with the group; nil: nothing.
        var prepared: LastGood.Prepared? {
            if case .prepared(let prepared, _, _) = outcome { prepared } else { takenAway?.prepared }
        }
    }

    /// What an update takes away, as a change of its own.
    struct TakenAway {
        let update: StateUpdate
        let prepared: LastGood.Prepared
    }

    /// Another one once this has failed: of what is taken away all the same.
    var group: UpdateGroup
    let desired: DesiredState
    let now = Instant(nanoseconds: cl_now())
    var members: [Member] = []
    /// As its updates leave it.
    var held: HeldUpdates
    var heldFile: HeldFile?
    /// As it was before the first of them that is to become durable.
    private var heldBefore: (updates: HeldUpdates, file: HeldFile?)?
    /// One of those that waited: the next one comes with the next group.
    var hasReleased = false
    /// How many objects they change.
    var changes = 0
    /// One that is too long for a log, and those that were refused before it.
    var isAlone = false
    /// It is on disk, or has failed.
    var isDurable = false
    var isFailed = false
    /// The store takes nothing, as is known before it is asked.
    let fault: StateFault?
    /// Why what it takes away is not durable; nil: it is.
    var undurable: StateFault?
    /// Where its last update is that was compared, as its sender sees it.
    var place: LastUpdate?

    init(_ group: UpdateGroup, _ desired: DesiredState, fault: StateFault? = nil) {
        (self.group, self.desired, self.fault) = (group, desired, fault)
        (held, heldFile) = (desired.held, desired.heldFile)
    }

    var isFull: Bool {
        isAlone || hasReleased || members.count >= UpdateBatch.mostUpdates || group.byteCount >= UpdateBatch.mostBytes
    }

    /// What is applied once those that are here are.
    var revision: UInt64? { group.last?.revision }

    /// Compares an update with what those before it leave. A refused one stands in nobody's way.
    /// - Returns: false if it is to be taken by itself, behind those that are here.
    func add(_ update: WaitingUpdate) -> Bool {
        switch update.subject {
        case .update(let subject, let unread):
            guard let push = update.push else { return addFile(update, subject, unread) }
            return held.stopsStream
                ? wait(update, subject, unread, push) : addPush(update, subject, unread, push)
        case .heldFile(let subject, let refusal): return holdFile(update, subject, .fileHeld(refusal))
        case .refusedFile(let subject, let refusal): return takeInPart(update, subject, nil) { _ in .fileHeld(refusal) }
        case .confirm(let id): return confirm(update, id)
        case .discard(let id): return discard(update, id)
        case .released(let subject): return release(update, subject)
        }
    }

    private func addPush(
        _ update: WaitingUpdate, _ subject: StateUpdate, _ unread: RouteProblems, _ push: PushedUpdate
    ) -> Bool {
        if let (place, refusal) = placeBehindRefused(subject, update.options) {
            return takeInPart(update, subject, place) { count in
                count == 0
                    ? .refused(refusal, revision: revision)
                    : .partly(takenAway: count, refusal, revision: revision)
            }
        }
        return take(update, subject, update.options) { prepared in
            // What stops no stream is replaced by the next one.
            if !held.isEmpty { held.removeAll() }
            return .prepared(prepared, unread: unread, following: 0)
        } orElse: { refusal in
            refusal.isHeld ? hold(push, subject, unread, refusal) : .refused(refusal, revision: revision)
        }
    }

    private func addFile(_ update: WaitingUpdate, _ subject: StateUpdate, _ unread: RouteProblems) -> Bool {
        do throws(UpdateRefusal) {
            guard let prepared = try prepare(update, subject, update.options) else { return false }
            heldFile = nil
            append(update, subject, update.options, .prepared(prepared, unread: unread, following: 0))
        } catch {
            guard !error.stopsStream else {
                return holdFile(update, subject, .held(nil, error, revision: revision))
            }
            append(
                update, subject, update.options,
                error.isHeld ? .held(nil, error, revision: revision) : .refused(error, revision: revision))
        }
        return true
    }

    // MARK: What the turns are made of

    /// - Returns: false if it is to be taken by itself.
    func take(
        _ update: WaitingUpdate, _ subject: StateUpdate, _ options: UpdateOptions,
        _ taken: (LastGood.Prepared) -> Member.Outcome, orElse refused: (UpdateRefusal) -> Member.Outcome
    ) -> Bool {
        do throws(UpdateRefusal) {
            guard let prepared = try prepare(update, subject, options) else { return false }
            append(update, subject, options, taken(prepared))
        } catch { append(update, subject, options, refused(error)) }
        return true
    }

    func append(
        _ update: WaitingUpdate, _ subject: StateUpdate?, _ options: UpdateOptions, _ outcome: Member.Outcome,
        _ takenAway: TakenAway? = nil
    ) {
        members.append(
            Member(update: update, subject: subject, options: options, outcome: outcome, takenAway: takenAway))
    }

    func refuse(_ update: WaitingUpdate, _ refusal: UpdateRefusal) {
        members.append(Member(update, refusal, revision: revision))
    }

    /// Nil: it is to be taken by itself.
    func prepare(
        _ update: WaitingUpdate, _ subject: StateUpdate, _ options: UpdateOptions
    ) throws(UpdateRefusal) -> LastGood.Prepared? {
        guard update.sender.source == desired.source else {
            throw UpdateRefusal(
                "the routes of this node come from another source by now: \(desired.source.name)",
                remedy: "see its config")
        }
        let prepared = try desired.kept.prepare(
            subject, from: update.sender.source.name, options, now: cl_wall_clock(), behind: group)
        if case .update = update.subject { place = prepared.place }
        if prepared.isLarge {
            guard heldBefore == nil else { return nil }
            isAlone = true
        } else {
            try group.add(prepared)
        }
        if heldBefore == nil { heldBefore = (held, heldFile) }
        changes += prepared.count
        return prepared
    }

    // MARK: What becomes of it

    /// Until what follows a held update is tried again.
    static let releasePause = TimeSpan.seconds(1)

    /// It could not be made durable. What was refused, held or dropped before anything was to be changed stays so, for
    /// its own reason.
    func fail(_ refusal: UpdateRefusal) {
        isFailed = true
        if let first = members.firstIndex(where: { $0.prepared != nil }) {
            let revision = desired.last?.revision
            for index in first..<members.count {
                members[index].outcome = .refused(refusal, revision: revision)
                members[index].takenAway = nil
            }
        }
        if let heldBefore { (held, heldFile) = heldBefore }
        held.pauseRelease(until: Instant(nanoseconds: cl_now()) + UpdateBatch.releasePause)
    }

    private var prepared: [LastGood.Prepared] { members.compactMap(\.prepared) }

    /// A new snapshot of all there is.
    func keepAlone() throws(StateFault) { for one in prepared { try desired.kept.keep(one) } }

    /// - Returns: what each of those that were prepared did, in order.
    func apply(to routing: RoutingState, _ now: Instant) -> [ApplyReport] {
        isAlone
            ? prepared.map { desired.kept.apply($0, to: routing, at: now) }
            : desired.kept.apply(group, to: routing, at: now)
    }
}

extension UpdateBatch.Member {
    /// One that is refused before it is compared.
    init(_ update: WaitingUpdate, _ refusal: UpdateRefusal, revision: UInt64?) {
        var subject: StateUpdate?
        if case .update(let read, _) = update.subject { subject = read }
        self.init(
            update: update, subject: subject, options: update.options, outcome: .refused(refusal, revision: revision))
    }

    /// One of those that waited, which is tried again: that is not said each time.
    func isRetried(_ refusal: UpdateRefusal) -> Bool {
        guard case .released = update.subject else { return false }
        return refusal.isPassing && refusal != .unknown
    }
}
