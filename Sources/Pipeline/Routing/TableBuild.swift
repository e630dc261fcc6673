import Pipeline

/// Builds the next table from the last one and the decided changes: unchanged shards are shared, the others rebuilt.
struct TableBuild {
    /// The approximate number of routes in a shard: a change copies this many.
    static let routesPerShard = 128

    let run: ApplyRun
    private let state: RoutingState
    private let store: RouteStore
    private let old: RouteTable

    init(_ run: ApplyRun) {
        self.run = run
        state = run.state
        store = run.store
        old = run.state.snapshot.table.pointee
    }

    func build() {
        forgetRefused()
        let accepted = run.changes
        let changes = accepted.count { store.entry($0.entry).pointee.current != nil }
        run.report.changed = changes
        run.report.added = accepted.count - changes
        run.report.removed = run.removed.count
        state.liveRoutes += run.report.added - run.report.removed
        let bits = TableBuild.bits(for: state.liveRoutes, now: old.shardBits)
        run.report.shards = 1 << Int(bits)
        guard
            bits != old.shardBits || !accepted.isEmpty || !run.removed.isEmpty || !run.refreshed.isEmpty
                || state.addressesChanged || state.directoryChanged
        else {
            return
        }
        relink(accepted)
        let shards = makeShards(bits, accepted)
        settle(accepted)
        var ports: [(port: UInt16, sole: UnsafePointer<TableRoute>?)] = []
        ports.reserveCapacity(state.portUses.count)
        state.portUses.visit { port, sole in
            let route = sole.flatMap { store.entry($0).pointee.current }
            ports.append((port, route.flatMap { $0.pointee.isConditional ? nil : $0 }))
        }
        let table = RouteTable(
            seed: state.seed, shardBits: bits, shards: shards, ports: RouteTable.makePorts(ports),
            patterns: state.portUses.patterns, hasConditions: state.portUses.conditional > 0,
            dedicated: makeDedicated())
        state.addressesChanged = false
        state.directoryChanged = false
        state.snapshot = RouteTableSnapshot(
            store: store, table: table, routeCount: state.liveRoutes, directory: state.directory)
    }

    /// R9. The cost depends only on routes with a dedicated address.
    private func makeDedicated() -> DedicatedTable {
        var slots = state.envs.values.compactMap { record in
            record.ipv4.map { DedicatedTable.Slot(Endpoint($0, 0), owner: record.owner, sole: nil) }
        }
        guard !slots.isEmpty else { return DedicatedTable([]) }
        var index: [Endpoint: Int] = [:]
        for entry in state.ipv4Routes {
            guard let route = store.entry(entry).pointee.current,
                let record = state.envs[state.groups[route.pointee.group].key.env], let address = record.ipv4
            else { continue }
            let endpoint = Endpoint(address, route.pointee.route.port)
            if let known = index[endpoint] {
                slots[known] = DedicatedTable.Slot(endpoint, owner: record.owner, sole: nil)
            } else {
                index[endpoint] = slots.count
                slots.append(
                    DedicatedTable.Slot(
                        endpoint, owner: record.owner, sole: route.pointee.isConditional ? nil : route))
            }
        }
        return DedicatedTable(slots)
    }

    /// Twice as many shards when they get too full, fewer only when they are nearly empty.
    static func bits(for routes: Int, now: UInt64) -> UInt64 {
        var bits = now
        while bits < 24, routes >> Int(bits) > routesPerShard * 2 { bits += 1 }
        while bits > 0, routes >> Int(bits) < routesPerShard / 8 { bits -= 1 }
        return bits
    }

    /// Frees the entries of new routes that were refused. Entries that change stay marked until then.
    private func forgetRefused() {
        for version in run.versions {
            let entry = store.entry(version.entry)
            // Of two objects with one id, the first time.
            guard entry.pointee.candidate != 0, !entry.pointee.isFree else { continue }
            if entry.pointee.current == nil, !entry.pointee.isServed {
                let id = run.id(of: version.entry)
                state.ids.remove(SipHash.hash(id, domain: 3, seed: state.seed), version.entry)
                entry.pointee.isLive = false
            }
            entry.pointee.candidate = 0
            entry.pointee.isServed = false
            store.freeIfUnused(version.entry)
        }
        for change in run.changes { store.entry(change.entry).pointee.candidate = 1 }
    }

