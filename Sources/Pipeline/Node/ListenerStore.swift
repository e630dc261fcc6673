import CLinux
import Glibc
import Pipeline
import PipelineRuntime
import PipelineText

/// Has the service manager keep this node's listening sockets (systemd's descriptor store, or the keeper of `run --keep`):
/// after a crash the next process takes them with the connections in their queues, and nobody is refused.
///
/// It compares what is stored with what is open, and tells the manager the difference. A manager that does not listen is
/// tried again; no call takes longer than a quarter of a second.
///
/// Threading: the control thread. Ownership: none; the manager gets copies.
package final class ListenerStore {
    private let manager: ServiceManager
    /// Names by the descriptor that has them here.
    private var stored: [Descriptor: String] = [:]
    /// Names of sockets that are gone, which the manager has not been told.
    private var gone: [String] = []
    /// The service manager's own, which it passes to each process anyhow.
    private var notOurs: Set<Descriptor> = []
    private var hasFailed = false
    /// When what the manager did not take is told again; nil: it knows all.
    private(set) var nextRetry: Instant?
    /// Sockets that the manager was given.
    package var count: Int { stored.count }

    private static let retryInterval = TimeSpan.seconds(5)
    private static let prefix = "listener/"

    /// Nil: no service manager asked for messages.
    /// - Parameter inherited: what comes from a store has its name there already.
    init?(_ manager: ServiceManager, _ kept: [ListenerKeeper.Kept], _ inherited: InheritedListeners) {
        guard manager.isThere else { return nil }
        self.manager = manager
        for descriptor in kept.flatMap(\.sockets) {
            if inherited.isManagers(descriptor) {
                notOurs.insert(descriptor)
            } else if let name = inherited.name(of: descriptor) {
                stored[descriptor] = name
            }
        }
    }

    /// A node gives such names.
    static func isOurs(_ name: String) -> Bool { name.hasPrefix(prefix) }

    /// Without a colon, which a name can't have, and with a number that tells sockets of one endpoint apart.
    static func name(_ endpoint: Endpoint, _ number: Int) -> String {
        prefix + "\(endpoint)".replacing(":", with: ".") + "/\(number)"
    }

    /// Tells the manager what has changed.
    func follow(_ kept: [ListenerKeeper.Kept], _ now: Instant, _ log: ControlLog) {
        let open = Set(kept.flatMap(\.sockets))
        notOurs.formIntersection(open)
        for (descriptor, name) in stored where !open.contains(descriptor) {
            stored[descriptor] = nil
            gone.append(name)
        }
        nextRetry = nil
        while let name = gone.last {
            guard take(manager.remove(name), now, log) else { return }
            gone.removeLast()
        }
        var names = Set(stored.values)
        for listener in kept {
            var number = 0
            for descriptor in listener.sockets where stored[descriptor] == nil && !notOurs.contains(descriptor) {
                while names.contains(ListenerStore.name(listener.bound, number)) { number += 1 }
                let name = ListenerStore.name(listener.bound, number)
                guard take(manager.store(descriptor, name), now, log) else { return }
                stored[descriptor] = name
                names.insert(name)
            }
        }
        hasFailed = false
    }

    /// - Returns: false: not now.
    private func take(_ failed: Int32, _ now: Instant, _ log: ControlLog) -> Bool {
        guard failed < 0 else { return true }
        nextRetry = now + ListenerStore.retryInterval
        if !hasFailed {
            log.say(
                "store_failed",
                "the service manager does not take the listening sockets (\(String(cString: cl_error_name(-failed)))): a "
                    + "crash refuses newcomers until the next process listens; trying again")
        }
        hasFailed = true
        return false
    }

    /// systemd 254 and newer says in `FDSTORE` how many descriptors it keeps, and drops what comes beyond that.
    func sayRoom(_ log: ControlLog) {
        guard let limit = getenv("FDSTORE").flatMap({ Int(String(cString: $0)) }), limit < count else { return }
        log.say(
            "store_small",
            "the service manager keeps \(limit) descriptors, and this node has \(count) listening sockets: a crash refuses "
                + "newcomers at the others; raise FileDescriptorStoreMax= in the unit")
    }
}
