import CLinux
import FilterEgressAccounting
import Glibc
import Pipeline
import PipelineRuntime
import PipelineText
import PipelineThreads
import Synchronization

/// Sends flow records to one IPFIX collector on its own thread (RFC 7011), by UDP or TCP. A slow or absent collector
/// blocks nothing: records wait up to a limit, then the newest are dropped and counted (R27).
///
/// Threading: ``enqueue(_:)`` and ``statistics`` from any thread; ``stop(patience:)`` once, by the owner.
package final class FlowExporter: @unchecked Sendable {
    private static let stackBytes = 1 << 19

    package let settings: ExportSettings
    private let queue: ExportQueue
    private let loop: ThreadLoop
    private let write: @Sendable ([UInt8]) -> Void
    /// Nanoseconds on the monotonic clock; 0: not ending.
    private let endsAt = Atomic<UInt64>(0)
    // The thread's own.
    private var session: ExportSession
    private var said = ExportStatistics()
    /// The collector was reported as unreachable.
    private var isDown = false

    private init(_ settings: ExportSettings, _ loop: ThreadLoop, write: @escaping @Sendable ([UInt8]) -> Void) {
        self.settings = settings
        self.loop = loop
        self.write = write
        queue = ExportQueue(limit: settings.queue)
        session = ExportSession(settings, queue)
    }

    /// Starts the thread.
    /// - Parameter write: takes whole log lines, from that thread.
    /// - Returns: nil, with an errno, if the kernel gives no descriptor or no thread.
    package static func start(
        _ settings: ExportSettings, write: @escaping @Sendable ([UInt8]) -> Void
    ) -> (exporter: FlowExporter?, error: Int32) {
        let (loop, error) = ThreadLoop.make()
        guard let loop else { return (nil, error) }
        let exporter = FlowExporter(settings, loop, write: write)
        let failed = loop.start("export", stackBytes: stackBytes) { exporter.iterate() }
        return failed == 0 ? (exporter, 0) : (nil, failed)
    }

    /// Takes records to be sent soon.
    /// - Returns: how many were taken, the oldest; the rest is dropped, and counted.
    @discardableResult package func enqueue(_ flows: [ExportFlow]) -> Int {
        let taken = queue.enqueue(flows)
        if taken > 0 { loop.wake() }
        return taken
    }

    package var statistics: ExportStatistics { queue.statistics }

    /// Ends the thread. What waits is sent first, as far as that is possible in `patience`; the rest is counted as lost.
    package func stop(patience: TimeSpan = .seconds(2)) {
        end(patience: patience)
        loop.stop()
    }

    /// The same without waiting for it; ``stop(patience:)`` is still to come.
    package func end(patience: TimeSpan = .seconds(2)) {
        let end = Instant(nanoseconds: cl_now()) + patience
        let before = endsAt.load(ordering: .acquiring)
        // The first word counts, unless the next is shorter.
        if before == 0 || end.nanoseconds < before {
            endsAt.store(max(1, end.nanoseconds), ordering: .releasing)
        }
        loop.wake()
    }

    // MARK: The thread

    private func iterate() -> ThreadLoop.Next {
        // Read first: what was offered before it was told to end is seen below.
        let end = endsAt.load(ordering: .acquiring)
        let now = Instant(nanoseconds: cl_now())
        let wish = session.advance(now, wallClock: cl_wall_clock())
        report()
        if end != 0, now.nanoseconds >= end || queue.statistics.waiting == 0 {
            session.close()
            return .over
        }
        let last = end == 0 ? nil : Instant(nanoseconds: end)
        return .wait(until: [wish.until, last].compactMap { $0 }.min(), wish.item.map { [$0] } ?? [])
    }

    /// Logs when the collector becomes unreachable and when it is back, not each retry.
    private func report() {
        let now = queue.statistics
        if now.failures > said.failures, !isDown {
            isDown = true
            say(
                "export_failed", now,
                "the collector can't be reached: records wait in the queue up to its limit, and "
                    + "the node tries again")
        } else if isDown, now.isConnected {
            isDown = false
            say("export_connected", now, nil)
        }
        if now.dropped > 0, said.dropped == 0 {
            say("export_dropping", now, "the queue is full: the newest records are dropped and counted")
        }
        said = now
    }

    private func say(_ event: String, _ statistics: ExportStatistics, _ message: String?) {
        write(
            ControlLog.line(event, message, time: cl_wall_clock()) { line in
                line.field("collector", settings.collector.description)
                line.field("transport", settings.transport.rawValue)
                if statistics.error != 0 { line.field("error", errorText(statistics.error)) }
                line.field("waiting", statistics.waiting)
                line.field("dropped", statistics.dropped)
            })
    }
}
