import Pipeline

/// The shards of a first table, of many routes: as ``TableBuild`` makes them one by one, with what is looked up for each
/// route looked up once.
struct BulkShards {
    /// Of fewer routes nobody waits for the table.
    static let least = 4096

    private let run: ApplyRun
    private let changes: [ApplyRun.Change]

    init(_ run: ApplyRun) {
        self.run = run
        changes = run.changes
    }

    func make(_ bits: UInt64, item other: (ApplyRun.Change) -> ShardItem) -> [RouteShard.Pointer] {
        let (starts, order) = sorted(bits)
        let sources = run.parts.map { Source($0.document, run.store) }
        var shards: [RouteShard.Pointer] = []
        shards.reserveCapacity(1 << Int(bits))
        var items: [ShardItem] = []
        for number in 0..<1 << Int(bits) {
            items.removeAll(keepingCapacity: true)
            let members = order[Int(starts[number])..<Int(starts[number + 1])]
            // Each of them is somewhere else in memory: looked at in a row, they are fetched at once.
            for index in members {
                let change = changes[Int(index)]
                guard let version = change.version else {
                    items.append(other(change))
                    continue
                }
                items.append(sources[Int(run.versions[version].part)].item(change, Int(run.versions[version].object)))
            }
            fetch(items)
            shards.append(run.store.makeShard(items))
        }
        return shards
    }

    @inline(never) private func fetch(_ items: [ShardItem]) {
        var sum: UInt64 = 0
        for item in items {
            sum &+= UInt64(item.name.first ?? 0) &+ UInt64(run.store.entry(item.entry).pointee.references)
        }
        withExtendedLifetime(sum) {}
    }

    private struct Source {
        private let text: TextArena
        private let routes: [RouteObject]
        /// Routes of a config file may share cells.
        private let isOfConfig: Bool
        private let store: RouteStore

        init(_ document: StateDocument, _ store: RouteStore) {
            (text, routes, isOfConfig) = (document.text, document.routes, document.source == .config)
            self.store = store
        }

        @inline(__always) func item(_ change: ApplyRun.Change, _ index: Int) -> ShardItem {
            let (name, alpnLength) = (routes[index].name, routes[index].alpnLength)
            let alpn = TextRef(offset: name.offset &+ UInt32(name.length), length: UInt16(alpnLength))
            return ShardItem(
                name: text.bytes(name), alpn: alpnLength > 0 ? text.bytes(alpn) : Bytes(start: nil, count: 0),
                options: change.options, port: routes[index].port, entry: change.entry, group: change.group,
                maxConnections: routes[index].maxConnections,
                isShared: isOfConfig && store.sharedCell(change.entry) != nil, hash: change.hash)
        }
    }

    /// Changes by shard: where each shard's begin, and their places.
    private func sorted(_ bits: UInt64) -> (starts: [UInt32], order: [UInt32]) {
        var starts = [UInt32](repeating: 0, count: (1 << Int(bits)) + 1)
        for change in changes { starts[RouteTable.shard(of: change.hash, bits: bits) + 1] += 1 }
        for number in 1..<starts.count { starts[number] += starts[number - 1] }
        var next = starts
        var order = [UInt32](repeating: 0, count: changes.count)
        for (index, change) in changes.enumerated() {
            let shard = RouteTable.shard(of: change.hash, bits: bits)
            order[Int(next[shard])] = UInt32(truncatingIfNeeded: index)
            next[shard] += 1
        }
        return (starts, order)
    }
}
