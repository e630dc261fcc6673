import CLinux
import Pipeline
import PipelineAlerts
import PipelineIntercept
import PipelineRuntime
import PipelineThreads

/// All workers of a node, their log, and the snapshots that they run on.
///
/// Threading: the control thread. Ownership: keeps programs and routes alive until every worker has been joined.
package final class Fleet {
    let settings: NodeSettings
    package let budget: DescriptorBudget
    package let snapshots: SnapshotKeeper
    /// The node's services for stages, kept as long as the workers.
    let services: Services
    package private(set) var workers: [WorkerThread]
    private let log: LogWriter

    /// The sizes that the machine and the settings allow, before anything is opened.
    struct Size {
        let workers: Int
        let budget: DescriptorBudget
        /// Of listeners, for each worker.
        let listenerRoom: Int
        /// Of those of `listen` lines, which later reloads may add.
        let requiredRoom: Int
    }

    static func workers(_ settings: NodeSettings) -> Int {
        settings.workers > 0 ? settings.workers : max(1, Int(cl_cpu_count()))
    }

    /// - Returns: nil, and why, if it is too little.
    /// - Parameter given: listening sockets that the process was started with: maybe more than a worker has listeners.
    static func size(
        _ settings: NodeSettings, listeners: Int, given: Int = 0, most: Int, probes: Int
    ) -> (size: Size?, failure: String) {
        let count = workers(settings)
        let listeners = max(listeners, (given + count - 1) / count)
        let limit = cl_raise_descriptor_limit()
        guard limit >= 0 else { return (nil, "can't read the open-file limit: \(kernelError(-limit))") }
        let room = DescriptorBudget.listenerRoom(
            limit: Int(clamping: limit), workers: count, planned: listeners, most: most)
        let budget = DescriptorBudget(
            limit: Int(clamping: limit), workers: count, listeners: room, maxConnections: settings.maxConnections,
            idleSockets: settings.idleUpstreamSockets, probes: probes,
            areShared: !settings.ownDescriptors || cl_may_own_descriptors() != 0)
        guard let budget else {
            return (
                nil,
                "the limit of \(limit) open files is too low for \(listeners) listeners on \(count) workers; raise it "
                    + "(systemd: LimitNOFILE=, shell: ulimit -Hn), or lower `workers`"
            )
        }
        let requiredRoom = DescriptorBudget.listenerRoom(
            limit: Int(clamping: limit), workers: count, planned: listeners, most: .max)
        return (Size(workers: count, budget: budget, listenerRoom: room, requiredRoom: requiredRoom), "")
    }

    /// Makes all workers, then starts them: all or none.
    /// - Parameters:
    ///   - listeners: by worker; to stay open until ``hasAppliedNewest``.
    ///   - snapshots: has the snapshot that they begin on, `first`.
    ///   - services: what the node lends to stages.
    ///   - log: takes every connection that ends.
    ///   - watch, paths: see them too.
    init(
        _ settings: NodeSettings, _ size: Size, listeners: [[WorkerListener]], snapshots: SnapshotKeeper,
        first: UnsafePointer<Snapshot>, services: Services, reasons: ReasonTable, log: LogWriter,
        watch: FlowWatch? = nil, paths: UnreachablePaths? = nil
    ) throws(WorkerStartError) {
        let cpus = max(1, cl_cpu_count())
        let limits = size.budget.limits(
            unrouted: settings.maxUnrouted, memory: MemoryBound().read().bound(settings.memory), workers: size.workers)
        var workers: [WorkerThread] = []
        for index in 0..<size.workers {
            let cpu = cl_cpu_at(Int32(index) % cpus)
            workers.append(
                try WorkerThread(
                    index: index, cpu: cpu >= 0 ? cpu : nil, settings: settings,
                    limits: limits,
                    listeners: listeners[index], snapshot: first, services: services))
        }
        self.settings = settings
        self.budget = size.budget
        self.snapshots = snapshots
        self.services = services
        self.workers = workers
        self.log = log
        log.choose(settings)
        if first.pointee.program.takeUnretainedValue().recordsConnections {
            let losses = LogLosses(counters: workers.map(\.counterMemory))
            log.follow(
                workers.map(\.ring), reasons: reasons, writes: settings.logConnections, watch: watch,
                paths: paths, lost: { losses.total })
        }
        if workers.count > 1 { for worker in workers { worker.know(workers) } }
        try Fleet.startThreads(workers)
    }

    /// All or none: the threads start when the barrier opens, and find the order to stop if one is missing.
    private static func startThreads(_ workers: [WorkerThread]) throws(WorkerStartError) {
        var ends: (Int32, Int32) = (-1, -1)
        let made = withUnsafeMutablePointer(to: &ends) {
            $0.withMemoryRebound(to: Int32.self, capacity: 2) { cl_make_barrier($0) }
        }
        guard made == 0 else { throw WorkerStartError(component: "the workers", call: "pipe2", error: -made) }
        defer { _ = cl_close(ends.0) }
        var started = 0
        do throws(WorkerStartError) {
            for worker in workers {
                try worker.start(barrier: Descriptor(ends.0))
                started += 1
            }
        } catch {
            for worker in workers { worker.mailbox.setOrder(.stop) }
            _ = cl_close(ends.1)
            for worker in workers.prefix(started) { worker.join() }
            throw error
        }
        _ = cl_close(ends.1)
    }

    // MARK: Updates

    /// Publishes the newest snapshot to every worker, each with its own listeners.
    func publish(listeners: (_ worker: Int) -> [WorkerListener], drains: [Drain], resets: [BackendReset] = []) {
        for worker in workers {
            guard let update = snapshots.update(listeners(worker.index), drains: drains, resets: resets) else {
                continue
            }
            worker.mailbox.publish(update)
            worker.wake()
        }
    }

    /// True once every worker uses the newest table, program and listeners.
    var hasAppliedNewest: Bool { workersBehind == 0 }

    /// How many workers still use an older one.
    var workersBehind: Int {
        workers.count { $0.mailbox.appliedGeneration < snapshots.newest && !$0.mailbox.hasEnded }
    }

    /// The oldest generation that any worker still uses.
    var oldestApplied: UInt64 {
        workers.map { $0.mailbox.hasEnded ? .max : $0.mailbox.appliedGeneration }.min() ?? .max
    }

    // MARK: Orders and counts

    func order(_ order: WorkerOrder) {
        for worker in workers {
            worker.mailbox.setOrder(order)
            worker.wake()
        }
    }

    var hasEnded: Bool { workers.allSatisfy(\.mailbox.hasEnded) }

    package func total(_ metric: WorkerCounters.Metric) -> UInt64 {
        workers.reduce(0) { $0 &+ $1.counters.pointee.read(metric) }
    }
    package func total(ended reason: ReasonCode) -> UInt64 {
        workers.reduce(0) { $0 &+ $1.counters.pointee.read(ended: reason) }
    }
    package func total(shadowed reason: ReasonCode) -> UInt64 {
        workers.reduce(0) { $0 &+ $1.counters.pointee.read(shadowed: reason) }
    }

    deinit {
        // Workers free their stages' worker memory at their end, which needs the snapshots.
        workers.removeAll()
    }

    /// Joins the ending workers, and flushes the log.
    /// - Returns: false if the log could not be written whole within `patience` milliseconds.
    func finish(patience: Int) -> Bool {
        for worker in workers { worker.join() }
        return log.flush(patience: patience)
    }
}

/// A function for the number of records that workers dropped. For any thread, for as long as the log runs: it keeps the
/// counters alive, but no worker.
private struct LogLosses: Sendable {
    let counters: [CounterMemory]
    var total: UInt64 { counters.reduce(0) { $0 &+ $1.counters.pointee.read(.logDropped) } }
}
