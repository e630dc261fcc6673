import CLinux
import Pipeline
import PipelineRouting
import PipelineRuntime
import PipelineText
import PipelineThreads
import Synchronization

/// Watches over the rules that bring workloads' connections here, from a thread of its own: asking takes child processes, for
/// which neither workers nor the control thread wait (ADR 0045).
///
/// Threading: ``follow(_:)``, ``report`` and ``stop()`` on the control thread.
package final class InterceptionWatch: Sendable {
    private struct Order {
        var wish: InterceptionWish?
        var isEnding = false
    }

    private static let stackBytes = 1 << 19

    private let log: ControlLog
    private let config: String
    private let wake: Descriptor
    private let order = Mutex(Order())
    private let found = Mutex(InterceptionReport())
    /// Of the thread; nil: none runs. The control thread's.
    private let handle = Mutex<UInt64?>(nil)
    /// What keeps it from looking at all.
    private let problem = Mutex<String?>(nil)

    /// - Parameter config: its path, for what is said.
    package init?(_ log: ControlLog, config: String) {
        let wake = cl_eventfd()
        guard wake >= 0 else { return nil }
        self.wake = Descriptor(wake)
        self.log = log
        self.config = config
    }

    deinit { _ = cl_close(wake.number) }

    /// What the newest look has found.
    package var report: InterceptionReport {
        var report = found.withLock { $0 }
        if let problem = problem.withLock({ $0 }) { report.untold = problem }
        return report
    }

    /// Looks after what `program` intercepts from now on. Returns at once.
    package func follow(_ program: Program, _ settings: NodeSettings, _ bound: [BoundAddress]) {
        let (wish, problem) = InterceptionWish.of(program, settings, bound)
        say(problem)
        order.withLock { $0.wish = wish }
        guard wish != nil || handle.withLock({ $0 }) != nil else { return }
        start()
        _ = cl_eventfd_signal(wake.number)
    }

    private func say(_ new: String?) {
        let isNews = problem.withLock { old in
            defer { old = new }
            return old != new
        }
        if isNews, let new { log.say("interception_unwatched", new) }
    }

    private func start() {
        guard handle.withLock({ $0 }) == nil else { return }
        var new: UInt64 = 0
        let failed = NamedThread.start("interception", stackBytes: InterceptionWatch.stackBytes, handle: &new) {
            [self] in run()
        }
        guard failed == 0 else { return say("the rules are not looked after: no thread, \(kernelError(-failed))") }
        handle.withLock { $0 = new }
    }

    /// Looks no more, and touches nothing: a node that drains may have a successor, whose rules are others.
    package func end() {
        order.withLock { $0.isEnding = true }
        _ = cl_eventfd_signal(wake.number)
    }

    /// Ends the thread, and a program that it waits for. The rules stay: they refuse what nobody takes.
    package func stop() {
        guard let handle = handle.withLock({ $0 }) else { return }
        end()
        _ = cl_thread_join(handle)
    }

    // MARK: The thread

    private var isEnding: Bool { order.withLock { $0.isEnding } }

    private func run() {
        var look = InterceptionLook(log, config: config, isGivenUp: { [self] in isEnding })
        while true {
            _ = cl_eventfd_clear(wake.number)
            let now = order.withLock { $0 }
            if now.isEnding { return }
            look.advance(now.wish, Instant(nanoseconds: cl_now()))
            let report = look.report
            found.withLock { $0 = report }
            let time = Instant(nanoseconds: cl_now())
            let timeout = look.nextLook.map { Int64(clamping: $0.since(time).nanoseconds) } ?? -1
            var items = ([wake] + look.descriptors).map {
                cl_poll_item(fd: $0.number, wants: UInt8(CL_READABLE), got: 0)
            }
            _ = cl_poll(&items, Int32(clamping: items.count), timeout)
        }
    }
}
