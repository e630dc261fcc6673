import Pipeline
import PipelineHost
import PipelineRuntime
import PipelineText

/// Logs changes of route listeners: once when one is degraded, once when it is back. An env's missing IPv4 address is
/// logged once for all its ports (R9).
struct ListenerEvents {
    private var missing: Set<IPAddress> = []
    private var degraded: Set<ListenerKey> = []

    mutating func say(
        _ change: ListenerKeeper.Change, _ keeper: ListenerKeeper, _ log: ControlLog, isStart: Bool = false
    ) {
        sayDegraded(change.degraded, log)
        let restored = change.restored.filter { degraded.remove($0.key) != nil }
        say(restored, "listener_restored", log)
        for listener in change.closed { degraded.remove(listener.key) }
        sayOpened(change.opened, keeper, log, isStart: isStart)
        sayUnmet(change, keeper, log)
        // Addresses that no route uses any more.
        degraded.formIntersection(Set(keeper.kept.map(\.planned.key)))
        missing.formIntersection(Set(keeper.kept.map(\.planned.endpoint.address)))
        if !isStart, !change.closed.isEmpty {
            let closed = change.closed.map(\.endpoint).sorted { ($0.address, $0.port) < ($1.address, $1.port) }
            log.say("listeners_closed") { line in line.list("addresses", EndpointRuns.texts(closed)) { $0.string($1) } }
        }
    }

    /// One line for each run of ports.
    private func say(_ listeners: [PlannedListener], _ event: String, _ log: ControlLog) {
        for run in EndpointRuns.runs(listeners, ListenerEvents.areOne) {
            guard let first = run.first, let last = run.last else { continue }
            log.say(event) { $0.fields(first, through: last) }
        }
    }

    /// Ports of one line.
    private static func areOne(_ one: PlannedListener, _ next: PlannedListener) -> Bool {
        one.endpoint.isNext(to: next.endpoint) && one.origin == next.origin && one.spec.line == next.spec.line
            && one.spec.options == next.spec.options
    }

    private mutating func sayDegraded(_ all: [(listener: PlannedListener, error: ListenError)], _ log: ControlLog) {
        var worth: [(listener: PlannedListener, error: ListenError)] = []
        for (listener, error) in all {
            degraded.insert(listener.key)
            guard case .dedicated(let env) = listener.origin, error.isAddressMissing else {
                worth.append((listener, error))
                continue
            }
            guard missing.insert(listener.endpoint.address).inserted else { continue }
            log.say(
                "ipv4_missing",
                "this node does not have the address: the env's routes on it start when it appears; other routes are "
                    + "not affected"
            ) { line in
                line.fields(env)
                line.field("address", listener.endpoint.address.description)
            }
        }
        let runs = EndpointRuns.runs(worth) {
            ListenerEvents.areOne($0.listener, $1.listener) && $0.error.error == $1.error.error
        }
        for run in runs {
            guard let first = run.first, let last = run.last else { continue }
            log.say("listener_degraded", first.error.description) { $0.fields(first.listener, through: last.listener) }
        }
    }

    private mutating func sayOpened(
        _ listeners: [PlannedListener], _ keeper: ListenerKeeper, _ log: ControlLog, isStart: Bool
    ) {
        var restored: [PlannedListener] = []
        var opened: [PlannedListener] = []
        for listener in listeners {
            let wasDegraded = degraded.remove(listener.key) != nil
            let address = listener.endpoint.address
            if case .dedicated(let env) = listener.origin, missing.contains(address) {
                let isMissing = keeper.kept.contains {
                    $0.planned.endpoint.address == address && $0.degradation?.error.isAddressMissing == true
                }
                guard !isMissing else { continue }
                missing.remove(address)
                log.say("ipv4_restored") { line in
                    line.fields(env)
                    line.field("address", address.description)
                }
            } else if wasDegraded {
                restored.append(listener)
            } else if !isStart {
                opened.append(listener)
            }
        }
        say(restored, "listener_restored", log)
        say(opened, "listener_opened", log)
    }

    // MARK: What the process was given

    /// - Parameters:
    ///   - count: of all sockets.
    ///   - closed: those that no listener took.
    func say(inherited count: Int, _ closed: [InheritedListeners.Closed], _ keeper: ListenerKeeper, _ log: ControlLog) {
        if count > closed.count {
            let endpoints = keeper.kept.filter { $0.sockets.contains(where: keeper.inherited.hasTaken) }.map(\.bound)
            log.say("listeners_inherited") { line in
                line.list("addresses", EndpointRuns.texts(endpoints)) { $0.string($1) }
                line.field("sockets", count - closed.count)
            }
        }
        for one in closed.prefix(ListenerEvents.shownSockets) {
            log.say(
                "inherited_closed",
                "this process was started with a socket that it does not serve: \(one.why)"
                    + (one.socket.isOurs ? "" : "; take it out of the socket unit, which goes on listening")
            ) { line in
                line.field("name", one.socket.name)
                line.field("address", one.socket.endpoint.description)
                line.field("refused", one.refused)
            }
        }
    }

    private static let shownSockets = 20

    // MARK: Settings that this machine does not grant

    private func sayUnmet(_ change: ListenerKeeper.Change, _ keeper: ListenerKeeper, _ log: ControlLog) {
        let new = change.opened + change.tuned
        let without = Set(keeper.kept.filter { $0.isOpen && !$0.isMultipath }.map(\.planned.key))
        say(
            change.opened.filter { $0.spec.options.multipath && without.contains($0.key) }, "multipath_unavailable",
            "this kernel has no Multipath TCP, or `sysctl net.mptcp.enabled` is 0: clients are served by plain TCP", log
        )
        let quick = new.filter { $0.spec.options.fastOpen > 0 }
        if !quick.isEmpty, let mode = KernelSetting.fastOpen.value, mode & 2 == 0 {
            say(
                quick, "fastopen_unavailable",
                "`sysctl net.ipv4.tcp_fastopen` is \(mode), which lets no server take data in a SYN: add 2 to it; clients "
                    + "are served after the whole handshake", log)
        }
        let deep = new.filter { $0.spec.options.backlog != nil }
        if !deep.isEmpty, let most = KernelSetting.backlog.value {
            say(
                deep.filter { ($0.spec.options.backlog ?? 0) > most }, "backlog_capped",
                "`sysctl net.core.somaxconn` caps it at \(most): raise that as well", log)
        }
        say(
            change.untuned, "reload_partial",
            "`backlog` and `fastopen` of these listeners need a restart to take effect", log)
    }

    private func say(_ listeners: [PlannedListener], _ event: String, _ message: String, _ log: ControlLog) {
        guard !listeners.isEmpty else { return }
        log.say(event, message) { line in
            line.list("addresses", EndpointRuns.texts(listeners.map(\.endpoint))) { $0.string($1) }
        }
    }
}

/// A number of /proc/sys.
private enum KernelSetting: String {
    case fastOpen = "/proc/sys/net/ipv4/tcp_fastopen"
    case backlog = "/proc/sys/net/core/somaxconn"

    var value: Int? { Files.lines(rawValue).first.flatMap { Int($0) } }
}

extension JSONLine {
    fileprivate mutating func fields(_ first: PlannedListener, through last: PlannedListener) {
        field("address", EndpointRuns.text(first.endpoint, last.endpoint))
        if let interface = first.spec.options.interface { field("interface", interface) }
        if case .dedicated(let env) = first.origin { fields(env) }
    }
}

extension ListenError {
    var isAddressMissing: Bool { error == ErrorNumber.addressNotAvailable }
}
