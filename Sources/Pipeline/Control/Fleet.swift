import CLinux
import Pipeline
import PipelineRouting
import PipelineRuntime

/// All workers of a node, their log, and the snapshot that they run on.
///
/// Threading: the control thread. Ownership: keeps program and routes alive until every worker has been joined.
final class Fleet {
    let settings: NodeSettings
    let endpoints: [Endpoint]
    let budget: DescriptorBudget
    private(set) var workers: [WorkerThread]
    private let log: LogThread
    private let node: LoadedNode
    private let table: RouteTableSnapshot
    private let snapshot: UnsafeMutablePointer<Snapshot>
    private let prober: HealthProber?

    var routeCount: Int { table.routeCount }

    /// Opens every listener and makes every worker before the first one serves. On failure everything that can be
    /// named is, and nothing was started.
    static func start(_ node: LoadedNode) -> (fleet: Fleet?, failures: [String]) {
        let settings = node.program.node
        let count = workerCount(settings)
        let limit = cl_raise_descriptor_limit()
        guard limit >= 0 else { return (nil, ["can't read the limit of open files: error \(-limit) from the kernel"]) }
        let budget = DescriptorBudget(
            limit: Int(clamping: limit), workers: count, listeners: node.listeners.count,
            maxConnections: settings.maxConnections, probes: ProbeTargets.descriptors(node.program))
        guard let budget else {
            return (
                nil,
                [
                    "the limit of \(limit) open files is too low for \(node.listeners.count) listeners on \(count) "
                        + "workers; raise it (systemd: LimitNOFILE=, shell: ulimit -Hn), or lower `workers`"
                ]
            )
        }
        let opened = ListenerSet.open(node.listeners, workers: count, settings: settings)
        guard let listeners = opened.set else { return (nil, opened.failures.map(\.description)) }
        do throws(WorkerStartError) {
            return (try Fleet(node, budget, listeners, count), [])
        } catch {
            // Workers own their listeners by now, and this process ends: the kernel closes what is left.
            return (nil, [error.description])
        }
    }

    private static func workerCount(_ settings: NodeSettings) -> Int {
        settings.workers > 0 ? settings.workers : max(1, Int(cl_cpu_count()))
    }

    private init(
        _ node: LoadedNode, _ budget: DescriptorBudget, _ listeners: ListenerSet, _ count: Int
    ) throws(WorkerStartError) {
        let settings = node.program.node
        let table = node.routes
        let snapshot = UnsafeMutablePointer<Snapshot>.allocate(capacity: 1)
        snapshot.initialize(to: Snapshot(program: node.program, routes: table.handle, generation: 1))
        let cpus = max(1, cl_cpu_count())
        var workers: [WorkerThread] = []
        for index in 0..<count {
            let cpu = cl_cpu_at(Int32(index) % cpus)
            workers.append(
                try WorkerThread(
                    index: index, cpu: cpu >= 0 ? cpu : nil, settings: settings, limits: budget.limits,
                    listeners: listeners.byWorker[index], snapshot: UnsafePointer(snapshot)))
        }
        self.settings = settings
        self.budget = budget
        self.node = node
        self.table = table
        self.snapshot = snapshot
        self.workers = workers
        endpoints = listeners.endpoints
        log = LogThread(rings: workers.map(\.ring), reasons: node.program.reasons)
        let started = HealthProber.start(ProbeTargets(node.program, table))
        prober = started.prober
        guard prober != nil else {
            throw WorkerStartError(worker: 0, call: "starting the health prober", error: started.error)
        }
        do throws(WorkerStartError) {
            try Fleet.startThreads(workers, log)
        } catch {
            prober?.stop()
            throw error
        }
    }

    /// All or none: the threads begin when the gate opens, and find the order to stop if one of them is missing.
    private static func startThreads(_ workers: [WorkerThread], _ log: LogThread) throws(WorkerStartError) {
        var ends: (Int32, Int32) = (-1, -1)
        let made = withUnsafeMutablePointer(to: &ends) {
            $0.withMemoryRebound(to: Int32.self, capacity: 2) { cl_make_gate($0) }
        }
        guard made == 0 else { throw WorkerStartError(worker: 0, call: "pipe", error: -made) }
        defer { _ = cl_close(ends.0) }
        var started = 0
        do throws(WorkerStartError) {
            for worker in workers {
                try worker.start(gate: Descriptor(ends.0))
                started += 1
            }
            let failed = log.start()
            guard failed == 0 else {
                throw WorkerStartError(worker: 0, call: "pthread_create for the log", error: -failed)
            }
        } catch {
            for worker in workers { worker.mailbox.setOrder(.stop) }
            _ = cl_close(ends.1)
            for worker in workers.prefix(started) { worker.join() }
            throw error
        }
        _ = cl_close(ends.1)
    }

    // MARK: Orders and counts

    func order(_ order: WorkerOrder) {
        for worker in workers {
            worker.mailbox.setOrder(order)
            worker.wake()
        }
    }

    var hasEnded: Bool { workers.allSatisfy(\.mailbox.hasEnded) }

    func total(_ metric: WorkerCounters.Metric) -> UInt64 {
        workers.reduce(0) { $0 &+ $1.counters.pointee.read(metric) }
    }

    deinit {
        // A worker's last act is to give back the state of its stages, which the snapshot names.
        workers.removeAll()
        snapshot.deinitialize(count: 1)
        snapshot.deallocate()
    }

    /// Joins the workers, which were told to end, and writes out the log.
    /// - Returns: false if the log could not be written whole within `patience` milliseconds.
    func finish(patience: Int) -> Bool {
        for worker in workers { worker.join() }
        prober?.stop()
        return log.finish(patience: patience) && log.brokenBy == 0
    }
}
