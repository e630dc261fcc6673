import Pipeline

/// Instances, and the owners of their addresses (R10, R31).
extension ApplyRun {
    func applyInstances(_ part: Part) {
        let name = Array(state.nodeName.utf8)
        var (records, twins) = name.withUnsafeBufferPointer { readInstances(part, nodeName: $0) }
        for id in part.document.quarantined[.instance] ?? [] where records[id] == nil && twins[id] == nil {
            records[id] = state.instances.records[id]
        }
        settleAddresses(&records, twins, part)
        noteStatusChanges(records)
        if state.groups.isUnused { store.reserveBackends(records.count) }
        let changed =
            scope.map { state.instances.update(records, of: $0.instances) } ?? state.instances.replace(records)
        state.instances.twins =
            scope.map { scope in state.instances.twins.filter { !scope.instances.contains($0.key) } } ?? [:]
        for (id, versions) in twins {
            state.instances.twins[id] = Set(versions.filter { $0.status == .ready }.map(\.address))
        }
        for number in state.groups.numbers(of: changed) {
            let old = state.groups.replace(number, makeBackends(state.groups[number].key))
            if let old { store.release(old) }
            report.backendsChanged += 1
        }
    }

    typealias Record = InstanceTable.Record

    /// The document's instances by id, and all versions of ids that occur twice with different content.
    private func readInstances(
        _ part: Part, nodeName: Bytes
    ) -> (records: [String: Record], twins: [String: [Record]]) {
        let document = part.document
        var records: [String: Record] = [:]
        records.reserveCapacity(document.instances.count)
        var again: [String: [Int]] = [:]
        for (index, object) in document.instances.enumerated() {
            let id = document.string(object.id)
            if (state.envs[part.env(object.env)]?.sources ?? 0) & part.bit == 0 {
                problem(
                    .warning, .instance, id, "env_id", object.place.origin(part.source),
                    "\"\(document.symbol(object.env))\" is not in envs, so the instance gets no connections, and its "
                        + "own traffic has no owner",
                    remedy: "add the env, or remove the instance")
            }
            if records.updateValue(record(object, part, nodeName), forKey: id) != nil {
                again[id, default: []] += [index]
            }
        }
        guard !again.isEmpty else { return (records, [:]) }
        var twins: [String: [Record]] = [:]
        var all: [String: [Int]] = [:]
        for (index, object) in document.instances.enumerated() {
            let id = document.string(object.id)
            if again[id] != nil { all[id, default: []].append(index) }
        }
        for (id, indices) in all.sorted(by: { $0.key < $1.key }) {
            let versions = indices.map { record(document.instances[$0], part, nodeName) }
            let isSame = versions.allSatisfy { $0 == versions[0] }
            let kept = state.instances.records[id]
            for index in isSame ? indices.dropFirst() : indices[...] {
                problemTwice(
                    .instance, id, "instance_id", document.instances[index].place.origin(part.source), isSame: isSame,
                    kept: kept != nil)
            }
            guard !isSame else { continue }
            records[id] = kept
            twins[id] = versions
        }
        return (records, twins)
    }

    func record(_ object: InstanceObject, _ part: Part, _ nodeName: Bytes) -> Record {
        Record(
            pool: pool(object.env, object.processType, part), address: object.address, status: object.status,
            graceSeconds: object.drainGraceSeconds, weight: object.weight, maxConnections: object.maxConnections,
            priority: object.priority,
            isHere: !nodeName.isEmpty && sameBytes(part.document.text.bytes(object.node), nodeName),
            ipv4: object.ipv4, isServing: object.status == .ready, isHolder: false)
    }

    func pool(_ env: UInt32, _ processType: UInt32, _ part: Part) -> PoolKey {
        PoolKey(part.symbols[Int(env)]) << 32 | PoolKey(part.symbols[Int(processType)])
    }

