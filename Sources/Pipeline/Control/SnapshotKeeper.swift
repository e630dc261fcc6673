import Pipeline
import PipelineRouting
import PipelineRuntime

/// Every snapshot that a worker may still use, with all that it refers to: program, route table, offers. Freed once no
/// worker's connection began on it or on an older one.
///
/// Threading: the control thread.
final class SnapshotKeeper {
    private struct Held {
        let snapshot: UnsafeMutablePointer<Snapshot>
        // What the snapshot points to without holding it.
        let program: Program
        let routes: RouteTableSnapshot
        var offers: [UnsafeMutablePointer<WorkerOffer>] = []

        func free() {
            for offer in offers {
                offer.pointee.listeners.deallocate()
                offer.pointee.drains.deallocate()
                offer.deinitialize(count: 1)
                offer.deallocate()
            }
            snapshot.deinitialize(count: 1)
            snapshot.deallocate()
        }
    }

    /// By generation.
    private var held: [Held] = []
    /// The generation of the newest; 0: there is none.
    private(set) var newest: UInt64 = 0

    var count: Int { held.count }
    /// True while something waits for connections to end.
    var hasOld: Bool { held.count > 1 }

    deinit { for old in held { old.free() } }

    /// The next generation; valid until ``free(before:)`` is told of a later one.
    func make(_ program: Program, _ routes: RouteTableSnapshot) -> UnsafePointer<Snapshot> {
        newest += 1
        let snapshot = UnsafeMutablePointer<Snapshot>.allocate(capacity: 1)
        snapshot.initialize(
            to: Snapshot(program: program, routes: routes.handle, instances: routes.instances, generation: newest))
        held.append(Held(snapshot: snapshot, program: program, routes: routes))
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

    /// Frees what is older than the oldest generation that any worker still uses. The newest always stays.
    func free(before oldest: UInt64) {
        var keptFrom = 0
        while keptFrom < held.count - 1, held[keptFrom].snapshot.pointee.generation < oldest {
            held[keptFrom].free()
            keptFrom += 1
        }
        held.removeFirst(keptFrom)
    }
}
