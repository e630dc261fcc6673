import Pipeline

/// One apply of one document, from what it says to the changes that the rules allow. ``TableBuild`` makes the table.
final class ApplyRun {
    /// A new or changed route that wants in.
    struct Candidate {
        /// Index into the document's routes.
        let object: UInt32
        let entry: UInt32
        let group: UInt32
        let hash: UInt64
        var isAccepted = false
        /// The version before keeps its claim until this one is accepted.
        var holdsOld = false
    }

    let state: RoutingState
    let store: RouteStore
    let document: StateDocument
    var report = ApplyReport()
    var candidates: [Candidate] = []
    var removed: [UInt32] = []
    /// The document's symbols in the state's numbering.
    private(set) var symbols: [UInt32] = []
    /// Groups that may have lost or never had a route.
    var touchedGroups: Set<UInt32> = []
    /// Routes that stay as they are but for their backends or owner.
    var refreshed: [UInt32] = []
    /// Ids of routes that break a rule and have no entry to be known by.
    private var refusedIDs: Set<String> = []
    /// Addresses that became ready with this apply: they start slowly, if a stage says so.
    private var newlyReady: Set<IPAddress> = []

    init(_ state: RoutingState, _ document: StateDocument) {
        self.state = state
        self.store = state.store
        self.document = document
    }

    func run() -> ApplyReport {
        symbols = (0..<UInt32(document.symbols.count)).map {
            state.symbols.intern(document.symbols.bytes($0)) ?? RouteEntry.none
        }
        applyEnvs()
        if document.source == .state {
            applyInstances()
            assignSources()
        }
        collectCandidates()
        collectRemoved()
        resolve()
        TableBuild(self).build()
        forgetUnused()
        state.applies += 1
        report.drains = state.drains.list
        return report
    }

    func problem(
        _ severity: RouteProblem.Severity, _ object: RouteProblem.Object, _ id: String, _ field: String?,
        _ place: Place,
        _ text: String, remedy: String
    ) {
        report.problems.add(
            RouteProblem(
                severity, object, id: id, field: field, origin: place.origin(document.source), text, remedy: remedy))
    }

    // MARK: Envs

    private func applyEnvs() {
        let bit = document.source.rawValue + 1
        var seen: Set<UInt32> = []
        var changedEnvs: Set<UInt32> = []
        for object in document.envs {
            let env = symbols[Int(object.env)]
            let (org, app) = (document.string(object.org), document.string(object.app))
            let name = document.string(object.name)
            // No number left for its id: the env stays unknown, and its routes without owner.
            guard env != RouteEntry.none else { continue }
            guard seen.insert(env).inserted else {
                problem(
                    .rejected, .env, state.symbols.string(env), "env_id", object.place,
                    "is there twice; the first is used",
                    remedy: "remove one of them")
                continue
            }
            if var known = state.envs[env] {
                // The other source's word stands while it has the env.
                let isOurs = known.sources & ~bit == 0
                if isOurs, known.org != org || known.app != app || known.name != name {
                    store.release(known.box)
                    known.box = store.makeOwner(org: org, app: app, env: name)
                    (known.org, known.app, known.name) = (org, app, name)
                    changedEnvs.insert(env)
                }
                known.sources |= bit
                state.envs[env] = known
            } else {
                let box = store.makeOwner(org: org, app: app, env: name)
                state.envs[env] = RoutingState.EnvRecord(org: org, app: app, name: name, sources: bit, box: box)
            }
        }
        let quarantined = document.quarantined[.env] ?? []
        for env in state.envs.keys where !seen.contains(env) && !quarantined.contains(state.symbols.string(env)) {
            state.envs[env]?.sources &= ~bit
        }
        if document.source == .state { assignAddresses() }
        guard !changedEnvs.isEmpty else { return }
        state.groups.visit { _, group in if changedEnvs.contains(group.key.env) { refresh(group) } }
    }

    private func refresh(_ group: GroupTable.Group) {
        var entry = group.head
        while entry != RouteEntry.none {
            refreshed.append(entry)
            entry = store.entry(entry).pointee.nextInGroup
        }
    }

    // MARK: Instances

    private func applyInstances() {
        let name = Array(state.nodeName.utf8)
        name.withUnsafeBufferPointer { applyInstances(nodeName: $0) }
    }

