import CLinux
import Pipeline
import PipelineRuntime

/// The listening sockets of a node: planned, open, and degraded with a reason.
///
/// Sockets are opened here, one per worker, or taken from those that the process was given
/// (``InheritedListeners``). The worker duplicates the descriptor, and closes it when an update no
/// longer lists it; then it is closed here as well. A socket that can't be opened is degraded and retried, without
/// effect on others (R9).
///
/// Threading: the control thread.
package final class ListenerKeeper {
    /// Why an endpoint isn't served, and when it is retried.
    package struct Degradation {
        package let error: ListenError
        package let since: Instant
        var retryAt: Instant
    }

    package struct Kept {
        package var planned: PlannedListener
        /// The listener's number in facts, logs and limits, for its whole life.
        package let index: UInt16
        /// Empty while degraded, else at least one for each worker: a worker has each that is as many places after its own
        /// as there are workers.
        package var sockets: [Descriptor] = []
        /// Where it is bound: the planned endpoint, or the port that the kernel chose for port 0.
        package var bound: Endpoint
        /// The index of the interface that its sockets are bound to; 0: none.
        var interface: UInt32 = 0
        /// Its sockets take Multipath TCP.
        package var isMultipath = false
        package var degradation: Degradation?

        package var isOpen: Bool { !sockets.isEmpty }
    }

    /// The result of a change.
    struct Change {
        var opened: [PlannedListener] = []
        var closed: [PlannedListener] = []
        /// Their addresses are back; their sockets were open all the time.
        var restored: [PlannedListener] = []
        var degraded: [(listener: PlannedListener, error: ListenError)] = []
        /// The address or the interface vanished, and its sockets were closed.
        var lost = 0
        /// Open sockets that have another `backlog` or `fastopen` now.
        var tuned: [PlannedListener] = []
        /// Those that can't: they need a restart.
        var untuned: [PlannedListener] = []
        var changesSockets: Bool { lost > 0 || !opened.isEmpty || !closed.isEmpty }
        var isEmpty: Bool {
            !changesSockets && degraded.isEmpty && restored.isEmpty && tuned.isEmpty && untuned.isEmpty
        }
    }

    /// The polling interval besides address events.
    static let retryInterval = TimeSpan.seconds(30)

    let workers: Int
    let settings: NodeSettings
    /// What the process was given, as long as it starts.
    let inherited: InheritedListeners
    /// How many sockets a worker may have open at most (R27).
    private let room: Int
    /// The same for those of `listen` lines, which a reload must not open beyond what the descriptors allow.
    private let requiredRoom: Int
    private var indices = IndexPool()
    /// In the order of the plan.
    package private(set) var kept: [Kept] = []
    /// Sockets that workers may still use, and their ports.
    private var closing: [Descriptor] = []
    private var closingPorts: Set<UInt16> = []

    init(
        workers: Int, settings: NodeSettings, room: Int, requiredRoom: Int = .max,
        inherited: InheritedListeners = .none
    ) {
        self.inherited = inherited
        self.requiredRoom = max(room, requiredRoom)
        self.workers = workers
        self.settings = settings
        self.room = room
    }

    package var openEndpoints: [Endpoint] { kept.filter(\.isOpen).map(\.bound) }
    /// The next retry of a degraded listener; nil: none.
    var nextRetry: Instant? { kept.compactMap(\.degradation?.retryAt).min() }

    /// The listeners to publish to one worker.
    func listeners(worker: Int) -> [WorkerListener] {
        kept.flatMap { kept in
            stride(from: worker, to: kept.sockets.count, by: workers).map { place in
                WorkerListener(
                    descriptor: kept.sockets[place], spec: kept.planned.spec, bound: kept.bound, index: kept.index,
                    interface: kept.interface, canary: kept.planned.canary)
            }
        }
    }

    // MARK: A new plan

    /// Why `plan` has too many ports for a node that runs; nil: it has not.
    func refusal(of plan: [PlannedListener]) -> String? {
        guard plan.count > requiredRoom else { return nil }
        return "the `listen` lines have \(plan.count) ports: \(plan.count * workers) descriptors for the process and "
            + "\(plan.count) for each worker; this node has room for \(requiredRoom) ports since its start; restart "
            + "it, with a higher limit of open files if that is too low (systemd: LimitNOFILE=)"
    }

    /// Opens required listeners of `plan` that are not open yet: all or none. They wait for ``apply(_:_:now:)``.
    /// One whose interface or address is away already is tried again later, and refuses nothing.
    func openRequired(_ plan: [PlannedListener]) -> (staged: [ListenerKey: OpenListener], failures: [ListenError]) {
        let known = Set(kept.filter { $0.isOpen || $0.planned.isRequired }.map(\.planned.key))
        var staged: [ListenerKey: OpenListener] = [:]
        var failures: [ListenError] = []
        let wanted = plan.filter { $0.isRequired && !known.contains($0.key) }
        let taken = Set(kept.lazy.filter(\.isOpen).map(\.bound.port))
        // Checked before the first is opened, since two of our own may share a port.
        for planned in wanted {
            do throws(ListenError) { try requireUnshared(planned.spec, taken.contains) } catch {
                failures.append(error)
            }
        }
        for planned in plan where failures.isEmpty && planned.spec.mode.intercepts {
            do throws(ListenError) { try adapt(planned.spec) } catch { failures.append(error) }
        }
        for planned in wanted where failures.isEmpty {
            do throws(ListenError) {
                staged[planned.key] = try openForWorkers(planned.spec)
            } catch {
                failures.append(error)
            }
        }
        guard failures.isEmpty else {
            abandon(staged)
            return ([:], failures)
        }
        return (staged, [])
    }

    /// Closes what ``openRequired(_:)`` opened, after a refusal.
    func abandon(_ staged: [ListenerKey: OpenListener]) {
        for listener in staged.values { close(listener.sockets) }
    }

    /// Applies `plan`: unchanged sockets are kept, others opened. Workers close those that disappear from
    /// ``listeners(worker:)``.
    func apply(_ plan: [PlannedListener], _ staged: [ListenerKey: OpenListener], now: Instant) -> Change {
        var change = Change()
        var known = Dictionary(kept.map { ($0.planned.key, $0) }, uniquingKeysWith: { first, _ in first })
        var next: [Kept] = []
        next.reserveCapacity(plan.count)
        for planned in plan {
            if var same = known.removeValue(forKey: planned.key) {
                tune(same, to: planned, &change)
                same.planned = planned
                next.append(same)
            } else if let index = indices.take() {
                next.append(Kept(planned: planned, index: index, bound: planned.endpoint))
            } else {
                change.degraded.append((planned, ListenError(planned.spec, error: ErrorNumber.tooManyFiles)))
            }
        }
        for gone in known.values {
            if gone.isOpen {
                change.closed.append(gone.planned)
                retire(gone)
            }
            indices.give(back: gone.index)
        }
        kept = next
        for position in kept.indices where !kept[position].isOpen {
            if let listener = staged[kept[position].planned.key] {
                take(listener, at: position)
                change.opened.append(kept[position].planned)
            } else if kept[position].degradation == nil {
                tryToOpen(position, now, &change)
            }
        }
        return change
    }

    /// What an open socket can be told anew.
    private func tune(_ open: Kept, to planned: PlannedListener, _ change: inout Change) {
        let (old, new) = (open.planned.spec.options, planned.spec.options)
        guard open.isOpen, old.backlog != new.backlog || old.fastOpen != new.fastOpen else { return }
        let isDone = open.sockets.allSatisfy { ListenerSocket.tune($0, to: planned.spec, settings) }
        if isDone { change.tuned.append(planned) } else { change.untuned.append(planned) }
    }

    private func retire(_ gone: Kept) {
        closing += gone.sockets
        closingPorts.insert(gone.bound.port)
    }

    /// Sockets that workers may still use have the port.
    func isClosing(_ port: UInt16) -> Bool { closingPorts.contains(port) }

    /// Something waits for ``everyWorkerHasApplied()``.
    var isClosing: Bool { !closing.isEmpty }

    /// Every worker has applied the last update: closes removed sockets.
    func everyWorkerHasApplied() {
        for socket in closing { ListenerSocket.close(socket) }
        closing = []
        closingPorts = []
    }

    // MARK: Degraded ones

    /// Tries again what is due.
    func retry(now: Instant) -> Change {
        var change = Change()
        for position in kept.indices {
            guard let degradation = kept[position].degradation, degradation.retryAt <= now else { continue }
            if kept[position].isOpen {
                lookAtAddress(position, now, &change)
            } else {
                tryToOpen(position, now, &change)
            }
        }
        return change
    }

    /// Handles address changes: listeners on missing addresses are degraded, those waiting for a returned one are
    /// opened.
    /// - Parameter changed: the changed addresses; nil: unknown, check all.
    func addressesChanged(_ changed: Set<IPAddress>?, now: Instant) -> Change {
        var change = Change()
        for position in kept.indices {
            let address = kept[position].planned.endpoint.address
            guard !address.isUnspecified, changed?.contains(address) ?? true else { continue }
            guard kept[position].isOpen else {
                tryToOpen(position, now, &change)
                continue
            }
            // An address of one link alone can't be asked for without it.
            guard kept[position].planned.spec.options.interface == nil else { continue }
            // Sockets of `listen` lines stay open: their address is the operator's responsibility.
            guard !kept[position].planned.isRequired else {
                lookAtAddress(position, now, &change)
                continue
            }
            guard !Addresses.isUsable(address) else { continue }
            lose(position, &change)
            degrade(position, ErrorNumber.addressNotAvailable, now, &change)
        }
        return change
    }

    /// Handles changes of interfaces: a socket stays bound to the one that it was opened at, whatever has its name now.
    func interfacesChanged(now: Instant) -> Change {
        var change = Change()
        var indices: [String: UInt32] = [:]
        for position in kept.indices {
            guard let name = kept[position].planned.spec.options.interface else { continue }
            let index = indices[name] ?? cl_interface_index(name)
            indices[name] = index
            if kept[position].isOpen {
                guard kept[position].interface != index else { continue }
                lose(position, &change)
            } else if kept[position].degradation == nil {
                continue
            }
            if index == 0 {
                degrade(position, ErrorNumber.noDevice, now, &change)
            } else {
                tryToOpen(position, now, &change)
            }
        }
        return change
    }

    private func lose(_ position: Int, _ change: inout Change) {
        retire(kept[position])
        kept[position].sockets = []
        change.lost += 1
    }

    /// Whether a listener whose sockets stay open is reachable.
    private func lookAtAddress(_ position: Int, _ now: Instant, _ change: inout Change) {
        let planned = kept[position].planned
        if !Addresses.isUsable(planned.endpoint.address) {
            degrade(position, ErrorNumber.addressNotAvailable, now, &change)
        } else if kept[position].degradation != nil {
            kept[position].degradation = nil
            change.restored.append(planned)
        }
    }

    private func tryToOpen(_ position: Int, _ now: Instant, _ change: inout Change) {
        let planned = kept[position].planned
        do throws(ListenError) {
            guard kept.count(where: \.isOpen) < room else {
                throw ListenError(planned.spec, error: ErrorNumber.tooManyFiles)
            }
            try requireUnshared(planned.spec) { port in kept.contains { $0.isOpen && $0.bound.port == port } }
            take(try openForWorkers(planned.spec), at: position)
            change.opened.append(planned)
        } catch {
            degrade(position, error, now, &change)
        }
    }

    private func take(_ listener: OpenListener, at position: Int) {
        kept[position].sockets = listener.sockets
        kept[position].bound = listener.bound
        kept[position].interface = listener.interface
        kept[position].isMultipath = listener.isMultipath
        kept[position].degradation = nil
    }

    private func degrade(_ position: Int, _ number: Int32, _ now: Instant, _ change: inout Change) {
        degrade(position, ListenError(kept[position].planned.spec, error: number), now, &change)
    }

    private func degrade(_ position: Int, _ error: ListenError, _ now: Instant, _ change: inout Change) {
        let before = kept[position].degradation
        kept[position].degradation = Degradation(
            error: error, since: before?.since ?? now, retryAt: now + ListenerKeeper.retryInterval)
        // Logged once, and again only if the reason changes.
        if before?.error.error != error.error { change.degraded.append((kept[position].planned, error)) }
    }

    // MARK: Sockets

    /// Makes an open socket intercept. If the plan is refused later, the option stays set without effect.
    private func adapt(_ spec: ListenerSpec) throws(ListenError) {
        for open in kept where open.planned.key == ListenerKey(spec) && open.planned.spec.mode != spec.mode {
            for socket in open.sockets { try ListenerSocket.adapt(socket, to: spec) }
        }
    }

    /// Closes all sockets, once no worker needs them.
    func closeAll() {
        everyWorkerHasApplied()
        for socket in kept.flatMap(\.sockets) { ListenerSocket.close(socket) }
        kept = []
    }
}
