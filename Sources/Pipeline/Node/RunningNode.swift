import CLinux
import Pipeline
import PipelineAlerts
import PipelineExport
import PipelineFlows
import PipelineHealth
import PipelineIntercept
import PipelineJournal
import PipelineLanguage
import PipelineResolve
import PipelineRouting
import PipelineRuntime
import PipelineText

/// A running node: its workers, routes, listeners and current program.
///
/// Every change (a reload, an address change, a listener that opens at last) becomes one new generation: a snapshot and
/// each worker's listeners, published together (``publish()``).
///
/// Threading: the control thread.
package final class RunningNode {
    package let configPath: String
    package let writer: LogWriter
    package let log: ControlLog
    package let fleet: Fleet
    package let listeners: ListenerKeeper
    package let routing: RoutingState
    /// Follows what the node runs by ``snapshotChanged()``.
    package let prober: HealthProber
    /// Where flow records go, from ``FlowRecording/begin(_:)`` on.
    package let flows: FlowRecording
    /// The watch of interception rules; nil: no descriptor for it.
    package let interception: InterceptionWatch?
    /// Readable when a backend has answered a LOCAL header that control sent it; nil: none was.
    var headerProbes: Descriptor? { proxies.descriptor }
    /// Readable when the prober wants connections reset; nil: it never does.
    var resetsNotice: Descriptor? { mayReset ? prober.notice : nil }
    private var mayReset = false
    /// Readable when the DNS has said something new; nil: it is not asked.
    var namesNotice: Descriptor? { isStopping ? nil : names.notice }
    /// The instances of flow records.
    let flowDirectory: FlowDirectory
    /// The analysis of flow records.
    package let flowWatch: FlowWatch
    /// Refuses unreachable destinations before accept.
    package let unreachable: UnreachablePaths
    package internal(set) var program: Program
    var identity: ProgramIdentity
    /// A new program that takes a share of new connections first; nil: none (R29).
    package internal(set) var canary: Canary?
    /// The config file's program, which was a canary and was rolled back; nil: the file's program runs.
    package internal(set) var rolledBack: CanaryRollback?
    /// Of the state file; nil: none is named.
    package internal(set) var revision: UInt64?
    var order = StateOrder()
    var configGuard = ConfigGuard()
    /// Who takes desired state that is pushed to this node.
    package var stateDoor: any StateDoor {
        desired.map { PushedState(self, $0) }
            ?? StateOfFiles(order.path, config: configPath, fault: stateFault, isWatched: routesWatch != nil)
    }
    /// Nil: the config has no `state`.
    package internal(set) var desired: DesiredState?
    /// The way of updates of it; nil as that is.
    var updates: UpdateQueue?
    /// What a disk that stands still has kept the node from letting go of.
    var abandoned: DesiredState?
    /// Why nothing is kept, though the config has `state`; nil: it is.
    let stateFault: String?
    /// `routes file PATH watch`; nil: no file is watched.
    package internal(set) var routesWatch: RoutesWatch?
    /// Nil: no file is watched.
    var configBase: ConfigBase?
    var routesLog: BudgetedLog
    /// Readable when a watched file may have changed, or was read.
    var routesNotices: [Descriptor] { isStopping ? [] : routesWatch?.notices ?? [] }
    /// Nil: the config has no `state`.
    package internal(set) var journal: Journal?
    /// What is wrong with objects that are left out (R24), as the last apply said; bounded.
    package internal(set) var problems: [String] = []
    /// The config file, and what it includes.
    package internal(set) var configFiles: [String]
    /// Addresses of this node's instances that belong to one interface each.
    var bound: [BoundAddress] = []
    /// Settings of `node` that the config file has and workers don't, as `workers 2 -> 4`.
    package var awaitingStart: [String] { unchangeable(from: settings, to: program.node) }
    package internal(set) var lastReload: ReloadNote?
    package internal(set) var isStopping = false
    /// How long the workers may take for the change before an update, and for its own, in milliseconds: they need about an
    /// iteration. A test has more: its machine may be busy.
    var patience = 50
    /// The drains and their deadlines.
    var drains = DrainKeeper()
    private var resets = ResetKeeper()
    package let startedAt = Instant(nanoseconds: cl_now())
    private var events = ListenerEvents()
    /// Nil: nobody keeps listeners for the next process.
    package private(set) var store: ListenerStore?
    private var proxies = ProxyWatch()
    private var probes = ProbeBook()
    /// Names of backends.
    package let names: NameKeeper
    package private(set) var watch = RouteWatch()
    package private(set) var shortages = ShortageWatch()
    package private(set) var sources = SourceWatch()
    /// When the next check for unused snapshots is due, and the interval after it.
    private var nextSweep = Instant(nanoseconds: 0)
    private var sweepInterval = RunningNode.firstSweep
    /// Parts of routes and backends that only connections hold, at the last look.
    package private(set) var pinned = 0
    private var freedSinceTrim = false
    private var nextTrim = Instant(nanoseconds: 0)
    /// Address changes that wait until workers have applied the previous change.
    private var news = AddressMonitor.News.nothing

    private static let firstSweep = TimeSpan.milliseconds(100)
    /// Long intervals are fine: connections may last for days, and the memory is not urgent.
    private static let longestSweep = TimeSpan.seconds(5)
    private static let trimInterval = TimeSpan.seconds(10)

    var settings: NodeSettings { fleet.settings }
    package var routeCount: Int { routing.snapshot.routeCount }
    /// Where it listens, as specs: for ``Explainer``.
    package var openListeners: [ListenerSpec] {
        // What only a canary has leads to a pipeline of another program.
        listeners.kept.filter { $0.isOpen && $0.planned.canary != .alone }.map { $0.planned.spec.bound(at: $0.bound) }
    }

    /// Interception is not in force, or unknown.
    package var interceptionProblems: [String] {
        interception?.report.problems(config: configPath, Instant(nanoseconds: cl_now())) ?? []
    }

    // MARK: Start

    /// Opens every listener and makes every worker before the first one serves. On failure all problems are listed, and
    /// nothing was started.
    /// - Parameters:
    ///   - queues: the flow queues of stages, which are read once ``flows`` begins.
    ///   - inherited: what this process was given; its listeners take what fits them.
    static func start(
        _ node: LoadedNode, config path: String, writer: LogWriter, queues: FlowQueues,
        inherited: InheritedListeners = .none
    ) -> (node: RunningNode?, failures: [String]) {
        let settings = node.program.node
        let log = ControlLog(writer.error)
        let services = Services(queues)
        let most = ListenerPlan.most(node.program)
        if let obstacle = SourceWatch.obstacle(to: node.program) { return (nil, [obstacle]) }
        let sized = Fleet.size(
            settings, listeners: node.listeners.count, given: inherited.count, most: most,
            probes: HealthProber.descriptors(node.program)
                + (node.routing.backendNames.isEmpty ? 0 : NameResolver.descriptors))
        guard let size = sized.size else { return (nil, [sized.failure]) }
        if let stage = node.program.prepare(workers: size.workers, services) {
            return (nil, ["not enough memory for `\(stage)`; give the process more, or lower `workers`"])
        }
        let keeper = ListenerKeeper(
            workers: size.workers, settings: settings, room: size.listenerRoom, requiredRoom: size.requiredRoom,
            inherited: inherited)
        let (staged, failures) = openRequired(keeper, node.listeners, log)
        guard failures.isEmpty else { return (nil, ListenError.lines(failures) + inherited.faults) }
        let change = keeper.apply(node.listeners, staged, now: Instant(nanoseconds: cl_now()))
        let names = NameKeeper(log, write: log.write)
        names.follow(node.program, node.routing)
        let snapshots = SnapshotKeeper()
        let first = snapshots.make(node.program, node.routes)
        let directory = FlowDirectory()
        let watch = FlowWatch(directory, log)
        let paths = UnreachablePaths(log)
        do throws(WorkerStartError) {
            let fleet = try Fleet(
                settings, size, listeners: (0..<size.workers).map(keeper.listeners), snapshots: snapshots,
                first: first, services: services, reasons: node.program.reasons, log: writer, watch: watch,
                paths: paths)
            // It follows the table from the first publication on.
            let probing = HealthProber.start(.none, write: log.write)
            guard let prober = probing.prober else {
                fleet.order(.stop)
                throw WorkerStartError(component: "the health prober", call: "pthread_create", error: probing.error)
            }
            let flows = FlowRecording(
                queues, directory, log, alsoTo: { watch.take($0) }, eachTick: { watch.tick() })
            let running = RunningNode(node, path, writer, fleet, keeper, prober, flows, watch, directory, paths, names)
            running.followRoutes(node.base, node.seen)
            running.say(change, isStart: true)
            running.snapshotChanged()
            return (running, [])
        } catch {
            // This process ends: the kernel closes what is left.
            return (nil, [error.description])
        }
    }

    private init(
        _ node: LoadedNode, _ path: String, _ writer: LogWriter, _ fleet: Fleet, _ listeners: ListenerKeeper,
        _ prober: HealthProber, _ flows: FlowRecording, _ watch: FlowWatch, _ directory: FlowDirectory,
        _ paths: UnreachablePaths, _ names: NameKeeper
    ) {
        self.names = names
        unreachable = paths
        flowWatch = watch
        flowDirectory = directory
        configPath = path
        self.writer = writer
        log = ControlLog(writer.error)
        routesLog = BudgetedLog(wallClock: { cl_wall_clock() }, write: log.write)
        interception = InterceptionWatch(log, config: path)
        self.fleet = fleet
        self.listeners = listeners
        self.prober = prober
        self.flows = flows
        routing = node.routing
        program = node.program
        revision = node.revision
        order.applied(node.reading)
        configGuard.applied(node.guarded)
        identity = node.identity
        problems = node.problems
        desired = node.desired?.take()
        stateFault = node.stateFault
        configFiles = node.files
        bound = node.bound
        drains.update(routing.currentDrains, now: Instant(nanoseconds: cl_now()))
        updates = desired.map { UpdateQueue(self, $0) }
    }

    // MARK: Change

    /// Publishes the node's configuration to every worker. Call it only once ``isSettled`` is true: descriptors of an
    /// update must stay open while a worker may still apply it.
    func publish() {
        let now = Instant(nanoseconds: cl_now())
        // Continuous changes must not postpone it.
        if nextSweep <= now { sweep(now) }
        publishGeneration(now)
        snapshotChanged()
    }

    private func publishGeneration(_ now: Instant) {
        _ = fleet.snapshots.make(program, routing.snapshot, beside: canary?.offer)
        fleet.publish(
            listeners: listeners.listeners, drains: drains.due.map(\.forWorkers), resets: resets.take())
        store?.follow(listeners.kept, now, log)
        sweepInterval = RunningNode.firstSweep
        nextSweep = min(nextSweep, now + sweepInterval)
    }

    /// What this process was given is the listeners' by now, or closed, and who keeps them for the next one knows them.
    func beginStoring(_ manager: ServiceManager, _ inherited: InheritedListeners) {
        events.say(inherited: inherited.count, inherited.closeRest(), listeners, log)
        store = ListenerStore(manager, listeners.kept, inherited)
        inherited.forget()
        store?.follow(listeners.kept, Instant(nanoseconds: cl_now()), log)
    }

    /// Every worker has applied the last change.
    var isSettled: Bool {
        guard fleet.hasAppliedNewest else { return false }
        listeners.everyWorkerHasApplied()
        return true
    }

    /// Orders the workers to drain. They let go of each listener once its queue is empty, and control lets go of them here:
    /// a listener that nobody else has open ends, so that another node can open the port while this one drains.
    func drainWorkers() {
        // A worker that has not applied the last change may still take its descriptors, unless it is to drain.
        let isSettled = waitUntilSettled(milliseconds: 100)
        if isSettled { listeners.closeAll() }
        fleet.order(.drain)
        if !isSettled { listeners.closeAll() }
    }

    /// Workers apply a change at the top of their loop, within one iteration.
    func waitUntilSettled(milliseconds: Int) -> Bool {
        let end = Instant(nanoseconds: cl_now()) + .milliseconds(UInt32(clamping: milliseconds))
        var pause: Int64 = 10_000
        while !isSettled {
            guard Instant(nanoseconds: cl_now()) < end else { return false }
            cl_sleep(pause)
            pause = min(pause * 2, 200_000)
        }
        return true
    }

    /// Whoever follows what the node runs hooks in here: called once at the start and after each new generation, with
    /// ``program`` and ``routing`` as they are now, and what has changed in the table since.
    func snapshotChanged() {
        mayReset = HealthProber.resetsConnections(program)
        let news = routing.takeNews()
        proxies.follow(program, routing, news)
        watch.follow(routing, news)
        sources.follow(program)
        prober.update(probes.follow(program, routing, news))
        if news.hasOtherInstances { flowDirectory.update(routing.snapshot.instances) }
        flowWatch.update(program)
        unreachable.update(program)
        interception?.follow(program, settings, bound)
    }

    /// Handled at the next ``tick(_:)``.
    func addressesChanged(_ more: AddressMonitor.News) {
        news.add(more)
        sources.addressesChanged()
    }

    private func publish(_ change: ListenerKeeper.Change) {
        guard !change.isEmpty else { return }
        say(change)
        if change.changesSockets { publish() }
    }

    func say(_ change: ListenerKeeper.Change, isStart: Bool = false) {
        events.say(change, listeners, log, isStart: isStart)
    }

    // MARK: Time

    /// Does what is due.
    func tick(_ now: Instant) {
        guard !isStopping else { return }
        if news != .nothing, isSettled { lookAtAddresses(now) }
        if let due = listeners.nextRetry, due <= now, isSettled { publish(listeners.retry(now: now)) }
        if listeners.isClosing { _ = isSettled }
        if let due = store?.nextRetry, due <= now { store?.follow(listeners.kept, now, log) }
        if hasOld, nextSweep <= now { sweep(now) }
        if let updates { updates.advance() } else { doBetweenUpdates() }
        if mayReset { resets.add(prober.takeResets()) }
        if resets.isDue, isSettled { publishGeneration(now) }
        names.collect()
        names.watch(now)
        if let due = names.due, due <= now, isSettled, names.apply(to: routing, now) { publish() }
        proxies.look(routing, now, log)
        watch.look(routing, now, log)
        shortages.look(fleet, program.node.memory, now, log)
        sources.look(now, log)
    }

    private func lookAtAddresses(_ now: Instant) {
        if news.hasLinks || news.isAnything { publish(listeners.interfacesChanged(now: now)) }
        // The change before has to be applied first.
        news.hasLinks = false
        guard isSettled else { return }
        if news.isAnything || !news.addresses.isEmpty {
            publish(listeners.addressesChanged(news.isAnything ? nil : news.addresses, now: now))
        }
        news = .nothing
    }

    private func sweep(_ now: Instant) {
        let isFreed = fleet.snapshots.free(before: fleet.oldestApplied)
        let pinnedBefore = pinned
        pinned = routing.freeUnpinned()
        let isIdle = !isFreed && pinned == pinnedBefore
        if !isIdle { freedSinceTrim = true }
        let doubled = TimeSpan(nanoseconds: sweepInterval.nanoseconds * 2)
        sweepInterval = isIdle ? min(doubled, RunningNode.longestSweep) : RunningNode.firstSweep
        nextSweep = now + sweepInterval
        trim(now)
    }

    /// True while objects wait for workers or connections.
    private var hasOld: Bool { fleet.snapshots.hasOld || pinned > 0 || freedSinceTrim }

    /// Returns freed memory to the system, rarely, since it costs a walk over the heap.
    private func trim(_ now: Instant) {
        guard freedSinceTrim, nextTrim <= now else { return }
        freedSinceTrim = false
        nextTrim = now + RunningNode.trimInterval
        cl_trim_heap()
    }

    private var hasGroup: Bool { updates?.hasGroup ?? false }

    /// When ``tick(_:)`` has work; nil: not before an event.
    var nextTick: Instant? {
        guard !isStopping else { return nil }
        var next = [
            listeners.nextRetry, store?.nextRetry, proxies.nextLook, watch.nextLook, shortages.nextLook,
            sources.nextLook, names.nextLook,
            hasGroup ? nil : canary?.nextLook, hasGroup ? nil : desired?.nextLook, updates?.nextTick,
        ]
        .compactMap { $0 }
        if hasOld { next.append(nextSweep) }
        if let due = routing.nextCooldown { next.append(max(due, Instant(nanoseconds: cl_now()) + .milliseconds(10))) }
        if let due = routesWatch?.nextTick {
            // Workers need about an iteration.
            next.append(isSettled && !hasGroup ? due : max(due, Instant(nanoseconds: cl_now()) + .milliseconds(5)))
        }
        if let due = names.due { next.append(max(due, Instant(nanoseconds: cl_now()) + .milliseconds(10))) }
        // Workers need about an iteration.
        if news != .nothing || listeners.isClosing || resets.isDue {
            next.append(Instant(nanoseconds: cl_now()) + .milliseconds(10))
        }
        return next.min()
    }
}
