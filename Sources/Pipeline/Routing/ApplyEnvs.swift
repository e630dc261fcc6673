import Pipeline

/// Envs, and their dedicated addresses (R9).
extension ApplyRun {
    func applyEnvs() {
        let decided = scope.map { Array($0.envs) } ?? Array(state.envs.keys)
        // Those of the document before that this one says nothing about.
        if scope != nil || part(of: .state) == nil {
            unclearEnvs = state.unclearEnvs.subtracting(scope?.envs ?? [])
            twinEnvs = state.twinEnvs.subtracting(scope?.envs ?? [])
        }
        defer { (state.unclearEnvs, state.twinEnvs) = (unclearEnvs, twinEnvs) }
        var before: [UInt32: UInt8] = [:]
        before.reserveCapacity(decided.count)
        for env in decided {
            guard let sources = state.envs[env]?.sources else { continue }
            before[env] = sources
            for part in parts { state.envs[env]?.sources &= ~part.bit }
        }
        var changed: Set<UInt32> = []
        for part in parts {
            applyEnvs(part, before, &changed)
            // R24: one that can't be read is not gone.
            for id in part.document.quarantined[.env] ?? [] { keep(id, part, before) }
        }
        if let part = part(of: .state) {
            for env in decided where (state.envs[env]?.sources ?? 0) & part.bit == 0 {
                state.envs[env]?.isSuspended = false
                state.envs[env]?.isWithdrawn = false
            }
        }
        guard !changed.isEmpty else { return }
        for number in state.groups.numbers(ofEnvs: changed) { state.groups.renew(number) }
        // Dedicated addresses have their owners, too.
        if changed.contains(where: { state.envs[$0]?.ipv4 != nil }) { state.addressesChanged = true }
    }

    private func keep(_ id: String, _ part: Part, _ before: [UInt32: UInt8]) {
        let bytes = Array(id.utf8)
        guard let env = bytes.withUnsafeBufferPointer({ state.symbols.intern($0) }) else { return }
        keep(env, part, before)
    }

    private func keep(_ env: UInt32, _ part: Part, _ before: [UInt32: UInt8]) {
        if (before[env] ?? state.envs[env]?.sources ?? 0) & part.bit != 0 {
            state.envs[env]?.sources |= part.bit
        } else {
            unclearEnvs.insert(env)
        }
    }

    private func applyEnvs(_ part: Part, _ before: [UInt32: UInt8], _ changed: inout Set<UInt32>) {
        let objects = part.document.envs
        var firsts: [UInt32: Int] = [:]
        firsts.reserveCapacity(objects.count)
        var twins: [UInt32: [Int]] = [:]
        for (index, object) in objects.enumerated() {
            // No number left for its id: the env stays unknown, and its routes without owner.
            let env = part.env(object.env)
            guard env != RouteEntry.none else { continue }
            if let first = firsts[env] { twins[env, default: [first]].append(index) } else { firsts[env] = index }
        }
        for (env, all) in twins.sorted(by: { state.symbols.string($0.key) < state.symbols.string($1.key) }) {
            let isSame = all.allSatisfy { isAlike(objects[$0], objects[all[0]], part.document) }
            let kept = (before[env] ?? state.envs[env]?.sources ?? 0) & part.bit != 0
            for index in isSame ? all.dropFirst() : all[...] {
                problemTwice(
                    .env, state.symbols.string(env), "env_id", objects[index].place.origin(part.source),
                    isSame: isSame, kept: kept)
            }
            guard !isSame else { continue }
            firsts[env] = nil
            if part.source == .state { twinEnvs.insert(env) }
            keep(env, part, before)
        }
        for (env, index) in firsts where scope?.envs.contains(env) ?? true {
            apply(objects[index], env, part, &changed)
        }
    }

    private func isAlike(_ one: EnvObject, _ other: EnvObject, _ document: StateDocument) -> Bool {
        one.ipv4 == other.ipv4 && one.suspended == other.suspended && one.withdrawn == other.withdrawn
            && sameBytes(document.text.bytes(one.org), document.text.bytes(other.org))
            && sameBytes(document.text.bytes(one.app), document.text.bytes(other.app))
    }