    /// The instances that are decided about, as they were.
    func forEachBefore(_ body: (_ id: String, Record) -> Void) {
        guard let scope else {
            for (id, record) in state.instances.records { body(id, record) }
            return
        }
        for id in scope.instances { if let record = state.instances.records[id] { body(id, record) } }
    }

    // MARK: Owners of addresses

    /// An address of ready instances of two envs stays with its previous owner. Without one it goes to none, since
    /// connections could reach the wrong tenant. Several instances of one env may share an address.
    private func settleAddresses(_ records: inout [String: Record], _ twins: [String: [Record]], _ part: Part) {
        guard !twins.isEmpty || !serveAll(&records, part) else { return coolDown(&records) }
        var claims = AddressClaims()
        claims.reserveCapacity(records.count)
        for (id, record) in records where record.status == .ready {
            if isForsaken(record, twins[id]) { continue }
            // An address without a known env still has an owner: no other env's connections may go there.
            claims.add(record.address, record.env, isKnown(record.env, part) ? .asked : .unclear, had: false)
        }
        for version in twins.values.joined() where version.status == .ready {
            claims.add(version.address, version.env, .unclear, had: false)
        }
        let contested = Set(claims.contested)
        if !contested.isEmpty {
            forEachBefore { _, record in
                guard record.isHolder, pathsBefore[record.env] == nil else { return }
                if contested.contains(record.address) { claims.had(record.address, record.env) }
            }
        }
        var lost: [String] = []
        // By place: an id is not hashed again, and the dictionary not copied.
        var place = records.startIndex
        while place != records.endIndex {
            defer { records.formIndex(after: &place) }
            let (id, record) = records[place]
            guard record.status == .ready else { continue }
            var settled = record
            if isKnown(record.env, part) {
                settled.isServing =
                    isForsaken(record, twins[id])
                    ? record.isHolder && claims.isFree(record.address, for: record.env) : isServing(record, claims)
                settled.isHolder = settled.isServing
                if !settled.isServing { lost.append(id) }
            } else {
                let before = state.instances.records[id]
                settled.isHolder = before.map { $0.isHolder && $0.isAt(record.address, record.env) } ?? false
                settled.isServing = false
            }
            if settled != record { records.values[place] = settled }
        }
        coolDown(&records)
        guard !lost.isEmpty else { return }
        reportLost(lost, records, claims, part)
    }

    /// Where all is decided, and no address is that of two instances, nobody is in anybody's way.
    /// - Returns: false: nothing was changed.
    private func serveAll(_ records: inout [String: Record], _ part: Part) -> Bool {
        guard scope == nil else { return false }
        var sole = SoleAddresses(records.count)
        var envs: Set<UInt32> = []
        for record in records.values where record.status == .ready {
            guard sole.insert(record.address) else { return false }
            envs.insert(record.env)
        }
        guard envs.allSatisfy({ isKnown($0, part) }) else { return false }
        var place = records.startIndex
        while place != records.endIndex {
            if records.values[place].status == .ready {
                (records.values[place].isServing, records.values[place].isHolder) = (true, true)
            }
            records.formIndex(after: &place)
        }
        return true
    }

    /// What is kept of an id with two versions, neither of which is there: it stays only where no other env asks for
    /// the address.
    private func isForsaken(_ record: Record, _ versions: [Record]?) -> Bool {
        versions.map { !$0.contains { $0.isAt(record.address, record.env) } } ?? false
    }

    private func isServing(_ record: Record, _ claims: AddressClaims) -> Bool {
        claims.isSole(record.address, record.env) || claims.winner(record.address) == record.env
    }

    /// True for an env of the document, also for one that can't be read.
    private func isKnown(_ env: UInt32, _ part: Part) -> Bool {
        (state.envs[env]?.sources ?? 0) & part.bit != 0 || unclearEnvs.contains(env)
    }