    private func applyInstances(nodeName: Bytes) {
        var records: [String: InstanceTable.Record] = [:]
        records.reserveCapacity(document.instances.count)
        for object in document.instances {
            let id = document.string(object.id)
            guard records[id] == nil else {
                problem(
                    .rejected, .instance, id, "instance_id", object.place, "is there twice; the first is used",
                    remedy: "remove one of them")
                continue
            }
            let env = symbols[Int(object.env)]
            if (state.envs[env]?.sources ?? 0) & 2 == 0 {
                problem(
                    .warning, .instance, id, "env_id", object.place,
                    "\"\(document.symbol(object.env))\" is not in envs", remedy: "add the env, or remove the instance")
            }
            records[id] = InstanceTable.Record(
                pool: pool(object.env, object.processType), address: object.address, status: object.status,
                graceSeconds: object.drainGraceSeconds, weight: object.weight, maxConnections: object.maxConnections,
                isHere: !nodeName.isEmpty && sameBytes(document.text.bytes(object.node), nodeName), ipv4: object.ipv4)
        }
        for id in document.quarantined[.instance] ?? [] where records[id] == nil {
            records[id] = state.instances.records[id]
        }
        noteStatusChanges(records)
        let changed = state.instances.replace(records)
        guard !changed.isEmpty else { return }
        var stale: [UInt32] = []
        state.groups.visit { number, group in
            if group.key.addresses.isEmpty, changed.contains(group.key.pool) { stale.append(number) }
        }
        for number in stale {
            if let old = state.groups[number].box { store.release(old) }
            state.groups[number].box = makeBackends(state.groups[number].key)
            report.backendsChanged += 1
            refresh(state.groups[number])
        }
    }

    /// Who has to let go of its connections, who needn't any more, and who starts.
    private func noteStatusChanges(_ records: [String: InstanceTable.Record]) {
        let before = state.instances.records
        var ready: Set<IPAddress> = []
        for record in records.values where record.status == .ready { ready.insert(record.address) }
        // An address that another instance has by now is not to be drained under it.
        state.drains.cancel(addresses: ready, store)
        var draining: [IPAddress: UInt32] = [:]
        for (id, record) in records
        where record.status == .draining && before[id]?.status != .draining && !ready.contains(record.address) {
            draining[record.address] = max(draining[record.address] ?? 0, record.graceSeconds)
        }
        for endpoint in draining.isEmpty ? [] : store.endpoints(of: Set(draining.keys)) {
            state.drains.add(endpoint, seconds: draining[endpoint.address] ?? 0, apply: state.applies, store)
        }
        guard state.now != nil else { return }
        var known: Set<IPAddress> = []
        for record in before.values where record.status == .ready { known.insert(record.address) }
        newlyReady = ready.subtracting(known)
    }

    private func pool(_ env: UInt32, _ processType: UInt32) -> PoolKey {
        PoolKey(symbols[Int(env)]) << 32 | PoolKey(symbols[Int(processType)])
    }

    private func makeBackends(_ key: GroupKey) -> UnsafeMutablePointer<BackendBox> {
        guard key.addresses.isEmpty else {
            return store.makeBackends(key.addresses.map { ($0, $0.endpoint.description) }, isHashed: key.isHashed)
        }
        let ready = state.instances.ready(key.pool)
        let box = store.makeBackends(
            ready.map {
                let endpoint = Endpoint($0.address, key.port)
                return (BackendSpec(endpoint, weight: $0.weight, maxConnections: $0.maxConnections), $0.id)
            }, isHashed: key.isHashed)
        if let now = state.now, !newlyReady.isEmpty {
            for backend in box.pointee.group.backends.buffer
            where newlyReady.contains(backend.address.endpoint.address) {
                backend.cell.pointee.eligibleSince.store(now.nanoseconds, ordering: .relaxed)
            }
        }
        return box
    }

    // MARK: Routes

    private func collectCandidates() {
        for index in document.routes.indices { collect(index) }
    }

    private func collect(_ index: Int) {
        let object = document.routes[index]
        let id = document.text.bytes(object.id)
        let idHash = SipHash.hash(id, domain: 3, seed: state.seed)
        let known = state.ids.find(idHash) { sameBytes(self.id(of: $0), id) }
        if let known, store.entry(known).pointee.isSeen || store.entry(known).pointee.source != document.source {
            let other = store.entry(known).pointee.source == document.source ? "" : " in the other source of routes"
            problem(
                .rejected, .route, document.string(object.id), "route_id", object.place,
                "is there twice; the first\(other) is used", remedy: "give one of them another id")
            return
        }
        if let known { store.entry(known).pointee.isSeen = true }
        // Which of two with one id counts must not depend on what was applied before.
        guard known != nil || refusedIDs.isEmpty || !refusedIDs.contains(document.string(object.id)) else {
            problem(
                .rejected, .route, document.string(object.id), "route_id", object.place,
                "is there twice; only the first counts, and that is rejected", remedy: "give one of them another id")
            return
        }
        guard admit(object) else {
            if let known { keepOrDrop(known) } else { refusedIDs.insert(document.string(object.id)) }
            return
        }
        let group = self.group(object)
        if let known, isSame(known, object, group: group) {
            store.entry(known).pointee.place = object.place
            report.unchanged += 1
            return
        }
        let entry = known ?? store.makeEntry(id: document.text.bytes(object.id))
        if known == nil {
            store.entry(entry).pointee.isSeen = true
            store.entry(entry).pointee.source = document.source
            state.ids.insert(idHash, entry)
        }
        let kind = KeyKind(object.options)
        let hash = RouteTable.hash(document.text.bytes(object.name), kind, port: object.port, seed: state.seed)
        candidates.append(Candidate(object: UInt32(index), entry: entry, group: group, hash: hash))
        store.entry(entry).pointee.candidate = UInt32(candidates.count)
    }

