import Pipeline

/// One instance of this node, as an apply found it: who it is, and the addresses that are its own (R19).
struct LocalInstance: Equatable {
    var id: String
    var env: String
    var app: String
    var org: String
    var overlay: IPAddress
    var ipv4: IPAddress?

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

/// Numbers for identities, each for one (instance, env, app, org), never given to another: what counters and flow
/// records name an instance by, whichever snapshot they came from. Grows with the instances that this node ever had,
/// about 200 bytes each.
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
        // Past four billion instances nobody is told apart any more, which is better than taken for another.
        guard next < InstanceIdentity.unknown else { return InstanceIdentity.unknown }
        numbers[key] = next
        return next
    }
}

extension InstanceStatus {
    /// An instance that is over has no address any more: what comes from it is somebody else's.
    var hasAddress: Bool { self != .stopped && self != .failed }
}

extension ApplyRun {
    /// Makes a new directory of the node's instances if they are others than before.
    func assignSources(_ part: Part) {
        var found: [LocalInstance] = []
        // One whose env is not there has its address all the same: so that no other can be taken for it.
        var strangers: Set<String> = []
        for (id, record) in state.instances.records where record.isHere && record.status.hasAddress {
            let env = state.envs[record.env].flatMap { $0.sources & part.bit == 0 ? nil : $0 }
            if env == nil { strangers.insert(id) }
            found.append(
                LocalInstance(
                    id: id, env: env?.name ?? "", app: env?.app ?? "", org: env?.org ?? "", overlay: record.address,
                    ipv4: record.ipv4))
        }
        found.sort { $0.id.utf8.lexicographicallyPrecedes($1.id.utf8) }
        removeShared(&found)
        found.removeAll { strangers.contains($0.id) }
        guard found != state.localInstances else { return }
        state.localInstances = found
        state.directory = InstanceDirectoryBox(found, state.store) { state.instanceNumbers.number($0) }
        state.directoryChanged = true
    }

    /// An address that two instances have proves nothing: nobody has it.
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
                "\(address) is also the address of \(ids[0]) on this node: what comes from it is nobody's",
                remedy: "give one of the two another address")
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
