import Pipeline

/// A table that an earlier process wrote, and what must be known of the time since.
public struct KeptTable {
    let table: MappedTable
    let changed: [[UInt8]]
    let desired: Int

    /// - Parameters:
    ///   - changed: ids of routes whose object, or how that is applied, may be another one since.
    ///   - desired: how many ids of routes are desired now.
    public init(_ table: MappedTable, changed: [[UInt8]], desired: Int) {
        (self.table, self.changed, self.desired) = (table, changed, desired)
    }
}

/// A start from a mapped table: what is in force is the table's routes, but for some, and what a document has.
struct MappedStart {
    let table: MappedTable
    /// Numbers of the table whose routes are read as texts, or are gone.
    let dropped: [UInt32]
}

extension RoutingState {
    /// Serves what was in force from a mapped table; what it has not, or has otherwise, is read as text. For a state without
    /// routes.
    ///
    /// What was in force at one moment is in nobody's way there, so neither half has to know of the other to be decided
    /// about again (ADR 0116).
    ///
    /// - Parameters:
    ///   - desired: the objects as they are desired.
    ///   - inForce: the same as they are in force.
    ///   - noted: ids of routes that are not in force as they are desired.
    /// - Returns: nil: the table does not go with the objects, or there is no memory for it; nothing was changed.
    func start(
        from kept: KeptTable, _ desired: some DesiredObjects, inForce: some DesiredObjects, noted: Set<[UInt8]>
    ) -> ApplyReport? {
        guard groups.isUnused, ids.isUnused, snapshot.routeCount == 0 else { return nil }
        tableRefusal = "it does not go with the objects"
        let table = kept.table
        var apart = noted.union(kept.changed)
        table.visitOthers { apart.insert(Array($0)) }
        guard apart.count <= UnservedRoutes.limit else {
            tableRefusal = "\(apart.count) routes are to be read in any case"
            return nil
        }
        var there = 0
        for id in apart where id.withUnsafeBufferPointer({ desired.text(.route, $0) }) != nil { there += 1 }
        // Before anything is changed: each id that is desired is in the table, or is read.
        let dropped = table.numbers(of: apart, seed: seed)
        guard Int(table.count) - dropped.count + there == kept.desired else {
            tableRefusal = "it has \(Int(table.count) - dropped.count) routes, beside \(there), of \(kept.desired)"
            return nil
        }
        let kinds: [StateKind] = [.org, .env, .instance, .hostname]
        let (document, problems) = StateDocument.all(kinds, and: [.route: apart], of: inForce, seed: seed)
        guard let document else { return nil }
        if let env = table.strangeEnv(document, but: dropped) {
            tableRefusal = "its env \(env) is not in force"
            return nil
        }
        guard store.adopt(table) else {
            tableRefusal = "there is no memory for it"
            return nil
        }
        now = nil
        time = clock?()
        var report = ApplyRun(self, [document], mapped: MappedStart(table: table, dropped: dropped)).run()
        report.problems.add(problems)
        return report
    }

    /// How many routes lie in a mapped table.
    public var mappedRoutes: Int { store.mapped.map { Int($0.count) } ?? 0 }
}

extension MappedTable {
    /// Those of some ids.
    fileprivate func numbers(of ids: Set<[UInt8]>, seed: HashSeed) -> [UInt32] {
        ids.compactMap { id in
            id.withUnsafeBufferPointer { bytes in
                find(SipHash.hash(bytes, domain: 3, seed: seed)) { number in
                    route(number).map { sameBytes($0.mappedID.bytes, bytes) } ?? false
                }
            }
        }
    }

    /// An env of a group with routes that the document has not, or not once: what is in force has an owner. Nil: there is
    /// none.
    /// - Parameter dropped: numbers that are not in force.
    fileprivate func strangeEnv(_ document: StateDocument, but dropped: [UInt32]) -> String? {
        var envs = [UInt32](repeating: 0, count: document.symbols.count)
        for object in document.envs { envs[Int(object.env)] += 1 }
        var left = groups.map(\.members.count)
        for number in dropped {
            if let route = route(number), left.indices.contains(Int(route.pointee.group) - 1) {
                left[Int(route.pointee.group) - 1] -= 1
            }
        }
        let strange = groups.indices.first { index in
            left[index] > 0 && document.symbols.find(text(groups[index].env)).map { envs[Int($0)] != 1 } ?? true
        }
        return strange.map { String(decoding: text(groups[$0].env), as: UTF8.self) }
    }
}

extension ApplyRun {
    /// Has a mapped table's routes served, behind envs and instances: as the table before this run.
    func adopt(_ mapped: MappedStart) {
        let table = mapped.table
        for group in table.groups {
            let key = key(of: group, table)
            state.groups.adopt(key, makeBackends(key), range: group.members, GroupUses(table.uses(group)))
        }
        for use in table.ports { state.portUses.adopt(use.port, count: use.count, mix: use.mix) }
        state.ids.adopt(table)
        state.liveRoutes = Int(table.count)
        let shards = UnsafeMutableBufferPointer<RouteShard.Pointer>.allocate(capacity: table.shardCount)
        for index in 0..<table.shardCount { shards.initializeElement(at: index, to: table.shard(index)) }
        let routes = RouteDirectory(ShardList(shards, store), RouteTable.makePorts([]), DedicatedTable([]), store)
        state.snapshot = RouteTableSnapshot(
            store: store, seed: state.seed, routes: routes, groups: state.snapshot.groups.with(state),
            routeCount: state.liveRoutes)
        for number in mapped.dropped {
            state.ids.remove(SipHash.hash(id(of: number), domain: 3, seed: state.seed), number)
            removed.append(number)
        }
    }

    private func key(of group: MappedGroup, _ table: MappedTable) -> GroupKey {
        let env = state.symbols.intern(table.text(group.env)) ?? RouteEntry.none
        let process = state.symbols.intern(table.text(group.process)) ?? RouteEntry.none
        return GroupKey(
            pool: PoolKey(env) << 32 | PoolKey(process), port: group.port, addresses: [], isNamed: false,
            maxConnections: 0, health: nil, policy: nil, isHashed: group.isHashed)
    }
}
