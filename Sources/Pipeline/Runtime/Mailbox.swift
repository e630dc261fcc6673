import Pipeline
import Synchronization

/// Control's order to a worker. Later orders include earlier ones.
package enum WorkerOrder: UInt8, AtomicRepresentable, Sendable, Comparable {
    case run
    /// Stop accepting; end when the last connection has ended.
    case drain
    /// Reset the remaining connections, and end.
    case stop
    /// The same, because of an operator's second signal.
    case kill
    package static func < (a: WorkerOrder, b: WorkerOrder) -> Bool { a.rawValue < b.rawValue }
}

/// The only channel from control to a worker: an order, and an update. The worker reads it at the top of its loop;
/// ``wake`` makes it do so now.
///
/// Threading: control writes, the worker reads. Ownership: control; it outlives the worker.
package final class Mailbox: Sendable {
    private let orderCell = Atomic<WorkerOrder>(.run)
    private let updateCell = Atomic<UInt>(0)
    private let appliedCell = Atomic<UInt64>(0)
    private let endedCell = Atomic<Bool>(false)
    private let shortCell = Atomic<Bool>(false)
    /// An eventfd; ``Descriptor/none`` in a simulation.
    package let wakeDescriptor: Descriptor

    package init(wakeDescriptor: Descriptor) { self.wakeDescriptor = wakeDescriptor }

    package var order: WorkerOrder { orderCell.load(ordering: .acquiring) }
    package func setOrder(_ order: WorkerOrder) { orderCell.store(order, ordering: .releasing) }

    /// The update to apply, which replaces any earlier one. It must stay valid until ``appliedGeneration`` is a later
    /// one's.
    package func publish(_ update: UnsafePointer<WorkerUpdate>) {
        updateCell.store(UInt(bitPattern: update), ordering: .releasing)
    }
    var published: UnsafePointer<WorkerUpdate>? {
        UnsafePointer(bitPattern: updateCell.load(ordering: .acquiring))
    }

    /// The generation of the worker's snapshot: of the last applied update, or of the initial one. The worker no longer
    /// reads any earlier one.
    package var appliedGeneration: UInt64 { appliedCell.load(ordering: .acquiring) }
    func setAppliedGeneration(_ generation: UInt64) { appliedCell.store(generation, ordering: .releasing) }

    /// The node has not enough memory for more connections.
    package var isShortOfMemory: Bool { shortCell.load(ordering: .relaxed) }
    package func setShortOfMemory(_ isShort: Bool) { shortCell.store(isShort, ordering: .relaxed) }

    /// True once the worker's loop has returned.
    package var hasEnded: Bool { endedCell.load(ordering: .acquiring) }
    func setEnded() { endedCell.store(true, ordering: .releasing) }
}
