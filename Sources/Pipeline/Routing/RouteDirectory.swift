import Pipeline

/// Some shards that tables share: what holds them is counted once for all, so that a table costs the parts that changed.
private final class ShardPart {
    static let count = 128
    private let shards: [RouteShard.Pointer]
    private let store: RouteStore

    init(_ shards: some Sequence<RouteShard.Pointer>, _ store: RouteStore) {
        self.shards = Array(shards)
        self.store = store
        for shard in self.shards { store.retain(shard) }
    }

    deinit { for shard in shards { store.release(shard) } }
}

/// The shards of a table: one flat list for lookups, held by parts.
///
/// Threading: control side only; the list itself from any thread.
final class ShardList {
    let shards: UnsafeMutableBufferPointer<RouteShard.Pointer>
    private let parts: [ShardPart]
    private let store: RouteStore

    private init(
        _ shards: UnsafeMutableBufferPointer<RouteShard.Pointer>, _ parts: [ShardPart], _ store: RouteStore
    ) {
        (self.shards, self.parts, self.store) = (shards, parts, store)
    }

    deinit { shards.deallocate() }

    /// - Parameter shards: of none before; it takes over their memory.
    convenience init(_ shards: UnsafeMutableBufferPointer<RouteShard.Pointer>, _ store: RouteStore) {
        let parts = stride(from: 0, to: shards.count, by: ShardPart.count).map {
            ShardPart(shards[$0..<min($0 + ShardPart.count, shards.count)], store)
        }
        self.init(shards, parts, store)
    }

    /// The same with other shards in some places.
    func with(_ changed: [(place: Int, shard: RouteShard.Pointer)]) -> ShardList {
        let next = UnsafeMutableBufferPointer<RouteShard.Pointer>.allocate(capacity: shards.count)
        _ = next.initialize(from: shards)
        for (place, shard) in changed { next[place] = shard }
        var parts = parts
        for index in Set(changed.map { $0.place / ShardPart.count }) {
            let start = index * ShardPart.count
            parts[index] = ShardPart(next[start..<min(start + ShardPart.count, next.count)], store)
        }
        return ShardList(next, parts, store)
    }
}

/// What of a table depends on its routes alone. Tables between which only backends changed share it.
///
/// Threading: control side only.
final class RouteDirectory {
    let shards: ShardList
    let ports: UnsafeMutableBufferPointer<RouteTable.PortSlot>
    let dedicated: DedicatedTable
    /// Of dedicated addresses.
    private let owners: [UnsafeMutablePointer<OwnerBox>]
    private let store: RouteStore

    init(
        _ shards: ShardList, _ ports: UnsafeMutableBufferPointer<RouteTable.PortSlot>, _ dedicated: DedicatedTable,
        owners: [UnsafeMutablePointer<OwnerBox>] = [], _ store: RouteStore
    ) {
        (self.shards, self.ports, self.dedicated) = (shards, ports, dedicated)
        (self.owners, self.store) = (owners, store)
        for owner in owners { owner.pointee.references += 1 }
    }

    deinit {
        ports.deallocate()
        dedicated.deallocate()
        for owner in owners { store.release(owner) }
    }
}
