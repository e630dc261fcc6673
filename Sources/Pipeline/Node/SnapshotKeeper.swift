import Pipeline
import PipelineRouting
import PipelineRuntime

/// Objects that workers may still read: the newest snapshot with its table and updates, earlier ones until every worker
/// has applied a later one, and programs until their last connection has ended. Each is freed after its own last user,
/// in any order.
///
/// Threading: the control thread.
package final class SnapshotKeeper {
    private struct Held {
        let snapshot: UnsafeMutablePointer<Snapshot>
        /// Keeps alive what the snapshot points to unmanaged.
        let routes: RouteTableSnapshot
        let canary: CanaryOffer?
        var updates: [UnsafeMutablePointer<WorkerUpdate>] = []

        func free() {
            for update in updates {
                update.pointee.deallocate()
                update.deinitialize(count: 1)
                update.deallocate()
            }
            snapshot.deinitialize(count: 1)
            snapshot.deallocate()
        }
    }

    private struct HeldProgram {
        let program: Program
        /// The last generation that updates it to new connections.
        var last: UInt64
    }

    /// By generation.
    private var held: [Held] = []
    private var programs: [HeldProgram] = []
    /// The generation of the newest; 0: there is none.
    package private(set) var newest: UInt64 = 0

    /// How many snapshots, each with a table, and how many programs are held.
    package var count: Int { held.count }
    package var programCount: Int { programs.count }
    /// True while objects wait for workers or connections.
    var hasOld: Bool { held.count > 1 || programs.count > 1 }

    deinit { for old in held { old.free() } }

    /// The next generation; valid until ``free(before:)`` is called with a later one.
    /// - Parameter canary: a new program beside it.
    func make(
        _ program: Program, _ routes: RouteTableSnapshot, beside canary: CanaryOffer? = nil
    ) -> UnsafePointer<Snapshot> {
        newest += 1
        let snapshot = UnsafeMutablePointer<Snapshot>.allocate(capacity: 1)
        snapshot.initialize(
            to: Snapshot(
                program: program, routes: routes.handle, instances: routes.instances, generation: newest,
                canary: canary?.share))
        held.append(Held(snapshot: snapshot, routes: routes, canary: canary))
        hold(program)
        if let canary { hold(canary.program) }
        return UnsafePointer(snapshot)
    }

    private func hold(_ program: Program) {
        if let known = programs.firstIndex(where: { $0.program === program }) {
            programs[known].last = newest
        } else {
            programs.append(HeldProgram(program: program, last: newest))
        }
    }

    /// One worker's update of the newest snapshot, which lives as long as that. Nil: there is none yet.
    func update(
        _ listeners: [WorkerListener], drains: [Drain], resets: [BackendReset] = []
    ) -> UnsafePointer<WorkerUpdate>? {
        guard let last = held.last else { return nil }
        let update = UnsafeMutablePointer<WorkerUpdate>.allocate(capacity: 1)
        update.initialize(
            to: WorkerUpdate(
                snapshot: UnsafePointer(last.snapshot), listeners: FrozenArray(listeners),
                drains: FrozenArray(drains), resets: FrozenArray(resets)))
        held[held.count - 1].updates.append(update)
        return UnsafePointer(update)
    }

    /// Frees objects that no worker reads any more. The newest always stays.
    /// - Parameter applied: the oldest generation that any worker has applied as its newest.
    /// - Returns: true if something was freed.
    @discardableResult func free(before applied: UInt64) -> Bool {
        let before = held.count + programs.count
        let keptFrom =
            held.dropLast().firstIndex { $0.snapshot.pointee.generation >= applied } ?? max(0, held.count - 1)
        for old in held[..<keptFrom] { old.free() }
        held.removeFirst(keptFrom)
        programs.removeAll { $0.last < min(applied, newest) && $0.program.users.current == 0 }
        return held.count + programs.count < before
    }
}
