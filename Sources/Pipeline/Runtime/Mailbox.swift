import Pipeline
import Synchronization

/// What control asks of a worker. Later ones include earlier ones.
package enum WorkerOrder: UInt8, AtomicRepresentable, Sendable, Comparable {
    case run
    /// Accept no more; end when the last connection has.
    case drain
    /// Reset what is left, and end.
    case stop
    /// The same because an operator will not wait.
    case kill
    package static func < (a: WorkerOrder, b: WorkerOrder) -> Bool { a.rawValue < b.rawValue }
}

/// The only way from control to a worker: an order, and an update of what to run on. The worker looks at the top of its
/// loop; ``wake`` makes it look now.
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

    /// What to apply, in place of any earlier update. It must stay valid until ``appliedGeneration`` is a later one's.
    package func publish(_ update: UnsafePointer<WorkerUpdate>) {
        updateCell.store(UInt(bitPattern: update), ordering: .releasing)
    }
    var published: UnsafePointer<WorkerUpdate>? {
        UnsafePointer(bitPattern: updateCell.load(ordering: .acquiring))
    }

    /// Generation of the snapshot that the worker looks up in: of the last update that was applied, or the one that it began
    /// with. It reads no earlier one any more.
    package var appliedGeneration: UInt64 { appliedCell.load(ordering: .acquiring) }
    func setAppliedGeneration(_ generation: UInt64) { appliedCell.store(generation, ordering: .releasing) }

    /// The node has not enough memory for more connections.
    package var isShortOfMemory: Bool { shortCell.load(ordering: .relaxed) }
    package func setShortOfMemory(_ isShort: Bool) { shortCell.store(isShort, ordering: .relaxed) }

    /// True once the worker's loop has returned.
    package var hasEnded: Bool { endedCell.load(ordering: .acquiring) }
    func setEnded() { endedCell.store(true, ordering: .releasing) }
}
