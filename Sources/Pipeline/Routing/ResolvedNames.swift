import Pipeline

/// What a change of names' addresses did.
public struct ResolveReport: Sendable {
    /// Sets of backends that were made anew.
    public internal(set) var backendsChanged = 0
    public internal(set) var shardsBuilt = 0
    public internal(set) var shards = 0
}

/// Addresses of the names that routes lead to. They come apart from documents: a change makes the sets anew that have the
/// name, and nothing else (docs/adr/0091).
extension RoutingState {
    /// The names of all routes that are served.
    public var backendNames: Set<BackendName> {
        var names: Set<BackendName> = []
        groups.visit { _, group in
            for spec in group.key.addresses { if let name = spec.name { names.insert(name) } }
        }
        return names
    }

    /// Takes what names have now: from the next apply on for their routes. For those that are served, ``resolve(_:at:)``.
    public func know(_ answers: [BackendName: [ResolvedAddress]]) {
        for (name, addresses) in answers { resolved[name] = addresses.isEmpty ? nil : addresses }
    }

    /// Forgets names that no route leads to.
    public func forgetUnusedNames() {
        guard !resolved.isEmpty else { return }
        let used = backendNames
        resolved = resolved.filter { used.contains($0.key) }
    }

    /// Makes one new table with what these names have now. What stays keeps its cell, and with it health, ejection and
    /// connections; connections to what goes go on, as after a reload.
    /// - Parameter now: what comes starts slowly from now on; nil: nothing does.
    public func resolve(_ answers: [BackendName: [ResolvedAddress]], at now: Instant? = nil) -> ResolveReport {
        let changed = answers.filter { (resolved[$0.key] ?? []) != $0.value }
        var report = ResolveReport()
        guard !changed.isEmpty else { return report }
        let before = resolved
        know(changed)
        var stale: [UInt32] = []
        groups.visit { number, group in
            if group.key.addresses.contains(where: { $0.name.map { changed[$0] != nil } ?? false }) {
                stale.append(number)
            }
        }
        guard !stale.isEmpty else { return report }
        self.now = now
        let run = ApplyRun(self, [])
        for number in stale {
            let box = run.makeBackends(groups[number].key)
            run.startSlowly(box, before)
            if let old = groups.replace(number, box) { store.release(old) }
        }
        TableBuild(run).build()
        report.backendsChanged = stale.count
        report.shardsBuilt = run.report.shardsBuilt
        report.shards = run.report.shards
        return report
    }
}

extension ApplyRun {
    /// The most backends of a set, with all addresses of its names.
    static let backendLimit = 4096

    /// The backends of a config, each name with its addresses; each address once.
    func backends(of key: GroupKey) -> [(backend: BackendSpec, instance: String)] {
        var list: [(backend: BackendSpec, instance: String)] = []
        guard key.addresses.contains(where: { $0.name != nil }) else {
            return key.addresses.map { ($0, $0.endpoint.description) }
        }
        var known: Set<Endpoint> = []
        for spec in key.addresses {
            guard let name = spec.name else {
                if known.insert(spec.endpoint).inserted { list.append((spec, spec.endpoint.description)) }
                continue
            }
            for address in state.resolved[name] ?? [] where list.count < ApplyRun.backendLimit {
                let backend = spec.at(address)
                if known.insert(backend.endpoint).inserted { list.append((backend, spec.place)) }
            }
        }
        return list
    }

    /// The backends that a name has got, where it had others.
    fileprivate func startSlowly(
        _ box: UnsafeMutablePointer<BackendBox>, _ before: [BackendName: [ResolvedAddress]]
    ) {
        guard let now = state.now else { return }
        let old = Set(before.values.joined().map(\.address))
        guard !old.isEmpty else { return }
        for backend in box.pointee.group.backends.buffer {
            let cell = backend.cell
            guard !old.contains(backend.address.endpoint.address), cell.pointee.active.current == 0,
                cell.pointee.connects.load(ordering: .relaxed) == 0
            else { continue }
            cell.pointee.eligibleSince.store(now.nanoseconds, ordering: .relaxed)
        }
    }
}
