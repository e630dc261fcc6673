import Pipeline

/// Envs that come, go or are renamed, and instances: what else they reach.
extension ChangeClosure {
    mutating func findEnvs() {
        scope.orgs = change.orgs
        // R30: identities say whether they are suspended.
        if !change.orgs.isEmpty || !change.envs.isEmpty, !state.instances.here.isEmpty { scope.assignsSources = true }
        for (env, objects) in change.envs {
            let known = state.envs[env]
            scope.envs.insert(env)
            if known?.ipv4 != nil || state.ipv4Wishes.contains(env) || objects.contains(where: { $0.ipv4 != nil }) {
                scope.assignsAddresses = true
            }
            let isThere = (known?.sources ?? 0) & StateDocument.Source.state.bit != 0
            let isSame = isThere && objects.count == 1 && objects[0].identity == known?.identity
            if !isSame { reach(env: env, objects) }
        }
    }

    /// Its routes and instances get an owner, or lose theirs.
    private mutating func reach(env: UInt32, _ objects: [ReadChange.Env]) {
        // Owners of `route` blocks are joined with envs of documents by their path, as whole documents are read.
        let identities = objects.map(\.identity) + [state.envs[env]?.identity].compactMap { $0 }
        if identities.contains(where: { state.hasConfigEnv($0) }) { isTooWide = true }
        state.groups.visit { number, group in
            guard group.key.env == env else { return }
            state.groups.entries(number, state.store).visit { entry in
                add(entry: entry, .full)
                return true
            }
        }
        for id in state.unserved.ids(of: env) { add(route: id) }
        for name in state.pathNames { reach(name, .full) }
        ownersOfEntriesMayChange = ownersOfEntriesMayChange || !state.pathNames.isEmpty
        changedEnvs.insert(env)
    }

    /// All at the addresses that some of the change's instances have or had.
    mutating func findInstances() {
        var addresses: Set<IPAddress> = []
        // R31: who waits for them may have them now.
        for address in state.monotonic.map({ state.cooldowns.over(at: $0) }) ?? [] {
            if address.isIPv4 { scope.assignsAddresses = true } else { addresses.insert(address) }
        }
        for (id, objects) in change.instances {
            scope.instances.insert(id)
            for object in objects where object.status == .ready { addresses.insert(object.address) }
            addresses.formUnion(state.instances.twins[id] ?? [])
            if objects.contains(where: \.isHere) { scope.assignsSources = true }
        }
        if !changedEnvs.isEmpty {
            for (id, record) in state.instances.records where changedEnvs.contains(record.env) {
                scope.instances.insert(id)
            }
        }
        for id in scope.instances {
            guard let record = state.instances.records[id] else { continue }
            if record.status == .ready { addresses.insert(record.address) }
            if record.isHere { scope.assignsSources = true }
        }
        reachTwins(&addresses)
        for address in addresses { scope.instances.formUnion(state.instances.ready(at: address)) }
    }

    /// Ids of several objects keep an address, or ask for several.
    private mutating func reachTwins(_ addresses: inout Set<IPAddress>) {
        var isMore = true
        while isMore {
            isMore = false
            for (id, asked) in state.instances.twins {
                let all = asked.union(state.instances.records[id].map { [$0.address] } ?? [])
                guard scope.instances.contains(id) || !all.isDisjoint(with: addresses) else { continue }
                let isNew = scope.instances.insert(id).inserted
                guard isNew || !all.isSubset(of: addresses) else { continue }
                addresses.formUnion(all)
                isMore = true
            }
        }
    }
}
