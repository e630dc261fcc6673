import CLinux
import Pipeline
import PipelineRuntime

/// The listening sockets of a node: planned, open, and degraded with a reason.
///
/// Sockets are opened here, one per worker. The worker duplicates the descriptor, and closes it when an update no
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
        /// By worker; empty while degraded.
        package var sockets: [Descriptor] = []
        /// Where it is bound: the planned endpoint, or the port that the kernel chose for port 0.
        package var bound: Endpoint
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
        /// The address vanished, and its sockets were closed.
        var lost = 0
        var changesSockets: Bool { lost > 0 || !opened.isEmpty || !closed.isEmpty }
        var isEmpty: Bool { !changesSockets && degraded.isEmpty && restored.isEmpty }
    }

    /// The polling interval besides address events.
    static let retryInterval = TimeSpan.seconds(30)

    private let workers: Int
    private let settings: NodeSettings
    /// How many sockets a worker may have open at most (R27).
    private let room: Int
    private var indices = IndexPool()
    /// In the order of the plan.
    package private(set) var kept: [Kept] = []
    /// Sockets that workers may still use, and their ports.
    private var closing: [Descriptor] = []
    private var closingPorts: Set<UInt16> = []

    init(workers: Int, settings: NodeSettings, room: Int) {
        self.workers = workers
        self.settings = settings
        self.room = room
    }

    package var openEndpoints: [Endpoint] { kept.filter(\.isOpen).map(\.bound) }
    /// The next retry of a degraded listener; nil: none.
    var nextRetry: Instant? { kept.compactMap(\.degradation?.retryAt).min() }

    /// The listeners to publish to one worker.
    func listeners(worker: Int) -> [WorkerListener] {
        kept.filter(\.isOpen).map { kept in
            WorkerListener(
                descriptor: kept.sockets[worker], spec: kept.planned.spec, bound: kept.bound, index: kept.index)
        }
    }

    // MARK: A new plan

    /// Opens required listeners of `plan` that are not open yet: all or none. They wait for ``apply(_:_:now:)``.
    func openRequired(_ plan: [PlannedListener]) -> (staged: [Endpoint: OpenListener], failures: [ListenError]) {
        let open = Set(kept.filter(\.isOpen).map(\.planned.endpoint))
        var staged: [Endpoint: OpenListener] = [:]
        var failures: [ListenError] = []
        let wanted = plan.filter { $0.isRequired && !open.contains($0.endpoint) }
        // Checked before the first is opened, since two of our own may share a port.
        for planned in wanted {
            do throws(ListenError) { try requireUnshared(planned.spec) } catch { failures.append(error) }
        }
        for planned in plan where failures.isEmpty && planned.spec.mode.intercepts {
            do throws(ListenError) { try adapt(planned.spec) } catch { failures.append(error) }
        }
        for planned in wanted where failures.isEmpty {
            do throws(ListenError) {
                staged[planned.endpoint] = try openForWorkers(planned.spec)
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
    func abandon(_ staged: [Endpoint: OpenListener]) {
        for listener in staged.values { listener.close() }
    }

    /// Applies `plan`: unchanged sockets are kept, others opened. Workers close those that disappear from
    /// ``listeners(worker:)``.
    func apply(_ plan: [PlannedListener], _ staged: [Endpoint: OpenListener], now: Instant) -> Change {
        var change = Change()
        var known = Dictionary(kept.map { ($0.planned.endpoint, $0) }, uniquingKeysWith: { first, _ in first })
        var next: [Kept] = []
        next.reserveCapacity(plan.count)
        for planned in plan {
            if var same = known.removeValue(forKey: planned.endpoint) {
                same.planned = planned
                next.append(same)
            } else if let index = indices.take() {
                next.append(Kept(planned: planned, index: index, bound: planned.endpoint))
            } else {
                change.degraded.append((planned, ListenError(endpoint: planned.endpoint, error: 24, congestion: nil)))
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
            if let listener = staged[kept[position].planned.endpoint] {
                take(listener, at: position)
                change.opened.append(kept[position].planned)
            } else if kept[position].degradation == nil {
                tryToOpen(position, now, &change)
            }
        }
        return change
    }

    private func retire(_ gone: Kept) {
        closing += gone.sockets
        closingPorts.insert(gone.bound.port)
    }

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
            // Sockets of `listen` lines stay open: their address is the operator's responsibility.
            guard !kept[position].planned.isRequired else {
                lookAtAddress(position, now, &change)
                continue
            }
            guard !Addresses.isUsable(address) else { continue }
            let error = ListenError(endpoint: kept[position].planned.endpoint, error: 99, congestion: nil)
            retire(kept[position])
            kept[position].sockets = []
            change.lost += 1
            degrade(position, error, now, &change)
        }
        return change
    }

    /// Whether a listener whose sockets stay open is reachable.
    private func lookAtAddress(_ position: Int, _ now: Instant, _ change: inout Change) {
        let planned = kept[position].planned
        if !Addresses.isUsable(planned.endpoint.address) {
            degrade(position, ListenError(endpoint: planned.endpoint, error: 99, congestion: nil), now, &change)
        } else if kept[position].degradation != nil {
            kept[position].degradation = nil
            change.restored.append(planned)
        }
    }

    private func tryToOpen(_ position: Int, _ now: Instant, _ change: inout Change) {
        let planned = kept[position].planned
        do throws(ListenError) {
            guard kept.count(where: \.isOpen) < room else {
                throw ListenError(endpoint: planned.endpoint, error: 24, congestion: nil)
            }
            try requireUnshared(planned.spec)
            take(try openForWorkers(planned.spec), at: position)
            change.opened.append(planned)
        } catch {
            degrade(position, error, now, &change)
        }
    }

    private func take(_ listener: OpenListener, at position: Int) {
        kept[position].sockets = listener.sockets
        kept[position].bound = listener.bound
        kept[position].degradation = nil
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
        for open in kept where open.planned.endpoint == spec.endpoint && open.planned.spec.mode != spec.mode {
            for socket in open.sockets { try ListenerSocket.adapt(socket, to: spec) }
        }
    }

    /// One socket for each worker, or none.
    private func openForWorkers(_ spec: ListenerSpec) throws(ListenError) -> OpenListener {
        var spec = spec
        var sockets: [Descriptor] = []
        do throws(ListenError) {
            for _ in 0..<workers {
                let socket = try ListenerSocket.open(spec, settings: settings)
                // The port that the kernel chose for the first worker is used for the others.
                spec = spec.bound(at: socket.endpoint)
                sockets.append(socket.release())
            }
        } catch {
            for socket in sockets { ListenerSocket.close(socket) }
            throw error
        }
        return OpenListener(sockets: sockets, bound: spec.endpoint)
    }

    /// Workers share a port by `SO_REUSEPORT`. A second node of the same user would share it too, and silently take
    /// half of the connections, so a test bind without the option comes first. If one of our own listeners has the port
    /// already, the test can't tell, and is skipped.
    private func requireUnshared(_ spec: ListenerSpec) throws(ListenError) {
        let port = spec.endpoint.port
        guard port != 0, !closingPorts.contains(port), !kept.contains(where: { $0.isOpen && $0.bound.port == port })
        else {
            return
        }
        try ListenerSocket.open(spec, settings: settings, reusePort: false).close()
    }

    /// Closes all sockets, once no worker needs them.
    func closeAll() {
        everyWorkerHasApplied()
        for socket in kept.flatMap(\.sockets) { ListenerSocket.close(socket) }
        kept = []
    }
}

/// The sockets of one listener, one for each worker.
struct OpenListener {
    let sockets: [Descriptor]
    let bound: Endpoint

    func close() { for socket in sockets { ListenerSocket.close(socket) } }
}

/// Numbers of listeners, used again once they are free.
private struct IndexPool {
    private var next = 0
    private var free: [UInt16] = []

    /// Nil: there are 65,536 of them.
    mutating func take() -> UInt16? {
        if let index = free.popLast() { return index }
        guard let index = UInt16(exactly: next) else { return nil }
        next += 1
        return index
    }
    mutating func give(back index: UInt16) { free.append(index) }
}

enum Addresses {
    /// True if a socket can bind to `address`: the machine has it, or allows non-local binds.
    static func isUsable(_ address: IPAddress) -> Bool {
        var at = cl_endpoint(high: address.high, low: address.low, port: 0)
        return cl_can_bind(&at) == 0
    }
}
