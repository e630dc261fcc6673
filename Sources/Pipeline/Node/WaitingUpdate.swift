import PipelineLastGood
import PipelineRouting

/// An update that waits for its turn, and whom to tell what became of it.
struct WaitingUpdate {
    enum Subject {
        /// As it was read, with what could not be.
        case update(StateUpdate, unread: RouteProblems)
        /// A routes file that a guard holds; of it, what takes away.
        case heldFile(StateUpdate, UpdateRefusal)
        /// A routes file that the disk did not take; of it, what takes away.
        case refusedFile(StateUpdate, UpdateRefusal)
        /// The push that a guard holds under this id is meant.
        case confirm(id: String)
        /// It is not.
        case discard(id: String)
        /// The first of those that waited behind what was held.
        case released(StateUpdate)
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
    case held(HeldUpdates.Head?, UpdateRefusal, revision: UInt64?)
    /// It waits behind what is held; what it takes away is durable and in force.
    case waits(HeldUpdates.Place, revision: UInt64?)
    /// The disk takes nothing: of it, so many objects are taken away, and nothing else is in force.
    case partly(takenAway: Int, UpdateRefusal, isDurable: Bool, revision: UInt64?)
    /// What was held under this id comes to nothing, and so many follow.
    case discarded(HeldUpdates.Head, following: Int, revision: UInt64?)
}

struct TakenUpdate {
    let report: ApplyReport
    let count: Int
    let isRevisionReused: Bool
    let revision: UInt64?
    /// What could not be read of it.
    let unread: RouteProblems
    /// How many waited behind it, and are taken next.
    let following: Int

    init(_ report: ApplyReport, _ prepared: LastGood.Prepared, unread: RouteProblems, following: Int) {
        self.report = report
        count = prepared.count
        isRevisionReused = prepared.isRevisionReused
        revision = prepared.revision
        self.unread = unread
        self.following = following
    }
}
