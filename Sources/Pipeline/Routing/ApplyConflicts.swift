import Pipeline

/// Who gets what, among what is applied and what wants in (R4, R5, R8).
extension ApplyRun {
    /// After this many attempts the cautious way is taken, which always ends.
    private static let hopefulPasses = 3

    /// Decides on every candidate.
    ///
    /// The document's own order would be enough, but for routes that change and are refused: these keep what they had
    /// (R24), which another one may have been given by then. So: first let all changed routes go of their claims at
    /// once, which is what makes two routes able to swap names. If that leaves one without its new claim and unsure of
    /// its old, take everything back and try again with that one holding on to what it has. After a few rounds all
    /// changed routes hold on, each until its new claim is granted; then nobody can lose.
    func resolve() {
        watchWildcards()
        defer { state.claims.stopWatching() }
        for entry in removed { unclaim(entry) }
        var pass = 0
        while true {
            let isCautious = pass >= ApplyRun.hopefulPasses
            for index in candidates.indices where isChange(index) {
                if isCautious { candidates[index].holdsOld = true }
                if !candidates[index].holdsOld { unclaim(candidates[index].entry) }
            }
            for index in candidates.indices { consider(index) }
            let losers = candidates.indices.filter {
                isChange($0) && !candidates[$0].isAccepted && !candidates[$0].holdsOld
            }
            if losers.isEmpty { break }
            takeBack()
            for index in losers { candidates[index].holdsOld = true }
            pass += 1
        }
        retry()
        report(refused: candidates.indices.filter { !candidates[$0].isAccepted })
    }

    /// What was refused because of a claim that has been given up since gets in now. Both directions in turn, because
    /// chains of such routes run either way; bounded (R27), because they can also be braided.
    private func retry() {
        for round in 0..<ApplyRun.retries {
            var progress = false
            let order = round % 2 == 0 ? Array(candidates.indices.reversed()) : Array(candidates.indices)
            for index in order where !candidates[index].isAccepted && consider(index) { progress = true }
            if !progress { return }
        }
    }
    private static let retries = 16

    private func isChange(_ index: Int) -> Bool { store.entry(candidates[index].entry).pointee.current != nil }

    /// Grants a candidate its claim if nothing stands in its way.
    @discardableResult private func consider(_ index: Int) -> Bool {
        let candidate = candidates[index]
        let wanted = claim(candidate)
        let held = store.entry(candidate.entry).pointee.hasClaim ? candidate.entry : nil
        guard state.claims.conflict(of: wanted, except: held, look) == nil else { return false }
        if held != nil { unclaim(candidate.entry) }
        state.claims.add(candidate.entry, wanted)
        store.entry(candidate.entry).pointee.hasClaim = true
        store.entry(candidate.entry).pointee.claimsCandidate = true
        candidates[index].isAccepted = true
        return true
    }

    /// Undoes a pass: every candidate is out, and every changed route has again what it had.
    private func takeBack() {
        for index in candidates.indices where candidates[index].isAccepted {
            unclaim(candidates[index].entry)
            candidates[index].isAccepted = false
        }
        for index in candidates.indices where isChange(index) {
            let entry = candidates[index].entry
            guard !store.entry(entry).pointee.hasClaim else { continue }
            state.claims.add(entry, look(entry))
            store.entry(entry).pointee.hasClaim = true
        }
    }

    private func unclaim(_ entry: UInt32) {
        guard store.entry(entry).pointee.hasClaim else { return }
        state.claims.remove(entry, look(entry))
        store.entry(entry).pointee.hasClaim = false
        store.entry(entry).pointee.claimsCandidate = false
    }

    // MARK: Claims

    private func claim(_ candidate: Candidate) -> Claim {
        let object = document.routes[Int(candidate.object)]
        return Claim(
            name: document.text.bytes(object.name), kind: KeyKind(object.options), port: object.port,
            env: state.groups[candidate.group].key.env, hash: candidate.hash)
    }

