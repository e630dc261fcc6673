import CLinux
import Pipeline
import Synchronization

/// A loop thread of the control side: works, then waits for a wake-up, a ready descriptor or a deadline, until it ends.
///
/// Threading: made, started and stopped by one owner; ``wake()``, ``end()`` and ``isEnding`` from any thread.
package final class ThreadLoop: @unchecked Sendable {
    package enum Next {
        /// The next iteration, at once.
        case again
        /// The next iteration once it is woken, one of these has something, or the time has come; nil: it never does.
        case wait(until: Instant?, [cl_poll_item] = [])
        case over
    }

    /// An eventfd.
    private let wakeUp: Int32
    private let isTold = Atomic<Bool>(false)
    private let hasEnded = Atomic<Bool>(false)
    // The owner's.
    private var handle: UInt64 = 0
    private var isRunning = false

    private init(_ wakeUp: Int32) { self.wakeUp = wakeUp }
    deinit { _ = cl_close(wakeUp) }

    /// - Returns: nil, with an errno, if the kernel gives no descriptor.
    package static func make() -> (loop: ThreadLoop?, error: Int32) {
        let wakeUp = cl_eventfd()
        return wakeUp >= 0 ? (ThreadLoop(wakeUp), 0) : (nil, -wakeUp)
    }

    /// Starts the thread, which keeps what `iteration` captures alive until it is over.
    /// - Parameters:
    ///   - name: at most 15 bytes, as `top -H` shows it.
    ///   - iteration: called again and again. What came before a ``wake()`` or ``end()`` is seen by the iteration after it.
    /// - Returns: 0, or an errno: nothing runs.
    package func start(_ name: String, stackBytes: Int, _ iteration: @escaping @Sendable () -> Next) -> Int32 {
        let failed = NamedThread.start(name, stackBytes: stackBytes, handle: &handle) { self.run(iteration) }
        isRunning = failed == 0
        return -failed
    }

    package func wake() { _ = cl_eventfd_signal(wakeUp) }

    package var isEnding: Bool { isTold.load(ordering: .acquiring) }

    /// Tells the thread to end, and does not wait for it.
    package func end() {
        isTold.store(true, ordering: .releasing)
        wake()
    }

    /// Ends the thread and waits until it is over. Nothing if none runs.
    package func stop() {
        guard isRunning else { return }
        isRunning = false
        end()
        _ = cl_thread_join(handle)
    }

    /// The same, for a while. False: it runs still, and is left alone; at the end of the process it has its own.
    package func stop(patience: TimeSpan) -> Bool {
        guard isRunning else { return true }
        end()
        let last = Instant(nanoseconds: cl_now()) + patience
        while !hasEnded.load(ordering: .acquiring) {
            if Instant(nanoseconds: cl_now()) >= last { return false }
            cl_sleep(1_000_000)
        }
        stop()
        return true
    }

    // MARK: The thread

    private func run(_ iteration: () -> Next) {
        var next = Next.again
        while true {
            switch next {
            case .again: break
            case .wait(let until, let items):
                var all = [.readable(wakeUp)] + items
                _ = Poll.wait(&all, until: until)
            case .over:
                hasEnded.store(true, ordering: .releasing)
                return
            }
            _ = cl_eventfd_clear(wakeUp)
            next = iteration()
        }
    }
}
