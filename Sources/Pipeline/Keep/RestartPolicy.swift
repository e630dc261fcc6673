import Pipeline

/// When a node that has ended is started again.
struct RestartPolicy {
    /// Starts in a row that ended before the node was ready.
    private(set) var failures = 0
    private(set) var hasBeenReady = false

    /// That many starts in a row, and no more (systemd: StartLimitBurst=).
    static let most = 5
    private static let firstPause = TimeSpan.milliseconds(100)
    /// A node that lived shorter than this once it was ready is given a pause.
    private static let shortLife = TimeSpan.seconds(1)

    enum Decision: Equatable {
        case start(after: TimeSpan)
        case giveUp
    }

    /// - Parameters:
    ///   - life: since it was ready; nil: it never was.
    ///   - hasRefused: it ended by itself, with an exit code that says that nothing was started.
    mutating func ended(life: TimeSpan?, hasRefused: Bool) -> Decision {
        if let life {
            (failures, hasBeenReady) = (0, true)
            return .start(after: life < RestartPolicy.shortLife ? RestartPolicy.firstPause : .zero)
        }
        failures += 1
        // Whoever starts it for the first time reads why.
        guard failures < RestartPolicy.most, hasBeenReady || !hasRefused else { return .giveUp }
        return .start(after: TimeSpan(nanoseconds: RestartPolicy.firstPause.nanoseconds << UInt64(failures - 1)))
    }
}
