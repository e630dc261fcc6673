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
package final class InterceptionWatch: @unchecked Sendable {
    private static let stackBytes = 1 << 19

    private let log: ControlLog
    private let loop: ThreadLoop
    private let wish = Mutex<InterceptionWish?>(nil)
    private let found = Mutex(InterceptionReport())
    /// The control thread's.
    private var isRunning = false
    /// The thread's own.
    private var look: InterceptionLook
    /// What keeps it from looking at all.
    private let problem = Mutex<String?>(nil)

    /// - Parameter config: its path, for what is said.
    package init?(_ log: ControlLog, config: String) {
        guard let loop = ThreadLoop.make().loop else { return nil }
        self.loop = loop
        self.log = log
        look = InterceptionLook(log, config: config, isGivenUp: { loop.isEnding })
    }

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
        self.wish.withLock { $0 = wish }
        guard wish != nil || isRunning else { return }
        start()
        loop.wake()
    }

    private func say(_ new: String?) {
        let isNews = problem.withLock { old in
            defer { old = new }
            return old != new
        }
        if isNews, let new { log.say("interception_unwatched", new) }
    }

    private func start() {
        guard !isRunning else { return }
        let failed = loop.start("interception", stackBytes: InterceptionWatch.stackBytes) { [self] in iterate() }
        guard failed == 0 else { return say("the rules are not looked after: no thread, \(kernelError(failed))") }
        isRunning = true
    }

    /// Looks no more, and touches nothing: a node that drains may have a successor, whose rules are others.
    package func end() { loop.end() }

    /// Ends the thread, and a program that it waits for. The rules stay: they refuse what nobody takes.
    package func stop() { loop.stop() }

    // MARK: The thread

    private func iterate() -> ThreadLoop.Next {
        guard !loop.isEnding else { return .over }
        look.advance(wish.withLock { $0 }, Instant(nanoseconds: cl_now()))
        let report = look.report
        found.withLock { $0 = report }
        return .wait(until: look.nextLook, look.descriptors.map { .readable($0.number) })
    }
}
