import Pipeline
import Synchronization

/// The names for instance numbers of flow records. Numbers are never reused, so that records in flight keep their names
/// after a change.
///
/// Threading: the control thread updates, the flows thread asks.
package final class FlowDirectory: Sendable {
    private struct Names {
        var current: [UInt32: FlowNames] = [:]
        var before: [UInt32: FlowNames] = [:]
        var numbers: [IPAddress: UInt32] = [:]
        var addresses: [UInt32: [IPAddress]] = [:]
    }
    private let names = Mutex(Names())

    package init() {}

    package func update(_ instances: InstanceDirectory) {
        var new: [UInt32: FlowNames] = [:]
        for identity in instances.identities {
            new[identity.pointee.number] = FlowNames(
                instance: identity.pointee.id.string, env: identity.pointee.env.string,
                app: identity.pointee.app.string, org: identity.pointee.org.string)
        }
        let current = new
        let numbers = Dictionary(instances.addresses.map { ($0.address, $0.number) }) { first, _ in first }
        let addresses = Dictionary(grouping: instances.addresses, by: \.number).mapValues { found in
            found.map(\.address).sorted { $0.isIPv4 == $1.isIPv4 ? $0 < $1 : $1.isIPv4 }
        }
        names.withLock {
            $0 = Names(current: current, before: $0.current, numbers: numbers, addresses: addresses)
        }
    }

    /// Its addresses, IPv6 first; none if it is no longer here.
    package func addresses(of number: UInt32) -> [IPAddress] { names.withLock { $0.addresses[number] ?? [] } }

    /// The instance with this address; nil: none of this node.
    package func number(of address: IPAddress) -> UInt32? { names.withLock { $0.numbers[address] } }

    /// A source without an instance is named by its address.
    package func find(_ number: UInt32, _ source: IPAddress) -> FlowNames {
        names.withLock { $0.current[number] ?? $0.before[number] } ?? FlowNames(instance: "\(source)")
    }
}
