import Pipeline

/// One instance of this node in an apply: its identity and its addresses (R19).
struct LocalInstance: Equatable {
    var id: String
    var env: String
    var app: String
    var org: String
    var overlay: IPAddress
    var ipv4: IPAddress?
    var tenant = TenantNumbers.unknown
    /// R30.
    var isSuspended = false

    var addresses: [IPAddress] { [overlay] + (ipv4.map { [$0] } ?? []) }
}

/// A directory with the memory behind it, shared by the snapshots between two changes of it.
final class InstanceDirectoryBox {
    let directory: InstanceDirectory
    private let identities: [UnsafeMutablePointer<InstanceIdentity>]
    private let store: RouteStore

    init(_ instances: [LocalInstance], _ store: RouteStore, number: (LocalInstance) -> UInt32) {
        self.store = store
        identities = instances.map { store.makeIdentity($0, number: number($0)) }
        var addresses: [(address: IPAddress, identity: Int)] = []
        for (index, instance) in instances.enumerated() {
            for address in instance.addresses { addresses.append((address, index)) }
        }
        directory = InstanceDirectory(identities.map { UnsafePointer($0) }, addresses: addresses)
    }

    deinit {
        for identity in identities { store.release(identity) }
        directory.deallocate()
    }
}

/// Numbers for identities (instance, env, app, org), never reused: counters and flow records refer to instances by
/// them, across snapshots. Grows with the instances that this node ever had, about 200 bytes each.
struct InstanceNumbers {
    private struct Key: Hashable {
        let id: String
        let env: String
        let app: String
        let org: String
    }
    private var numbers: [Key: UInt32] = [:]

    mutating func number(_ instance: LocalInstance) -> UInt32 {
        let key = Key(id: instance.id, env: instance.env, app: instance.app, org: instance.org)
        if let known = numbers[key] { return known }
        let next = UInt32(clamping: numbers.count)
        // Past four billion instances identities are "unknown", which is better than wrong.
        guard next < InstanceIdentity.unknown else { return InstanceIdentity.unknown }
        numbers[key] = next
        return next
    }
}

extension InstanceStatus {
    /// A finished instance has no address any more: its traffic belongs to another.
    var hasAddress: Bool { self != .stopped && self != .failed }
}

extension ApplyRun {
    /// Makes a new directory of the node's instances if they are others than before.
    func assignSources(_ part: Part) {
        var found: [LocalInstance] = []
        // An instance without a known env keeps its address, so that no other instance is mistaken for it.
        var strangers: Set<String> = []
        for id in state.instances.here {
            guard let record = state.instances.records[id], record.status.hasAddress else { continue }
            let env = state.envs[record.env].flatMap { $0.sources & part.bit == 0 ? nil : $0 }
            if env == nil { strangers.insert(id) }
            found.append(
                LocalInstance(
                    id: id, env: env?.name ?? "", app: env?.app ?? "", org: env?.org ?? "", overlay: record.address,
                    ipv4: record.ipv4, tenant: env.map { state.tenant(record.env, org: $0.org) } ?? .unknown,
                    isSuspended: env != nil && state.suspension.envs.contains(record.env)))
        }
        found.sort { $0.id.utf8.lexicographicallyPrecedes($1.id.utf8) }
        removeShared(&found)
        found.removeAll { strangers.contains($0.id) }
        guard found != state.localInstances else { return }
        state.localInstances = found
        state.directory = InstanceDirectoryBox(found, state.store) { state.instanceNumbers.number($0) }
        state.directoryChanged = true
        state.hasOtherInstances = true
    }

    /// An address of two instances proves nothing, and belongs to none.
    private func removeShared(_ instances: inout [LocalInstance]) {
        var holders: [IPAddress: [String]] = [:]
        for instance in instances {
            for address in instance.addresses { holders[address, default: []].append(instance.id) }
        }
        let shared = holders.filter { $0.value.count > 1 }.sorted { $0.key < $1.key }
        guard !shared.isEmpty else { return }
        for (address, ids) in shared {
            let problem = RouteProblem(
                .warning, .instance, id: ids[1], field: address.isIPv4 ? "ipv4" : "overlay_ipv6",
                "\(address) is also the address of \(ids[0]) on this node: its traffic has no owner",
                remedy: "change one of the two addresses")
            report.problems.add(problem)
        }
        let bad = Set(shared.map(\.key))
        instances = instances.compactMap { instance in
            guard !bad.contains(instance.overlay) else { return nil }
            var kept = instance
            if let ipv4 = kept.ipv4, bad.contains(ipv4) { kept.ipv4 = nil }
            return kept
        }
    }
}
