import Pipeline
import PipelineRuntime
import PipelineText

/// Logs changes of route listeners: once when one is degraded, once when it is back. An env's missing IPv4 address is
/// logged once for all its ports (R9).
struct ListenerEvents {
    private var missing: Set<IPAddress> = []
    private var degraded: Set<Endpoint> = []

    mutating func say(
        _ change: ListenerKeeper.Change, _ keeper: ListenerKeeper, _ log: ControlLog, isStart: Bool = false
    ) {
        for (listener, error) in change.degraded { sayDegraded(listener, error, log) }
        for listener in change.restored where degraded.remove(listener.endpoint) != nil {
            log.say("listener_restored") { $0.field("address", listener.endpoint.description) }
        }
        for listener in change.closed { forget(listener.endpoint) }
        for listener in change.opened { sayOpened(listener, keeper, log, isStart: isStart) }
        // Addresses that no route uses any more.
        let wanted = Set(keeper.kept.map(\.planned.endpoint))
        degraded.formIntersection(wanted)
        missing.formIntersection(Set(wanted.map(\.address)))
        if !isStart, !change.closed.isEmpty {
            log.say("listeners_closed") { line in
                line.list("addresses", change.closed) { $0.string($1.endpoint.description) }
            }
        }
    }

    private mutating func forget(_ endpoint: Endpoint) { degraded.remove(endpoint) }

    private mutating func sayDegraded(_ listener: PlannedListener, _ error: ListenError, _ log: ControlLog) {
        degraded.insert(listener.endpoint)
        if case .dedicated(let env) = listener.origin, error.isAddressMissing {
            guard missing.insert(listener.endpoint.address).inserted else { return }
            log.say(
                "ipv4_missing",
                "this node does not have the address: the env's routes on it start when it appears; other routes are "
                    + "not affected"
            ) { line in
                line.fields(env)
                line.field("address", listener.endpoint.address.description)
            }
            return
        }
        log.say("listener_degraded", error.description) { line in
            line.field("address", listener.endpoint.description)
            if case .dedicated(let env) = listener.origin { line.fields(env) }
        }
    }

    private mutating func sayOpened(
        _ listener: PlannedListener, _ keeper: ListenerKeeper, _ log: ControlLog, isStart: Bool
    ) {
        let wasDegraded = degraded.remove(listener.endpoint) != nil
        let address = listener.endpoint.address
        if case .dedicated(let env) = listener.origin, missing.contains(address) {
            let isMissing = keeper.kept.contains {
                $0.planned.endpoint.address == address && $0.degradation?.error.isAddressMissing == true
            }
            guard !isMissing else { return }
            missing.remove(address)
            log.say("ipv4_restored") { line in
                line.fields(env)
                line.field("address", address.description)
            }
        } else if wasDegraded {
            log.say("listener_restored") { $0.field("address", listener.endpoint.description) }
        } else if !isStart {
            log.say("listener_opened") { line in
                line.field("address", listener.endpoint.description)
                if case .dedicated(let env) = listener.origin { line.fields(env) }
            }
        }
    }
}

extension ListenError {
    var isAddressMissing: Bool { error == ErrorNumber.addressNotAvailable }
}