    /// Puts accepted routes into the lists of their groups, and takes removed ones out of everything.
    private func relink(_ accepted: [ApplyRun.Change]) {
        for candidate in accepted {
            if let current = store.entry(candidate.entry).pointee.current {
                state.portUses.remove(
                    candidate.entry, port: current.pointee.route.port, current.pointee.options, current.pointee.name,
                    isConditional: current.pointee.isConditional)
                state.groups.unlink(candidate.entry, from: current.pointee.group, store)
                run.touchedGroups.insert(current.pointee.group)
                noteRaw(candidate.entry, current.pointee.options, current.pointee.name, isServed: false)
            }
            noteRaw(candidate.entry, candidate.options, name(candidate), isServed: true)
            state.groups.link(candidate.entry, to: candidate.group, store)
            state.portUses.add(
                candidate.entry, port: port(candidate), candidate.options, name(candidate),
                isConditional: candidate.options.contains(.byClient) || !alpn(candidate).isEmpty)
            if candidate.options.contains(.ipv4Required) {
                state.ipv4Routes.insert(candidate.entry)
            } else if !state.ipv4Routes.isEmpty {
                state.ipv4Routes.remove(candidate.entry)
            }
        }
        for number in run.removed {
            guard let current = store.entry(number).pointee.current else { continue }
            state.ipv4Routes.remove(number)
            noteRaw(number, current.pointee.options, current.pointee.name, isServed: false)
            state.portUses.remove(
                number, port: current.pointee.route.port, current.pointee.options, current.pointee.name,
                isConditional: current.pointee.isConditional)
            state.drains.add(
                removed: number, id: current.pointee.route.id.string, current.pointee.options.onDelete,
                apply: state.applies, store)
            state.groups.unlink(number, from: current.pointee.group, store)
            run.touchedGroups.insert(current.pointee.group)
            let hash = SipHash.hash(run.id(of: number), domain: 3, seed: state.seed)
            state.ids.remove(hash, number)
            store.entry(number).pointee.isLive = false
        }
    }

    private func noteRaw(_ entry: UInt32, _ options: RouteOptions, _ name: Bytes, isServed: Bool) {
        guard options.contains(.raw), !name.isEmpty else { return }
        let key = NameKey(name, options.nameKind)
        if isServed {
            state.namedRaw[key, default: []].insert(entry)
        } else {
            state.namedRaw[key]?.remove(entry)
            if state.namedRaw[key]?.isEmpty ?? false { state.namedRaw[key] = nil }
        }
    }

    /// True if the record is still what its entry is served by.
    private func survives(_ route: TableRoute) -> Bool {
        let entry = store.entry(route.entry)
        return entry.pointee.isLive && entry.pointee.candidate == 0
    }

    private func hash(_ route: TableRoute) -> UInt64 {
        RouteTable.hash(route.name, KeyKind(route.options), port: route.route.port, seed: state.seed)
    }

    private func item(_ route: TableRoute) -> ShardItem {
        ShardItem(
            name: route.name, alpn: route.alpn, options: route.options, port: route.route.port,
            entry: route.entry, group: route.group, maxConnections: route.route.maxConnections, hash: hash(route))
    }

    private func item(_ change: ApplyRun.Change) -> ShardItem {
        guard let index = change.version else {
            guard let current = store.entry(change.entry).pointee.current?.pointee else {
                preconditionFailure("what stays is there")
            }
            return ShardItem(
                name: current.name, alpn: current.alpn, options: change.options, port: current.route.port,
                entry: change.entry, group: change.group, maxConnections: current.route.maxConnections,
                hash: change.hash)
        }
        let object = run.object(run.versions[index])
        let document = run.document(run.versions[index])
        return ShardItem(
            name: document.text.bytes(object.name), alpn: document.alpn(object), options: change.options,
            port: object.port,
            entry: change.entry, group: change.group, maxConnections: object.maxConnections, hash: change.hash)
    }

    private func port(_ change: ApplyRun.Change) -> UInt16 {
        guard let index = change.version else {
            return store.entry(change.entry).pointee.current?.pointee.route.port ?? 0
        }
        return run.parts[Int(run.versions[index].part)].document.routes[Int(run.versions[index].object)].port
    }

    private func name(_ change: ApplyRun.Change) -> Bytes {
        guard let index = change.version else {
            return store.entry(change.entry).pointee.current?.pointee.name ?? Bytes(start: nil, count: 0)
        }
        let (part, object) = (Int(run.versions[index].part), Int(run.versions[index].object))
        return run.parts[part].document.text.bytes(run.parts[part].document.routes[object].name)
    }

    private func alpn(_ change: ApplyRun.Change) -> Bytes {
        guard let index = change.version else {
            return store.entry(change.entry).pointee.current?.pointee.alpn ?? Bytes(start: nil, count: 0)
        }
        return run.document(run.versions[index]).alpn(run.object(run.versions[index]))
    }

