import Pipeline
import PipelineRouting
import PipelineRuntime

/// What workers may still read: the newest snapshot with its table and offers, earlier ones until every worker has adopted
/// a later one, and programs until their last connection has ended. Nothing is freed in order: each goes with its own last
/// user.
///
/// Threading: the control thread.
package final class SnapshotKeeper {
    private struct Held {
        let snapshot: UnsafeMutablePointer<Snapshot>
        /// What the snapshot points to without holding it.
        let routes: RouteTableSnapshot
        var offers: [UnsafeMutablePointer<WorkerOffer>] = []

        func free() {
            for offer in offers {
                offer.pointee.deallocate()
                offer.deinitialize(count: 1)
                offer.deallocate()
            }
            snapshot.deinitialize(count: 1)
            snapshot.deallocate()
        }
    }

    private struct HeldProgram {
        let program: Program
        /// The last generation that offers it to new connections.
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
    /// True while something waits for workers or connections.
    var hasOld: Bool { held.count > 1 || programs.count > 1 }

    deinit { for old in held { old.free() } }

    /// The next generation; valid until ``free(before:)`` is told of a later one.
    func make(_ program: Program, _ routes: RouteTableSnapshot) -> UnsafePointer<Snapshot> {
        newest += 1
        let snapshot = UnsafeMutablePointer<Snapshot>.allocate(capacity: 1)
        snapshot.initialize(
            to: Snapshot(program: program, routes: routes.handle, instances: routes.instances, generation: newest))
        held.append(Held(snapshot: snapshot, routes: routes))
        if let known = programs.firstIndex(where: { $0.program === program }) {
            programs[known].last = newest
        } else {
            programs.append(HeldProgram(program: program, last: newest))
        }
        return UnsafePointer(snapshot)
    }

    /// One worker's offer of the newest snapshot, which lives as long as that. Nil: there is none yet.
    func offer(_ listeners: [WorkerListener], drains: [Drain]) -> UnsafePointer<WorkerOffer>? {
        guard let last = held.last else { return nil }
        let offer = UnsafeMutablePointer<WorkerOffer>.allocate(capacity: 1)
        offer.initialize(
            to: WorkerOffer(
                snapshot: UnsafePointer(last.snapshot), listeners: FrozenArray(listeners),
                drains: FrozenArray(drains)))
        held[held.count - 1].offers.append(offer)
        return UnsafePointer(offer)
    }

    /// Frees what no worker reads any more. The newest always stays.
    /// - Parameter adopted: the oldest generation that any worker has adopted as its newest.
    /// - Returns: true if something was freed.
    @discardableResult func free(before adopted: UInt64) -> Bool {
        let before = held.count + programs.count
        let keptFrom =
            held.dropLast().firstIndex { $0.snapshot.pointee.generation >= adopted } ?? max(0, held.count - 1)
        for old in held[..<keptFrom] { old.free() }
        held.removeFirst(keptFrom)
        programs.removeAll { $0.last < min(adopted, newest) && $0.program.users.current == 0 }
        return held.count + programs.count < before
    }
}