    private func reportLost(_ lost: [String], _ records: [String: Record], _ claims: AddressClaims, _ part: Part) {
        let isLost = Set(lost)
        var origins: [String: Origin] = [:]
        for object in part.document.instances {
            let id = part.document.string(object.id)
            if isLost.contains(id) { origins[id] = object.place.origin(part.source) }
        }
        for id in lost.sorted(by: { $0.utf8.lexicographicallyPrecedes($1.utf8) }) {
            // Quarantined, and reported already.
            guard let record = records[id], let origin = origins[id] else { continue }
            let own = state.owner(record.env)
            let text: String
            var remedy = "give each its own address, or mark all but one as not ready"
            if let winner = claims.winner(record.address) {
                remedy += ": \(ApplyRun.forgotten)"
                text =
                    "\(record.address) is the address of an instance of \(state.owner(winner)), so \(own) can't have it"
            } else {
                let others = ownerList(claims.envs(record.address).filter { $0 != record.env })
                text =
                    "\(record.address) is also the address of ready instances of \(others), and the owner is unknown, "
                    + "so it is not a backend of \(own)"
            }
            problem(
                .rejected, .instance, id, "overlay_ipv6", origin, text, remedy: remedy)
        }
    }

    // MARK: What changes

    /// Drains to start, drains to cancel, and new backends.
    private func noteStatusChanges(_ records: [String: Record]) {
        let isDraining = { (record: Record) in record.status == .draining }
        guard state.now != nil || !state.drains.list.isEmpty || records.values.contains(where: isDraining) else {
            return
        }
        let before = state.instances.records
        var ready: Set<IPAddress> = []
        for record in records.values where record.isServing { ready.insert(record.address) }
        // An address that another instance has by now is not to be drained under it.
        state.drains.cancel(addresses: ready, store)
        var draining: [IPAddress: UInt32] = [:]
        for (id, record) in records
        where record.status == .draining && before[id]?.status != .draining && !ready.contains(record.address) {
            draining[record.address] = max(draining[record.address] ?? 0, record.graceSeconds)
        }
        // What was draining when the node ended has what is left of its time.
        let endpoints = draining.isEmpty || state.isRestoring ? [] : store.endpoints(of: Set(draining.keys))
        for endpoint in endpoints {
            state.drains.add(
                endpoint, .seconds(draining[endpoint.address] ?? 0), apply: state.applies, at: state.time, store)
        }
        guard state.now != nil else { return }
        var known: Set<IPAddress> = []
        forEachBefore { if $1.isServing { known.insert($1.address) } }
        newlyReady = ready.subtracting(known)
    }

    /// - Parameter cursor: see ``RouteStore/makeBackends(_:_:name:cursor:)``.
    func makeBackends(_ key: GroupKey, cursor: UInt64 = 0) -> UnsafeMutablePointer<BackendBox> {
        guard key.addresses.isEmpty else {
            return store.makeBackends(
                backends(of: key), key,
                name: key.isNamed ? state.symbols.string(UInt32(truncatingIfNeeded: key.pool)) : "", cursor: cursor)
        }
        let ready = state.instances.ready(key.pool)
        let box = store.makeBackends(
            ready.map {
                let endpoint = Endpoint($0.address, key.port)
                let backend = BackendSpec(
                    endpoint, weight: $0.weight, maxConnections: $0.maxConnections, priority: $0.priority)
                return (backend, $0.id)
            }, key, cursor: cursor)
        if let now = state.now, !newlyReady.isEmpty {
            for backend in box.pointee.group.backends.buffer
            where newlyReady.contains(backend.address.endpoint.address) {
                backend.cell.pointee.eligibleSince.store(now.nanoseconds, ordering: .relaxed)
            }
        }
        return box
    }
}

extension InstanceTable.Record {
    fileprivate func isAt(_ address: IPAddress, _ env: UInt32) -> Bool {
        status == .ready && self.address == address && self.env == env
    }
}