    /// True if the route keeps the rules that concern it alone; else says which it breaks.
    private func admit(_ object: RouteObject) -> Bool {
        if let fault = state.rules.fault(object.options, port: object.port, hasName: object.name.length > 0) {
            problem(
                .rejected, .route, document.string(object.id), fault.field, object.place, fault.problem,
                remedy: fault.remedy)
            return false
        }
        let hasIPv4 = state.envs[symbols[Int(object.env)]]?.ipv4 != nil
        for fault in state.rules.warnings(object.options, port: object.port, hasIPv4: hasIPv4) {
            problem(
                .warning, .route, document.string(object.id), fault.field, object.place, fault.problem,
                remedy: fault.remedy)
        }
        let env = symbols[Int(object.env)]
        guard let record = state.envs[env], record.sources & (document.source.rawValue + 1) != 0 else {
            problem(
                .rejected, .route, document.string(object.id), "env_id", object.place,
                "\"\(document.symbol(object.env))\" is not in envs, so nobody owns the route",
                remedy: "add the env, or name another")
            return false
        }
        return true
    }

    /// The route has no usable new version: it stays as it is (R24), unless that breaks a rule by now as well.
    private func keepOrDrop(_ entry: UInt32) {
        guard let current = store.entry(entry).pointee.current?.pointee else { return }
        let fault = state.rules.fault(
            current.options, port: current.route.port, hasName: current.nameLength > 0)
        if fault == nil {
            report.kept += 1
        } else {
            store.entry(entry).pointee.isSeen = false
        }
    }

    private func group(_ object: RouteObject) -> UInt32 {
        let addresses = object.backendList > 0 ? document.backendLists[Int(object.backendList) - 1] : []
        let key = GroupKey(
            pool: pool(object.env, object.processType), port: object.backendPort, addresses: addresses,
            isHashed: object.options.balance.map { $0 == .consistentHash } ?? state.hashesByDefault)
        let number = state.groups.number(key) { makeBackends(key) }
        if state.groups[number].head == RouteEntry.none { touchedGroups.insert(number) }
        return number
    }

    private func isSame(_ entry: UInt32, _ object: RouteObject, group: UInt32) -> Bool {
        guard let current = store.entry(entry).pointee.current else { return false }
        return current.pointee.route.port == object.port && current.pointee.options == object.options
            && current.pointee.group == group && current.pointee.route.maxConnections == object.maxConnections
            && sameBytes(current.pointee.name, document.text.bytes(object.name))
    }

    /// The source's routes that its document has no more.
    private func collectRemoved() {
        let quarantined = document.quarantined[.route] ?? []
        for shard in state.snapshot.table.pointee.shards {
            for route in shard.pointee.all {
                let entry = store.entry(route.entry)
                guard entry.pointee.source == document.source else { continue }
                if entry.pointee.isSeen {
                    entry.pointee.isSeen = false
                } else if !quarantined.isEmpty, quarantined.contains(route.route.id.string) {
                    report.kept += 1
                } else {
                    removed.append(route.entry)
                }
            }
        }
        for candidate in candidates { store.entry(candidate.entry).pointee.isSeen = false }
    }

    /// The id by which an entry is known, from whichever version there is.
    func id(of entry: UInt32) -> Bytes {
        if let current = store.entry(entry).pointee.current { return current.pointee.route.id.buffer }
        let candidate = candidates[Int(store.entry(entry).pointee.candidate) - 1]
        return document.text.bytes(document.routes[Int(candidate.object)].id)
    }

    private func forgetUnused() {
        for number in touchedGroups where state.groups[number].head == RouteEntry.none {
            if let box = state.groups.remove(number) { store.release(box) }
        }
        guard state.envs.values.contains(where: { $0.sources == 0 }) else { return }
        var used: Set<UInt32> = []
        state.groups.visit { _, group in used.insert(group.key.env) }
        for (env, record) in state.envs where record.sources == 0 && !used.contains(env) {
            store.release(record.box)
            state.envs[env] = nil
        }
    }
}