    /// What an entry claims at this moment.
    private func look(_ entry: UInt32) -> Claim {
        let known = store.entry(entry)
        if known.pointee.claimsCandidate { return claim(candidates[Int(known.pointee.candidate) - 1]) }
        guard let current = known.pointee.current else {
            return Claim(name: Bytes(start: nil, count: 0), kind: .raw, port: 0, env: RouteEntry.none, hash: 0)
        }
        return claim(current)
    }

    private func claim(_ current: UnsafePointer<TableRoute>) -> Claim {
        let kind = KeyKind(current.pointee.options)
        let (name, port) = (current.pointee.name, current.pointee.route.port)
        return Claim(
            name: name, kind: kind, port: port, env: state.groups[current.pointee.group].key.env,
            hash: RouteTable.hash(name, kind, port: port, seed: state.seed))
    }

    /// Names below the wildcards that want in have to be counted once.
    private func watchWildcards() {
        let wildcards = candidates.filter {
            document.routes[Int($0.object)].options.intersection([.wildcard, .raw]) == .wildcard
        }
        guard !wildcards.isEmpty else { return }
        state.claims.startWatching(wildcards.map(\.hash))
        for shard in state.snapshot.table.pointee.shards {
            for index in 0..<shard.pointee.count {
                guard let base = shard.pointee.all.baseAddress else { continue }
                state.claims.watch(claim(base + index))
            }
        }
    }

    // MARK: Refusals

    private func report(refused: [Int]) {
        for index in refused {
            let candidate = candidates[index]
            let object = document.routes[Int(candidate.object)]
            if isChange(index) { report.kept += 1 }
            // Texts cost; those beyond the limit would not be kept.
            guard report.problems.hasRoom else {
                problem(.rejected, .route, "", nil, object.place, "", remedy: "")
                continue
            }
            let held = store.entry(candidate.entry).pointee.hasClaim ? candidate.entry : nil
            let wanted = claim(candidate)
            let conflict = state.claims.conflict(of: wanted, except: held, look)
            let text =
                conflict.map { describe($0, object, env: wanted.env) }
                ?? (
                    field: "hostname", problem: "waits for what other routes of this change gave up",
                    remedy: "apply the document again"
                )
            problem(
                .rejected, .route, document.string(object.id), text.field, object.place, text.problem,
                remedy: text.remedy)
        }
    }

    private func describe(
        _ conflict: Conflict, _ object: RouteObject, env: UInt32
    ) -> (field: String, problem: String, remedy: String) {
        let name = document.hostname(object) ?? ""
        let own = state.owner(env)
        func other(_ entry: UInt32) -> String { "\(state.owner(look(entry).env)) (route \"\(routeName(entry))\")" }
        switch conflict {
        case .name(let entry):
            return (
                "hostname", "\"\(name)\" belongs to \(other(entry)), so \(own) can't have it",
                "use another name, or remove it from its owner first"
            )
        case .underWildcard(let entry):
            return (
                "hostname", "\"\(name)\" is under the wildcard of \(other(entry)), so \(own) can't have it",
                "use another name, or remove the wildcard from its owner first"
            )
        case .overNames(let owner):
            return (
                "hostname", "\"\(name)\" would take names of \(state.owner(owner)), so \(own) can't have it",
                "name each host instead, or remove those of the other owner first"
            )
        case .samePort(let entry):
            return (
                "listen_port", "\"\(name)\" has a route at port \(object.port) already: \"\(routeName(entry))\"",
                "remove one of the two, or use another port"
            )
        case .portIsRaw(let entry):
            return (
                "listen_port", "port \(object.port) is taken whole by the raw route of \(other(entry))",
                "use another port"
            )
        case .portHasNames(let entry, let count):
            let others = entry.map { other($0) } ?? "\(count) routes"
            return (
                "listen_port", "port \(object.port) is used by name by \(others); a raw route needs a port of its own",
                "use another port"
            )
        case .tooManyPorts:
            return (
                "listen_port", "\"\(name)\" has routes at \(Claims.portsPerName) ports, which is the most",
                "remove one of them first"
            )
        }
    }

    private func routeName(_ entry: UInt32) -> String { String(decoding: id(of: entry), as: UTF8.self) }
}
