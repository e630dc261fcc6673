import CLinux
import Pipeline
import PipelineThreads
import Synchronization

/// The thread that makes groups durable, one at a time: who hands one over waits for no disk.
///
/// Threading: made, handed to and stopped by the store's thread.
final class DurabilityThread {
    /// What goes from one thread to the other and back: one write, by turns.
    private final class Slot: @unchecked Sendable {
        static let free = 0
        static let handedOver = 1
        static let over = 2

        let state = Atomic<Int>(Slot.free)
        /// Of whose turn it is by `state`.
        var write: LogWrite?
        /// An eventfd.
        let notice: Int32

        init(_ notice: Int32) { self.notice = notice }
        deinit { _ = cl_close(notice) }
    }

    private static let stackBytes = 256 << 10
    private let loop: ThreadLoop
    private let slot: Slot

    private init(_ loop: ThreadLoop, _ slot: Slot) { (self.loop, self.slot) = (loop, slot) }

    deinit { stop() }

    /// - Returns: nil, and an errno, if the kernel gives no descriptor or no thread.
    static func start() -> (thread: DurabilityThread?, error: Int32) {
        let (made, error) = ThreadLoop.make()
        guard let loop = made else { return (nil, error) }
        let notice = cl_eventfd()
        guard notice >= 0 else { return (nil, -notice) }
        let slot = Slot(notice)
        let failed = loop.start("durability", stackBytes: stackBytes) { [unowned loop] in
            // Read before the slot: what was handed over before the end is done.
            let isLast = loop.isEnding
            if slot.state.load(ordering: .acquiring) == Slot.handedOver {
                slot.write?.run()
                slot.state.store(Slot.over, ordering: .releasing)
                _ = cl_eventfd_signal(slot.notice)
            }
            return isLast ? .over : .wait(until: nil)
        }
        guard failed == 0 else { return (nil, failed) }
        return (DurabilityThread(loop, slot), 0)
    }

    /// A descriptor, readable once what was handed over is done.
    var notice: Int32 { slot.notice }

    func handOver(_ write: LogWrite) {
        slot.write = write
        slot.state.store(Slot.handedOver, ordering: .releasing)
        loop.wake()
    }

    var isOver: Bool { slot.state.load(ordering: .acquiring) == Slot.over }

    /// Waits until it is over.
    func take() {
        while !isOver {
            var items: [cl_poll_item] = [.readable(slot.notice)]
            _ = Poll.wait(&items, until: nil)
        }
        _ = cl_eventfd_clear(slot.notice)
        slot.write = nil
        slot.state.store(Slot.free, ordering: .releasing)
    }

    func stop() { loop.stop() }
}
