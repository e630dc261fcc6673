import Pipeline

/// Says once what this node lacks, when it lacks it (R27): workers only count.
struct ShortageWatch {
    private static let interval = TimeSpan.seconds(1)
    /// Without it for so long, the next one is news.
    private static let calm = TimeSpan.seconds(60)

    private(set) var nextLook = Instant(nanoseconds: 0)
    private var pauses: UInt64 = 0
    private var lastPause: Instant?

    mutating func look(_ fleet: Fleet, _ now: Instant, _ log: ControlLog) {
        guard nextLook <= now else { return }
        nextLook = now + ShortageWatch.interval
        let seen = fleet.total(.acceptPauses)
        guard seen == pauses else {
            if lastPause == nil {
                log.say(
                    "accept_paused",
                    "no file descriptor is left to accept with: new connections wait in the kernel's queues, what runs goes "
                        + "on; raise the limit of open files (systemd: LimitNOFILE=, or fs.file-max), or lower `connections`"
                )
            }
            pauses = seen
            lastPause = now
            return
        }
        if let last = lastPause, now.since(last) >= ShortageWatch.calm { lastPause = nil }
    }
}