    private func makeShards(
        _ bits: UInt64, _ accepted: [ApplyRun.Change]
    ) -> UnsafeMutableBufferPointer<RouteShard.Pointer> {
        let count = 1 << Int(bits)
        if state.snapshot.routeCount == 0, accepted.count >= BulkShards.least {
            let shards = UnsafeMutableBufferPointer<RouteShard.Pointer>.allocate(capacity: count)
            _ = shards.initialize(from: BulkShards(run).make(bits, item: item))
            run.report.shardsBuilt += count
            return shards
        }
        let isResharding = bits != old.shardBits
        var isDirty = [Bool](repeating: isResharding, count: count)
        // Every item that can't be found in its shard's predecessor, by shard.
        var moved = Buckets(count: count)
        if !isResharding { markOld(&isDirty, accepted) }
        for candidate in accepted { isDirty[RouteTable.shard(of: candidate.hash, bits: bits)] = true }
        moved.fill { put in
            for (index, candidate) in accepted.enumerated() {
                put(RouteTable.shard(of: candidate.hash, bits: bits), .candidate(index))
            }
            guard isResharding else { return }
            for shard in old.shards {
                for index in 0..<shard.pointee.count where survives(shard.pointee.all[index]) {
                    let route = shard.pointee.all.baseAddress.unsafelyUnwrapped + index
                    put(RouteTable.shard(of: hash(route.pointee), bits: bits), .route(route))
                }
            }
        }
        let shards = UnsafeMutableBufferPointer<RouteShard.Pointer>.allocate(capacity: count)
        var items: [ShardItem] = []
        for number in 0..<count {
            guard isDirty[number] else {
                shards.initializeElement(at: number, to: old.shards[number])
                continue
            }
            items.removeAll(keepingCapacity: true)
            if !isResharding {
                for route in old.shards[number].pointee.all where survives(route) { items.append(item(route)) }
            }
            moved.forEach(number) {
                switch $0 {
                case .candidate(let index): items.append(item(accepted[index]))
                case .route(let route): items.append(item(route.pointee))
                }
            }
            shards.initializeElement(at: number, to: makeShard(items))
            run.report.shardsBuilt += 1
        }
        return shards
    }

    /// The shards that lose or refresh a route.
    private func markOld(_ isDirty: inout [Bool], _ accepted: [ApplyRun.Change]) {
        for list in [run.removed, run.refreshed, accepted.map(\.entry)] {
            for number in list {
                guard let current = store.entry(number).pointee.current else { continue }
                isDirty[RouteTable.shard(of: hash(current.pointee), bits: old.shardBits)] = true
            }
        }
    }

    private func makeShard(_ items: [ShardItem]) -> RouteShard.Pointer {
        store.makeShard(
            items,
            owner: { item in
                let env = state.groups[item.group].key.env
                guard let record = state.envs[env] else {
                    preconditionFailure("an env is kept for as long as a group names it")
                }
                return record.box
            },
            backends: { item in
                guard let box = state.groups[item.group].box else {
                    preconditionFailure("a group is kept for as long as it has a route")
                }
                return box
            })
    }

    private func settle(_ accepted: [ApplyRun.Change]) {
        for change in accepted {
            let entry = store.entry(change.entry)
            entry.pointee.candidate = 0
            guard let index = change.version else { continue }
            let (part, object) = (Int(run.versions[index].part), Int(run.versions[index].object))
            entry.pointee.place = run.parts[part].document.routes[object].place
            entry.pointee.source = run.parts[part].document.source
        }
        for number in run.removed { store.entry(number).pointee.current = nil }
    }
}

/// Things sorted into buckets: counted first, then placed, in two arrays whatever the number of buckets.
private struct Buckets {
    enum Element {
        case candidate(Int)
        case route(UnsafePointer<TableRoute>)
    }
    private var starts: [Int]
    private var elements: [Element] = []

    init(count: Int) { starts = Array(repeating: 0, count: count + 1) }

    /// `each` is called twice, and must put the same both times.
    mutating func fill(_ each: (_ put: (Int, Element) -> Void) -> Void) {
        each { bucket, _ in starts[bucket + 1] += 1 }
        for index in 1..<starts.count { starts[index] += starts[index - 1] }
        var next = starts
        elements = Array(repeating: .candidate(0), count: starts[starts.count - 1])
        each { bucket, element in
            elements[next[bucket]] = element
            next[bucket] += 1
        }
    }

    func forEach(_ bucket: Int, _ body: (Element) -> Void) {
        for index in starts[bucket]..<starts[bucket + 1] { body(elements[index]) }
    }
}
