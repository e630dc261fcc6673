import Pipeline
import PipelineRuntime

/// How many connections fit into the process's file descriptor limit (R27).
package struct DescriptorBudget: Equatable, Sendable {
    package let connectionsPerWorker: Int
    package let pipesPerWorker: Int
    /// Idle upstream sockets.
    package let idleSocketsPerWorker: Int
    /// True if the settings allow more.
    package let isCapped: Bool

    /// The least number of connections to start with.
    package static let leastConnections = 16
    /// Standard streams, the log, the journal, signals, netlink, the admin socket and its clients, files that are read at a
    /// reload, LOCAL headers to backends in doubt.
    static let reserve = 96
    /// A worker's epoll, its reserve, its eventfd, and the process.
    static let perWorker = 4

    /// A connection takes two descriptors, a pipe takes two.
    /// - Parameters:
    ///   - limit: of each table.
    ///   - idleSockets: what a worker may keep for the next connections; a thirty-second part of the limit at most.
    ///   - probes: what the health prober may have at once.
    ///   - areShared: all workers and the rest of the process have one table between them.
    /// - Returns: nil if not even ``leastConnections`` fit.
    package init?(
        limit: Int, workers: Int, listeners: Int, maxConnections: Int, idleSockets: Int = 0, probes: Int = 0,
        areShared: Bool = true
    ) {
        let sharers = areShared ? max(1, workers) : 1
        idleSocketsPerWorker = min(idleSockets, limit / 32 / sharers)
        // Control has a descriptor of each listener, and so has its worker.
        let control =
            DescriptorBudget.reserve + min(probes, limit / 8) + workers * (listeners + DescriptorBudget.perWorker)
        guard control <= limit else { return nil }
        let own = listeners + DescriptorBudget.perWorker + idleSocketsPerWorker
        let share = areShared ? max(0, limit - control) / sharers - listeners - idleSocketsPerWorker : limit - own
        let wantedPipes = DescriptorBudget.sizes(connections: maxConnections).pipes
        if share >= 2 * (maxConnections + wantedPipes) {
            connectionsPerWorker = maxConnections
            pipesPerWorker = wantedPipes
            isCapped = false
        } else {
            // Splicing is for the few that are busy: it gets at most an eighth.
            pipesPerWorker = min(wantedPipes, share / 16)
            connectionsPerWorker = min(maxConnections, share / 2 - pipesPerWorker)
            isCapped = connectionsPerWorker < maxConnections
            guard connectionsPerWorker >= min(DescriptorBudget.leastConnections, maxConnections) else { return nil }
        }
    }

    /// How many listeners a worker may have: those that are planned, and as many as routes may still open, if they cost
    /// less than a sixteenth of all descriptors over all workers: control has a descriptor of each.
    static func listenerRoom(limit: Int, workers: Int, planned: Int, most: Int) -> Int {
        planned + min(max(0, max(most, planned) - planned), limit / 16 / max(1, workers))
    }

    /// - Parameters:
    ///   - unrouted: as ``NodeSettings/maxUnrouted``.
    ///   - memory: what the node may use, in bytes; 0: not known.
    func limits(unrouted: Int?, memory: UInt64, workers: Int) -> WorkerLimits {
        var limits = DescriptorBudget.sizes(connections: connectionsPerWorker, unrouted: unrouted)
        limits.pipes = pipesPerWorker
        limits.idleSockets = idleSocketsPerWorker
        limits.fit(memory: memory, workers: workers, unroutedIsSet: unrouted != nil)
        return limits
    }

    /// What a worker of this many connections has of the rest, if descriptors are no object.
    private static func sizes(connections: Int, unrouted: Int? = nil) -> WorkerLimits {
        var settings = NodeSettings()
        settings.maxUnrouted = unrouted
        settings.maxConnections = connections
        return WorkerLimits(settings)
    }
}