    private func apply(_ object: EnvObject, _ env: UInt32, _ part: Part, _ changed: inout Set<UInt32>) {
        let document = part.document
        let (org, app) = (document.string(object.org), document.string(object.app))
        let name = document.string(object.name)
        guard var known = state.envs[env] else {
            let box = store.makeOwner(org: org, app: app, env: name, state.tenant(env, org: org))
            var record = RoutingState.EnvRecord(org: org, app: app, name: name, sources: part.bit, box: box)
            (record.isSuspended, record.isWithdrawn) = (object.suspended, object.withdrawn)
            state.envs[env] = record
            return
        }
        if part.source == .state { (known.isSuspended, known.isWithdrawn) = (object.suspended, object.withdrawn) }
        // The other source's version stays while it has the env.
        if known.sources & ~part.bit == 0, known.org != org || known.app != app || known.name != name {
            if part.source == .state { pathsBefore[env] = state.ownerPath(env) }
            store.release(known.box)
            known.box = store.makeOwner(org: org, app: app, env: name, state.tenant(env, org: org))
            (known.org, known.app, known.name) = (org, app, name)
            changed.insert(env)
        }
        known.sources |= part.bit
        state.envs[env] = known
    }

    // MARK: Addresses

    /// R9: assigns each env the address that it claims. The previous owner keeps it; without one, a contested address
    /// goes to none. A refused env keeps its old address, unless another env has it now.
    func assignAddresses(_ part: Part) {
        state.ipv4Wishes = Set(part.document.envs.filter { $0.ipv4 != nil }.map { part.env($0.env) })
        var wishes = AddressClaims()
        var asking: [(env: UInt32, address: IPAddress, origin: Origin)] = []
        let objects = part.document.envs
        var isNamed: Set<UInt32> = []
        for object in objects {
            let env = part.env(object.env)
            let isUsable = (state.envs[env]?.sources ?? 0) & part.bit != 0
            guard isUsable || unclearEnvs.contains(env) else { continue }
            isNamed.insert(env)
            guard let address = object.ipv4 else { continue }
            let had =
                pathsBefore[env] == nil && state.envs[env]?.ipv4 == address || state.restoredIPv4[env] == address
            let isClear = isUsable && !twinEnvs.contains(env)
            wishes.add(address, env, isClear || had ? .asked : .unclear, had: had)
            if isClear { asking.append((env, address, object.place.origin(part.source))) }
        }
        for (env, record) in state.envs where !isNamed.contains(env) && record.sources & part.bit != 0 {
            if let address = record.ipv4 { wishes.add(address, env, .asked, had: true) }
        }
        state.disputedIPv4 = Set(wishes.disputed)
        var granted: [UInt32: IPAddress] = [:]
        wishes.forEachWinner { granted[$1] = $0 }
        let cooled = coolDown(&granted)
        let refused = asking.filter { granted[$0.env] != $0.address }
        for (env, record) in state.envs where granted[env] == nil && isNamed.contains(env) {
            guard let old = record.ipv4, wishes.winner(old) == nil, pathsBefore[env] == nil else { continue }
            if refused.contains(where: { $0.env == env }) || twinEnvs.contains(env) { granted[env] = old }
        }
        for (env, address, origin) in refused where !cooled.contains(env) {
            report(env, refused: address, wishes, origin)
        }
        for address in granted.values where state.cooldowns.has(address) { state.cooldowns.take(address) }
        for env in Array(state.envs.keys) where state.envs[env]?.ipv4 != granted[env] {
            state.envs[env]?.ipv4 = granted[env]
            state.addressesChanged = true
        }
    }

    private func report(_ env: UInt32, refused address: IPAddress, _ wishes: AddressClaims, _ origin: Origin) {
        let own = state.owner(env)
        let text: String
        var remedy = "change one of the two addresses"
        if let winner = wishes.winner(address) {
            remedy += ": \(ApplyRun.forgotten)"
            text = "\(address) is the address of \(state.owner(winner)), so \(own) can't have it"
        } else {
            let others = ownerList(wishes.envs(address).filter { $0 != env })
            text = "\(address) is also claimed by \(others), and the owner is unknown, so \(own) can't have it"
        }
        problem(
            .rejected, .env, state.symbols.string(env), "ipv4_address", origin, text, remedy: remedy)
    }

    /// `acme/shop/prod`, or a few of them by name and the number of the others.
    func ownerList(_ envs: [UInt32]) -> String {
        let limit = 3
        let names = Set(envs).map { state.owner($0) }.sorted()
        let rest = names.count - min(names.count, limit)
        return names.prefix(limit).joined(separator: ", ") + (rest > 0 ? " and \(rest) more" : "")
    }
}
