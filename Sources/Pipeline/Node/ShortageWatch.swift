import Pipeline
import PipelineText

/// Logs a shortage once per occurrence (R27), from the workers' counters. Stops admission while memory is short.
package struct ShortageWatch {
    package private(set) var memory = MemoryWatch()
    private static let interval = TimeSpan.seconds(1)
    /// After this long without a shortage, the next one is logged.
    private static let calm = TimeSpan.seconds(60)

    var nextLook: Instant { min(nextCount, memory.nextLook) }
    private var nextCount = Instant(nanoseconds: 0)
    private var pauses: UInt64 = 0
    private var lastPause: Instant?

    mutating func look(_ fleet: Fleet, _ setting: MemorySetting, _ now: Instant, _ log: ControlLog) {
        if memory.look(setting, connections: fleet.total(.active), now) {
            for worker in fleet.workers {
                worker.mailbox.setShortOfMemory(memory.isShort)
                worker.wake()
            }
            say(setting, log)
        }
        guard nextCount <= now else { return }
        nextCount = now + ShortageWatch.interval
        let seen = fleet.total(.acceptPauses)
        guard seen == pauses else {
            if lastPause == nil {
                log.say(
                    "accept_paused",
                    "no free file descriptor: new connections wait in the kernel's accept queues, established ones "
                        + "are not affected; raise the limit of open files (systemd: LimitNOFILE=, or fs.file-max), "
                        + "or lower `connections`"
                )
            }
            pauses = seen
            lastPause = now
            return
        }
        if let last = lastPause, now.since(last) >= ShortageWatch.calm { lastPause = nil }
    }

    private func say(_ setting: MemorySetting, _ log: ControlLog) {
        let text =
            memory.isShort
            ? "more than 90 % of `memory` is used: new connections are refused, established ones continue with "
                + "buffers that no longer grow" : "new connections are admitted again"
        log.say(memory.isShort ? "memory_short" : "memory_back", text) { line in
            line.field("used", memory.reading.used)
            line.field("bound", memory.bound(setting))
        }
    }
}
