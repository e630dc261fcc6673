import CLinux
import FilterBackendSelect
import Pipeline
import PipelineRuntime
import PipelineThreads
import Synchronization

/// Probes backends on its own thread, and writes the results into their cells, which workers read (R12).
///
/// Threading: made, updated and stopped by the control thread; ``statuses()`` from any. One lock protects the prober's
/// memory; it is held for bookkeeping, never during a network call.
///
/// Ownership: when ``update(_:)`` returns, targets that are gone and the older route table are released. Probes in flight for older
/// targets end without effect.
package final class HealthProber: @unchecked Sendable {
    /// The most probes in flight, and so descriptors, besides the prober's own (R27).
    package static let inFlightLimit = 256
    private static let ownDescriptors = 3
    /// The most descriptors that probing for this program takes at once.
    package static func descriptors(_ program: Program) -> Int {
        ProbeTargets.areWanted(by: program) ? inFlightLimit + ownDescriptors : 0
    }
    /// Whether some block of this program has connections reset, see ``takeResets()``.
    package static func resetsConnections(_ program: Program) -> Bool {
        program.blocks.all(of: HealthSettings.self).contains { $0.onDown == .end || $0.onUp == .endBackup }
    }
    private static let stackBytes = 1 << 19

    private let table: Mutex<ProbeTable>
    private let loop: ThreadLoop
    private let epoll: Descriptor
    /// Readable once ``takeResets()`` has something.
    package let notice: Descriptor
    // The thread's own.
    private var inFlight: ProbesInFlight
    private var log: HealthLog

    private init(
        _ loop: ThreadLoop, epoll: Descriptor, notice: Descriptor, write: @escaping @Sendable ([UInt8]) -> Void
    ) {
        self.loop = loop
        self.epoll = epoll
        self.notice = notice
        table = Mutex(ProbeTable(seed: cl_now()))
        inFlight = ProbesInFlight(epoll: epoll.number, limit: HealthProber.inFlightLimit)
        log = HealthLog(wallClock: { cl_wall_clock() }, write: write)
    }

    deinit { for own in [epoll, notice] { _ = cl_close(own.number) } }

    /// Starts the thread.
    /// - Parameter write: takes whole lines, from the prober's thread.
    /// - Returns: nil, with an errno, if the kernel gives no descriptor or no thread.
    package static func start(
        _ targets: ProbeTargets, write: @escaping @Sendable ([UInt8]) -> Void
    ) -> (prober: HealthProber?, error: Int32) {
        let (loop, error) = ThreadLoop.make()
        guard let loop else { return (nil, error) }
        let epoll = cl_epoll_create()
        guard epoll >= 0 else { return (nil, -epoll) }
        let notice = cl_eventfd()
        guard notice >= 0 else {
            _ = cl_close(epoll)
            return (nil, -notice)
        }
        let prober = HealthProber(loop, epoll: Descriptor(epoll), notice: Descriptor(notice), write: write)
        prober.table.withLock { $0.replace(by: targets, now: Instant(nanoseconds: cl_now())) }
        let failed = loop.start("health", stackBytes: stackBytes) { prober.iterate() }
        return failed == 0 ? (prober, 0) : (nil, failed)
    }

    /// Takes over what has changed of the targets. The others keep their results.
    package func update(_ change: ProbeChange) {
        table.withLock { $0.apply(change, now: Instant(nanoseconds: cl_now())) }
        if !change.isEmpty { loop.wake() }
    }

    /// The status of each target, by address.
    package func statuses() -> [ProbeStatus] { table.withLock { $0.statuses() } }

    /// Backends whose connections are to be reset, since the last call. For the control thread.
    package func takeResets() -> [WantedReset] {
        _ = cl_eventfd_clear(notice.number)
        return table.withLock { $0.takeResets() }
    }

    /// Ends the thread and releases the targets, whose cells are then "not probed".
    package func stop() {
        loop.stop()
        table.withLock { $0.replace(by: .none, now: Instant(nanoseconds: cl_now())) }
    }

    // MARK: The thread

    private func iterate() -> ThreadLoop.Next {
        guard !loop.isEnding else {
            inFlight.closeAll()
            return .over
        }
        for end in inFlight.take() { finish(end) }
        let now = Instant(nanoseconds: cl_now())
        beginDue(now)
        return .wait(until: wakeUp(now), [.readable(epoll.number)])
    }

    /// The next deadline.
    private func wakeUp(_ now: Instant) -> Instant? {
        let next = inFlight.isFull ? nil : table.withLock { $0.wakeUp }
        return [next, inFlight.deadline].compactMap { $0 }.min()
    }

    private func beginDue(_ now: Instant) {
        while !inFlight.isFull, let next = table.withLock({ $0.begin(now) }) {
            if let end = inFlight.begin(next.identity, next.target, now) { finish(end) }
        }
    }

    private func finish(_ end: ProbesInFlight.End) {
        let now = Instant(nanoseconds: cl_now())
        let (events, target, hasResets) = table.withLock { table in
            let events = table.finish(end.identity, end.outcome, now: now)
            return (events, table.entries[end.identity]?.target, table.hasResets)
        }
        if hasResets { _ = cl_eventfd_signal(notice.number) }
        guard let target else { return }
        for event in events { log.say(event, of: target, heard: end.heard, now: now) }
    }
}
