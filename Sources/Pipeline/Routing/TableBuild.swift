import Pipeline

/// Builds the next table from the last one and the decided changes: what is as it was is shared (shards, chunks of groups),
/// the rest made anew.
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
        relink(accepted)
        run.forgetGroups()
        let isOfRoutes =
            bits != old.shardBits || !accepted.isEmpty || !run.removed.isEmpty || state.addressesChanged
            || run.mapped != nil
        guard isOfRoutes || state.groups.hasStale || state.directoryChanged || state.suspension.hasChanged else {
            return
        }
        let last = state.snapshot
        let groups = state.groups.hasStale ? last.groups.with(state) : last.groups
        let routes = isOfRoutes ? makeRoutes(bits, accepted) : last.routes
        state.addressesChanged = false
        state.directoryChanged = false
        state.suspension.hasChanged = false
        state.snapshot = RouteTableSnapshot(
            store: store, seed: state.seed, routes: routes, groups: groups, routeCount: state.liveRoutes,
            patterns: state.portUses.patterns, hasConditions: state.portUses.conditional > 0,
            directory: state.directory, suspended: state.suspension.list)
    }

    private func makeRoutes(_ bits: UInt64, _ accepted: [ApplyRun.Change]) -> RouteDirectory {
        let shards = makeShards(bits, accepted)
        settle(accepted)
        var ports: [(port: UInt16, sole: UnsafePointer<TableRoute>?)] = []
        ports.reserveCapacity(state.portUses.count)
        state.portUses.visit { port, sole in
            let route = sole.flatMap { store.entry($0).pointee.current }
            ports.append((port, route.flatMap { $0.pointee.isConditional ? nil : $0 }))
        }
        return RouteDirectory(
            shards, RouteTable.makePorts(ports), makeDedicated(),
            owners: state.envs.values.filter { $0.ipv4 != nil }.map(\.box), store)
    }

    /// R9. The cost depends only on routes with a dedicated address.
    private func makeDedicated() -> DedicatedTable {
        var slots = state.envs.values.compactMap { record in
            record.ipv4.map { DedicatedTable.Slot(Endpoint($0, 0), owner: record.owner, sole: nil) }
        }
        // Who came to an address that its env has lost since is not served as at everybody's addresses.
        let taken = Set(state.envs.values.compactMap(\.ipv4))
        slots += state.coolingIPv4.filter { !taken.contains($0) }.map {
            DedicatedTable.Slot(Endpoint($0, 0), owner: nil, sole: nil)
        }
        guard !slots.isEmpty else { return DedicatedTable([]) }
        var index: [Endpoint: Int] = [:]
        for entry in state.ipv4Routes {
            guard let route = store.entry(entry).pointee.current,
                let record = state.envs[state.groups[route.pointee.group].key.env], let address = record.ipv4
            else { continue }
            let endpoint = Endpoint(address, route.pointee.port)
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
                noteWithdrawn(candidate, current)
                state.portUses.remove(
                    candidate.entry, port: current.pointee.port, current.pointee.options, current.name,
                    isConditional: current.pointee.isConditional)
                state.groups.unlink(current, store)
                run.touchedGroups.insert(current.pointee.group)
                noteRaw(candidate.entry, current.pointee.options, current.name, isServed: false)
            }
            noteRaw(candidate.entry, candidate.options, name(candidate), isServed: true)
            let use = RouteUse(port: port(candidate), candidate.options)
            state.groups.link(candidate.entry, to: candidate.group, use, store)
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
            noteRaw(number, current.pointee.options, current.name, isServed: false)
            state.portUses.remove(
                number, port: current.pointee.port, current.pointee.options, current.name,
                isConditional: current.pointee.isConditional)
            // At a start it was removed before.
            if run.mapped == nil {
                state.drains.add(
                    removed: number, id: state.routeID(current), current.pointee.options.onDelete,
                    apply: state.applies, store)
            }
            state.groups.unlink(current, store)
            run.touchedGroups.insert(current.pointee.group)
            let hash = SipHash.hash(run.id(of: number), domain: 3, seed: state.seed)
            state.ids.remove(hash, number)
            store.entry(number).pointee.isLive = false
        }
    }

    /// Connections of a route that is withdrawn end as if it were removed; those that are left when it is back go on.
    private func noteWithdrawn(_ change: ApplyRun.Change, _ current: UnsafePointer<TableRoute>) {
        let (was, now) = (current.pointee.options.contains(.withdrawn), change.options.contains(.withdrawn))
        guard was != now else { return }
        guard now else { return state.drains.cancel(entry: change.entry, store) }
        state.drains.add(
            removed: change.entry, id: state.routeID(current), change.options.onDelete, apply: state.applies, store)
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
    private func survives(_ route: UnsafePointer<TableRoute>) -> Bool {
        let entry = store.entry(route.pointee.entry)
        return entry.pointee.isLive && entry.pointee.candidate == 0
    }

    private func hash(_ route: UnsafePointer<TableRoute>) -> UInt64 {
        RouteTable.hash(route.name, KeyKind(route.pointee.options), port: route.pointee.port, seed: state.seed)
    }

    private func item(_ route: UnsafePointer<TableRoute>) -> ShardItem {
        let record = route.pointee
        return ShardItem(
            name: route.name, alpn: route.alpn, options: record.options, port: record.port, entry: record.entry,
            group: record.group, maxConnections: record.maxConnections, isShared: record.isShared, hash: hash(route))
    }

    private func item(_ change: ApplyRun.Change) -> ShardItem {
        guard let index = change.version else {
            guard let current = store.entry(change.entry).pointee.current else {
                preconditionFailure("what stays is there")
            }
            return ShardItem(
                name: current.name, alpn: current.alpn, options: change.options, port: current.pointee.port,
                entry: change.entry, group: change.group, maxConnections: current.pointee.maxConnections,
                isShared: current.pointee.isShared, hash: change.hash)
        }
        let object = run.object(run.versions[index])
        let document = run.document(run.versions[index])
        return ShardItem(
            name: document.text.bytes(object.name), alpn: document.alpn(object), options: change.options,
            port: object.port, entry: change.entry, group: change.group, maxConnections: object.maxConnections,
            isShared: store.sharedCell(change.entry) != nil, hash: change.hash)
    }

    private func port(_ change: ApplyRun.Change) -> UInt16 {
        guard let index = change.version else {
            return store.entry(change.entry).pointee.current?.pointee.port ?? 0
        }
        return run.parts[Int(run.versions[index].part)].document.routes[Int(run.versions[index].object)].port
    }

    private func name(_ change: ApplyRun.Change) -> Bytes {
        guard let index = change.version else {
            return store.entry(change.entry).pointee.current?.name ?? Bytes(start: nil, count: 0)
        }
        let (part, object) = (Int(run.versions[index].part), Int(run.versions[index].object))
        return run.parts[part].document.text.bytes(run.parts[part].document.routes[object].name)
    }

    private func alpn(_ change: ApplyRun.Change) -> Bytes {
        guard let index = change.version else {
            return store.entry(change.entry).pointee.current?.alpn ?? Bytes(start: nil, count: 0)
        }
        return run.document(run.versions[index]).alpn(run.object(run.versions[index]))
    }

    private func makeShards(_ bits: UInt64, _ accepted: [ApplyRun.Change]) -> ShardList {
        bits == old.shardBits ? makeSomeShards(accepted) : makeAllShards(bits, accepted)
    }

    /// Those that lose, get or refresh a route. The cost is theirs, and that of a list of all.
    private func makeSomeShards(_ accepted: [ApplyRun.Change]) -> ShardList {
        let place = { RouteTable.shard(of: $0, bits: old.shardBits) }
        var places = Set(accepted.map { place($0.hash) })
        for list in [run.removed, accepted.map(\.entry)] {
            for number in list {
                if let current = store.entry(number).pointee.current { places.insert(place(hash(current))) }
            }
        }
        let dirty = places.sorted()
        let numbers = Dictionary(uniqueKeysWithValues: dirty.enumerated().map { ($1, $0) })
        var moved = Buckets(count: dirty.count)
        moved.fill { put in
            for (index, candidate) in accepted.enumerated() {
                if let number = numbers[place(candidate.hash)] { put(number, .candidate(index)) }
            }
        }
        var items: [ShardItem] = []
        let made = dirty.enumerated().map { number, place in
            items.removeAll(keepingCapacity: true)
            old.shards[place].visit { if survives($0) { items.append(item($0)) } }
            add(moved, number, accepted, to: &items)
            return (place, makeShard(items))
        }
        return state.snapshot.routes.shards.with(made)
    }

    private func makeAllShards(_ bits: UInt64, _ accepted: [ApplyRun.Change]) -> ShardList {
        let count = 1 << Int(bits)
        if state.snapshot.routeCount == 0, accepted.count >= BulkShards.least {
            let shards = UnsafeMutableBufferPointer<RouteShard.Pointer>.allocate(capacity: count)
            _ = shards.initialize(from: BulkShards(run).make(bits, item: item))
            run.report.shardsBuilt += count
            return ShardList(shards, store)
        }
        var moved = Buckets(count: count)
        moved.fill { put in
            for (index, candidate) in accepted.enumerated() {
                put(RouteTable.shard(of: candidate.hash, bits: bits), .candidate(index))
            }
            for shard in old.shards {
                shard.visit { if survives($0) { put(RouteTable.shard(of: hash($0), bits: bits), .route($0)) } }
            }
        }
        let shards = UnsafeMutableBufferPointer<RouteShard.Pointer>.allocate(capacity: count)
        var items: [ShardItem] = []
        for number in 0..<count {
            items.removeAll(keepingCapacity: true)
            add(moved, number, accepted, to: &items)
            shards.initializeElement(at: number, to: makeShard(items))
        }
        return ShardList(shards, store)
    }

    private func add(_ moved: Buckets, _ number: Int, _ accepted: [ApplyRun.Change], to items: inout [ShardItem]) {
        moved.forEach(number) {
            switch $0 {
            case .candidate(let index): items.append(item(accepted[index]))
            case .route(let route): items.append(item(route))
            }
        }
    }

    private func makeShard(_ items: [ShardItem]) -> RouteShard.Pointer {
        run.report.shardsBuilt += 1
        return store.makeShard(items)
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
