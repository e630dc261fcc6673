import Pipeline

/// What lies in a mapped table is not to be relied on any more: somebody has cut its file, or has written to it.
extension RoutingState {
    /// Forgets every route that came from the mapped table, without a look at what it says. What is left is served; then
    /// all is to be restored from texts, before anybody is given the next table: a lookup finds routes or nobody, never
    /// another's.
    /// - Returns: the `route` blocks, which come behind what was in force, as at a start.
    public func forgetMapped() -> StateDocument? {
        guard store.mapped != nil else { return nil }
        defer { blocks = nil }
        let kept = routesInMemory()
        for number in 1...store.mappedLast where store.isMade(number) && store.hasMappedID(number) {
            let entry = store.entry(number)
            (entry.pointee.current, entry.pointee.isLive, entry.pointee.isInRange) = (nil, false, false)
        }
        portUses = PortUses()
        (namedRaw, ipv4Routes, ids) = ([:], [], RouteIDs())
        groups.forgetRoutes()
        for route in kept { take(route) }
        liveRoutes = kept.count
        let last = snapshot
        let shards = makeShards(kept)
        for number in 0..<UInt32(groups.count) where groups.box(number) != nil && groups.isEmpty(number) {
            if let box = groups.remove(number) { store.release(box) }
        }
        let routes = RouteDirectory(shards, RouteTable.makePorts([]), DedicatedTable([]), store)
        snapshot = RouteTableSnapshot(
            store: store, seed: seed, routes: routes, groups: last.groups.with(self), routeCount: kept.count,
            suspended: suspension.list)
        // The next run makes what this has left out.
        (addressesChanged, directoryChanged) = (true, true)
        suspension.hasChanged = true
        return blocks
    }

    /// Routes that have nothing in the mapped table, as they are served.
    private func routesInMemory() -> [UnsafePointer<TableRoute>] {
        var found: [UnsafePointer<TableRoute>] = []
        for shard in snapshot.table.pointee.shards where store.mapped?.place(of: shard) == nil {
            shard.visit { if !store.hasMappedID($0.pointee.entry) { found.append($0) } }
        }
        return found
    }

    private func take(_ route: UnsafePointer<TableRoute>) {
        let record = route.pointee
        groups.link(record.entry, to: record.group, record.use, store)
        portUses.add(
            record.entry, port: record.port, record.options, route.name, isConditional: record.isConditional)
        if record.options.contains(.raw), let name = route.nameKey { namedRaw[name, default: []].insert(record.entry) }
        if record.options.contains(.ipv4Required) { ipv4Routes.insert(record.entry) }
        ids.insert(SipHash.hash(store.id(record.entry), domain: 3, seed: seed), record.entry)
    }

    private func makeShards(_ routes: [UnsafePointer<TableRoute>]) -> ShardList {
        let bits = TableBuild.bits(for: routes.count, now: 0)
        var parts = [[ShardItem]](repeating: [], count: 1 << Int(bits))
        for route in routes {
            let record = route.pointee
            let hash = RouteTable.hash(route.name, KeyKind(record.options), port: record.port, seed: seed)
            parts[RouteTable.shard(of: hash, bits: bits)].append(
                ShardItem(
                    name: route.name, alpn: route.alpn, options: record.options, port: record.port,
                    entry: record.entry, group: record.group, maxConnections: record.maxConnections,
                    isShared: record.isShared, hash: hash))
        }
        let shards = UnsafeMutableBufferPointer<RouteShard.Pointer>.allocate(capacity: parts.count)
        for (index, items) in parts.enumerated() { shards.initializeElement(at: index, to: store.makeShard(items)) }
        return ShardList(shards, store)
    }
}

extension RouteStore {
    /// Its id stands in the mapped table.
    func hasMappedID(_ number: UInt32) -> Bool {
        number <= mappedLast && mapped?.has(entries.name(number).pointee) ?? false
    }
}
