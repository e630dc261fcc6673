import CLinux
import Pipeline
import PipelineRouting
import PipelineRuntime
import PipelineText
import PipelineThreads
import Synchronization

/// Watches the interception rules on its own thread: checks run child processes, for which neither workers nor the
/// control thread wait (ADR 0045).
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
    /// Why it can't check at all.
    private let problem = Mutex<String?>(nil)

    /// - Parameter config: its path, for messages.
    package init?(_ log: ControlLog, config: String) {
        guard let loop = ThreadLoop.make().loop else { return nil }
        self.loop = loop
        self.log = log
        look = InterceptionLook(log, config: config, isGivenUp: { loop.isEnding })
    }

    /// The result of the last check.
    package var report: InterceptionReport {
        var report = found.withLock { $0 }
        if let problem = problem.withLock({ $0 }) { report.untold = problem }
        return report
    }

    /// Watches the rules of `program` from now on. Returns at once.
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
        guard failed == 0 else { return say("interception rules are not watched: no thread, \(kernelError(failed))") }
        isRunning = true
    }

    /// Stops watching without touching the rules: a draining node may have a successor with other rules.
    package func end() { loop.end() }

    /// Ends the thread and its child process. The rules stay, and refuse connections without a listener.
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
