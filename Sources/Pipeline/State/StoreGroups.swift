import Glibc
import Pipeline

/// A group on its way to the disk.
struct GroupInFlight {
    let group: StateGroup
    /// Nil: the log can't be written, and another one is begun when it ends.
    let write: LogWrite?
    /// Nil: it was written when it was handed over.
    let thread: DurabilityThread?
}

/// What groups have cost so far.
public struct GroupFigures: Equatable, Sendable {
    public var groups: UInt64 = 0
    /// Of writes and syncs, in nanoseconds: all of them, and the longest.
    public var time: UInt64 = 0
    public var longest: UInt64 = 0

    mutating func add(_ duration: UInt64) {
        groups &+= 1
        time &+= duration
        longest = max(longest, duration)
    }
}

/// Groups (ADR 0112): made, filled, handed to a thread that writes and syncs, and ended by whoever handed them over.
extension StateStore {
    /// Over files that are the store's, or are again by now; over one that is ``spoiled`` for a whole replacement.
    public func makeGroup() throws(StateFault) -> StateGroup {
        do throws(StateFault) { try check() } catch { guard case .spoiled = error else { throw error } }
        return StateGroup(self)
    }

    /// Has a thread make it durable. Until it has ended the store is only read.
    public func handOver(_ group: StateGroup) throws(StateFault) {
        try refuseChange()
        try refuseExposed()
        if reserve.isHeld == false { refillReserve() }
        guard group.count > 0, log.isTrusted else {
            inFlight = GroupInFlight(group: group, write: nil, thread: nil)
            return
        }
        group.seal()
        let write = LogWrite(
            group.bytes, sequence: group.sequence, to: log, before: filesLook(),
            behind: filesLook(behind: group.byteCount), head)
        let thread = settings.hasThread ? durabilityThread() : nil
        inFlight = GroupInFlight(group: group, write: write, thread: thread)
        if let thread { thread.handOver(write) } else { write.run() }
    }

    private func durabilityThread() -> DurabilityThread? {
        guard durability == nil, !isThreadMissing else { return durability }
        let (thread, error) = DurabilityThread.start()
        (durability, isThreadMissing) = (thread, thread == nil)
        if thread == nil {
            note(
                StateNotice(
                    "state_no_thread",
                    "\(directory): there is no thread for the disk (\(StateFault.of(directory, "starting it", error).cause)): "
                        + "the node waits with each change until that is durable; raise TasksMax and restart"))
        }
        return durability
    }

    /// A descriptor, readable once the group that was handed over may be ended; nil: there is no thread to wait for.
    public var groupNotice: Int32? { inFlight?.thread?.notice }

    /// A group was handed over, and has not ended.
    public var hasGroup: Bool { inFlight != nil }

    /// And may be ended without a wait.
    public var isGroupOver: Bool { inFlight.map { $0.thread?.isOver ?? true } ?? false }

    /// Ends the group that was handed over, and waits for it: on return it is durable, and its batches may take effect.
    ///
    /// Where the log can't be written, or was disturbed, it is written where it can be, on this thread. A fault has changed
    /// nothing: what was written of it is taken back.
    public func endGroup() throws(StateFault) {
        guard let flight = inFlight else { return }
        flight.thread?.take()
        inFlight = nil
        let group = flight.group
        guard group.count > 0 else { return }
        if let write = flight.write {
            groupFigures.add(write.duration)
            log.modified = write.modified ?? log.modified
            guard let found = try found(by: write) else {
                log.end += group.byteCount
                return noteDurable(group, isNoted: write.isNoted)
            }
            cutLog()
            try group.writeDurably(found.isEmpty ? try disturbed() : found)
        } else {
            try group.writeDurably(try disturbed())
        }
        noteDurable(group, isNoted: false)
    }

    /// Nil: all is as it should be. What is not said of files is that the log can't be written.
    private func found(by write: LogWrite) throws(StateFault) -> [DisturbedFile]? {
        switch write.outcome {
        case .durable(let found):
            let counting = disturbed(of: found)
            return counting.isEmpty ? nil : counting
        case .disturbed(let found): return disturbed(of: found)
        case .unseen(let fault):
            cutLog()
            throw fault
        case .unwritten(let failed):
            // A full disk is tried again, with the reserve.
            if failed != -ENOSPC, failed != -EDQUOT { log.isTrusted = false }
        case .unsynced: log.isTrusted = false
        }
        return []
    }

    private func noteDurable(_ group: StateGroup, isNoted: Bool) {
        let last = group.sequence
        unsynced = []
        sequence = last
        if isNoted { synced = last } else { noteDurable(last) }
    }
}
