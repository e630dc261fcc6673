import CLinux
import Pipeline
import PipelineJournal
import PipelineLastGood
import PipelineRouting

/// What is said of updates that are held or wait (R29). What becomes of them is decided in their turn: ``UpdateBatch``.
extension RunningNode {
    func sayHeld(_ head: HeldUpdates.Head) {
        log.say("state_held", "\(head.why): nothing was changed; if that is meant, \(head.remedy)")
    }

    /// Once all that waited has had its turn, or a guard holds one of it.
    func sayReleased(_ desired: DesiredState) {
        guard !desired.held.isReleasing, let released = desired.held.takeReleased() else { return }
        let refused = released.why.map { ", \(released.refused) were refused, the first since \($0)" } ?? ""
        log.say("state_released", "\(released.taken) updates that waited are in force\(refused)")
    }

    /// Pushes wait for a node that takes pushes.
    func dropHeldOfOthers() {
        guard let desired, desired.source != .push else { return }
        dropHeld("its routes come from \(desired.source.name) now")
    }

    /// They come to nothing: nobody was told that they are in force.
    func dropHeld(_ why: String) {
        guard let desired, !desired.held.isEmpty else { return }
        let id = desired.held.head?.id ?? "what was held"
        let waiting = desired.held.waiting
        var entry = JournalEntry(
            .rejected, source: RouteSource.push.name, what: "\(id) and \(waiting) behind it, dropped")
        entry.why = why
        record(entry)
        log.say(
            "state_held_dropped", "\(id), and \(waiting) updates that waited, came to nothing: \(why); push them again")
        desired.held.removeAll()
    }
}
