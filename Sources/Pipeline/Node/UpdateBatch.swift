import CLinux
import Pipeline
import PipelineLastGood
import PipelineRouting
import PipelineState

/// An update that waits for its turn, and whom to tell what became of it.
struct WaitingUpdate {
    enum Subject {
        /// As it was read, with what could not be.
        case update(StateUpdate, unread: RouteProblems)
        /// The push that a guard holds under this id is meant.
        case held(id: String)
    }

    let subject: Subject
    let sender: RunningNode.Sender
    var options = UpdateOptions()
    /// What is held if a guard says so; nil: its source has it still.
    var push: PushedUpdate?
    /// Of what it keeps in memory.
    var byteCount: Int
    /// Called once, on the control thread.
    let done: (UpdateOutcome) -> Void
}

/// A push as it came.
struct PushedUpdate {
    let upload: StateUpload
    let push: StatePush
}

/// What became of an update.
enum UpdateOutcome {
    /// Durable and in force.
    case taken(TakenUpdate)
    /// Nothing was changed.
    case refused(UpdateRefusal, revision: UInt64?)
    /// Nothing was changed, until it is confirmed; nil: by its source.
    case held(HeldUpdate?, UpdateRefusal, revision: UInt64?)
}

struct TakenUpdate {
    let report: ApplyReport
    let count: Int
    let isRevisionReused: Bool
    let revision: UInt64?
    /// What could not be read of it.
    let unread: RouteProblems

    init(_ report: ApplyReport, _ prepared: LastGood.Prepared, unread: RouteProblems) {
        self.report = report
        count = prepared.count
        isRevisionReused = prepared.isRevisionReused
        revision = prepared.revision
        self.unread = unread
    }
}

/// Updates that are on their way together, with what is known of each.
///
/// Threading: the control thread.
final class UpdateBatch {
    /// What goes together, at most.
    static let mostUpdates = 512
    static let mostBytes = 4 << 20

    struct Member {
        enum Outcome {
            case prepared(LastGood.Prepared, unread: RouteProblems)
            case refused(UpdateRefusal, revision: UInt64?)
            case held(HeldUpdate?, UpdateRefusal, revision: UInt64?)
        }
        let update: WaitingUpdate
        /// Nil: what was confirmed is not there.
        let subject: StateUpdate?
        let options: UpdateOptions
        var outcome: Outcome
    }

    let group: UpdateGroup
    private let desired: DesiredState
    private(set) var members: [Member] = []
    /// As its updates leave it.
    private(set) var held: HeldUpdate?
    /// How many objects they change.
    private(set) var changes = 0
    private var hasPrepared = false
    /// One that is too long for a log, and those that were refused before it.
    private(set) var isAlone = false
    /// It is on disk, or has failed.
    var isDurable = false
    private(set) var isFailed = false

    init(_ group: UpdateGroup, _ desired: DesiredState) {
        (self.group, self.desired) = (group, desired)
        held = desired.held
    }

    var isFull: Bool {
        isAlone || members.count >= UpdateBatch.mostUpdates || group.byteCount >= UpdateBatch.mostBytes
    }

    /// Compares an update with what those before it leave. A refused one stands in nobody's way.
    /// - Returns: false if it is to be taken by itself, behind those that are here.
    func add(_ update: WaitingUpdate) -> Bool {
        switch update.subject {
        case .update(let subject, let unread):
            return add(update, subject, unread, update.options, update.push)
        case .held(let id):
            do throws(UpdateRefusal) {
                let (subject, unread, options) = try confirmed(id)
                return add(update, subject, unread, options, nil)
            } catch {
                members.append(Member(update, error, revision: group.last?.revision))
                return true
            }
        }
    }

    private func confirmed(_ id: String) throws(UpdateRefusal) -> (StateUpdate, RouteProblems, UpdateOptions) {
        guard let held, held.id == id else {
            let known = held.map { "what is held is \($0.id)" } ?? "nothing is held"
            throw UpdateRefusal(
                "\(known): \(id) is not; it may have been applied, or replaced by another push", remedy: "push it again"
            )
        }
        let (update, unread) = StateUpdate.read(
            held.upload.bytes, keptBy: held.upload, as: .either, seed: desired.kept.seed)
        guard let update else { throw UpdateRefusal("\(id) can't be read any more", remedy: "push it again") }
        return (update, unread, UpdateOptions(isConfirmed: true, allowsOlder: held.push.isOlder))
    }

    private func add(
        _ update: WaitingUpdate, _ subject: StateUpdate, _ unread: RouteProblems, _ options: UpdateOptions,
        _ push: PushedUpdate?
    ) -> Bool {
        let outcome: Member.Outcome
        do throws(UpdateRefusal) {
            guard let prepared = try prepare(update, subject, options) else { return false }
            changes += prepared.count
            if update.isPush { held = nil }
            outcome = .prepared(prepared, unread: unread)
        } catch {
            outcome = error.isHeld ? hold(push, error) : .refused(error, revision: group.last?.revision)
        }
        members.append(Member(update: update, subject: subject, options: options, outcome: outcome))
        return true
    }

    /// Nil: it is to be taken by itself.
    private func prepare(
        _ update: WaitingUpdate, _ subject: StateUpdate, _ options: UpdateOptions
    ) throws(UpdateRefusal) -> LastGood.Prepared? {
        guard update.sender.source == desired.source else {
            throw UpdateRefusal(
                "the routes of this node come from another source by now: \(desired.source.name)",
                remedy: "see its config")
        }
        let prepared = try desired.kept.prepare(
            subject, from: update.sender.source.name, options, now: cl_wall_clock(), behind: group)
        if prepared.isLarge {
            guard !hasPrepared else { return nil }
            isAlone = true
        } else {
            try group.add(prepared)
        }
        hasPrepared = true
        return prepared
    }

    /// One is held at a time: the newest says what is meant.
    private func hold(_ push: PushedUpdate?, _ refusal: UpdateRefusal) -> Member.Outcome {
        let new = push.map {
            HeldUpdate(id: desired.nextHeldID(), upload: $0.upload, push: $0.push, why: refusal.problem)
        }
        if let new { held = new }
        return .held(new, refusal, revision: group.last?.revision)
    }

    // MARK: What becomes of it

    /// It could not be made durable. What was refused before anything was to be changed stays refused for its own reason.
    func fail(_ refusal: UpdateRefusal) {
        isFailed = true
        guard let first = members.firstIndex(where: { if case .prepared = $0.outcome { true } else { false } }) else {
            return
        }
        let revision = desired.last?.revision
        for index in first..<members.count { members[index].outcome = .refused(refusal, revision: revision) }
    }

    private var prepared: [LastGood.Prepared] {
        members.compactMap { if case .prepared(let prepared, _) = $0.outcome { prepared } else { nil } }
    }

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
}

extension WaitingUpdate {
    /// Or the confirmation of one.
    fileprivate var isPush: Bool { sender.source == .push }
}
