import Pipeline

/// One route id, for as long as a snapshot can name it: the counters that outlive snapshots (R11), and the control
/// side's own notes. The cell comes first: its address is the entry's.
struct RouteEntry: ~Copyable {
    let cell = RouteCell()
    /// Where the newest table has it; nil: not there yet, or no more.
    var current: UnsafePointer<TableRoute>?
    /// How many shards hold it.
    var references: UInt32 = 0
    /// Its place in the list of its group's routes; ``none`` ends it.
    var nextInGroup = RouteEntry.none
    var previousInGroup = RouteEntry.none
    /// Index + 1 of the version that the running apply's documents have; 0: none. While free: the next free entry.
    var candidate: UInt32 = 0
    var place = Place(line: 0, column: 0)
    var source = StateDocument.Source.state
    /// The running apply serves it, in whichever version.
    var isServed = false
    /// Known by id: not removed.
    var isLive = true
    /// In the list of free entries.
    var isFree = false

    static let none = UInt32.max
}

/// The backends of a group, with the references of the routes that point to them.
struct BackendBox {
    /// First: routes point to it.
    let group: BackendGroup
    var references: Int
}

/// What is known of one backend address, with the references of the groups that have it.
struct BackendCellBox: ~Copyable {
    /// First: backends point to it.
    let cell = BackendCell()
    let endpoint: Endpoint
    var references = 0
    init(_ endpoint: Endpoint) { self.endpoint = endpoint }
}

/// The owner of an env's routes, with the references of those.
struct OwnerBox {
    /// First: routes point to it.
    let owner: RouteOwner
    var references: Int
}

/// The memory behind tables: entries, shards, backends, owners, and who still holds them.
///
/// Threading: control side only. Ownership: each snapshot and the routing state keep it alive.
public final class RouteStore {
    private static let chunkSize = 4096
    private var chunks: [UnsafeMutablePointer<RouteEntry>] = []
    private var used: UInt32 = 0
    private var free = RouteEntry.none
    private var backendCells: [Endpoint: UnsafeMutablePointer<BackendCellBox>] = [:]
    /// Blocks allocated and not freed yet: what tests hold to find leaks. Entries count one each.
    public private(set) var liveBlocks = 0

    init() {}

    deinit {
        for index in 0..<used { entry(index).deinitialize(count: 1) }
        for chunk in chunks { chunk.deallocate() }
    }

    func allocated() { liveBlocks += 1 }
    func freed() { liveBlocks -= 1 }

    // MARK: Entries

    @inline(__always) func entry(_ index: UInt32) -> UnsafeMutablePointer<RouteEntry> {
        chunks[Int(index) / RouteStore.chunkSize] + Int(index) % RouteStore.chunkSize
    }

    func cell(_ index: UInt32) -> UnsafePointer<RouteCell> {
        UnsafeRawPointer(entry(index)).assumingMemoryBound(to: RouteCell.self)
    }

    func makeEntry() -> UInt32 {
        allocated()
        let index: UInt32
        if free != RouteEntry.none {
            index = free
            free = entry(index).pointee.candidate
            entry(index).deinitialize(count: 1)
        } else {
            index = used
            used += 1
            if Int(index) / RouteStore.chunkSize == chunks.count {
                chunks.append(.allocate(capacity: RouteStore.chunkSize))
            }
        }
        entry(index).initialize(to: RouteEntry())
        return index
    }

    func retain(entry index: UInt32) { entry(index).pointee.references += 1 }
    func release(entry index: UInt32) {
        entry(index).pointee.references -= 1
        freeIfUnused(index)
    }

    /// Gives an entry back once nothing names it any more.
    func freeIfUnused(_ index: UInt32) {
        let entry = entry(index)
        guard !entry.pointee.isLive, entry.pointee.references == 0, !entry.pointee.isFree else { return }
        entry.pointee.isFree = true
        entry.pointee.candidate = free
        free = index
        freed()
    }

    // MARK: Shards

    func retain(_ shard: RouteShard.Pointer) { shard.pointee.references += 1 }

    func release(_ shard: RouteShard.Pointer) {
        shard.pointee.references -= 1
        guard shard.pointee.references == 0 else { return }
        for route in shard.pointee.all {
            release(backends: route.route.group)
            release(owner: route.route.owner)
            entry(route.entry).pointee.references -= 1
            freeIfUnused(route.entry)
        }
        UnsafeMutableRawPointer(shard).deallocate()
        freed()
    }

    /// Builds a shard; every route in it holds its entry, backends and owner.
    func makeShard(
        _ items: [ShardItem], owner: (ShardItem) -> UnsafeMutablePointer<OwnerBox>,
        backends: (ShardItem) -> UnsafeMutablePointer<BackendBox>
    ) -> RouteShard.Pointer {
        allocated()
        return RouteShard.make(
            items,
            owner: { item in
                let box = owner(item)
                box.pointee.references += 1
                return UnsafeRawPointer(box).assumingMemoryBound(to: RouteOwner.self)
            },
            backends: { item in
                let box = backends(item)
                box.pointee.references += 1
                return UnsafeRawPointer(box).assumingMemoryBound(to: BackendGroup.self)
            },
            cell: { cell($0.entry) },
            placed: { item, route in
                let entry = entry(item.entry)
                entry.pointee.references += 1
                entry.pointee.current = route
            })
    }

    // MARK: Boxes

    /// - Parameter isHashed: with the table that consistent hashing needs.
    func makeBackends(
        _ list: [(backend: BackendSpec, instance: String)], isHashed: Bool
    ) -> UnsafeMutablePointer<BackendBox> {
        allocated()
        let box = UnsafeMutablePointer<BackendBox>.allocate(capacity: 1)
        let backends = list.map { item in
            Backend(
                address: BackendAddress(item.backend.endpoint), instance: FrozenText(item.instance),
                cell: retainCell(item.backend.endpoint), weight: item.backend.weight,
                maxConnections: item.backend.maxConnections)
        }
        let group = BackendGroup(
            backends: FrozenArray(backends), schedule: FrozenArray(TurnSchedule.make(backends.map(\.weight))),
            maglev: FrozenArray(isHashed ? Maglev.table(list.map(\.backend)) : []))
        box.initialize(to: BackendBox(group: group, references: 1))
        return box
    }

    /// One cell an address, whichever groups and snapshots name it: what is known of a backend outlives an apply.
    func retainCell(_ endpoint: Endpoint) -> UnsafePointer<BackendCell> {
        let box: UnsafeMutablePointer<BackendCellBox>
        if let known = backendCells[endpoint] {
            box = known
        } else {
            allocated()
            box = .allocate(capacity: 1)
            box.initialize(to: BackendCellBox(endpoint))
            backendCells[endpoint] = box
        }
        box.pointee.references += 1
        return UnsafeRawPointer(box).assumingMemoryBound(to: BackendCell.self)
    }

    /// The known endpoints of some addresses, in order.
    func endpoints(of addresses: Set<IPAddress>) -> [Endpoint] {
        backendCells.keys.filter { addresses.contains($0.address) }
            .sorted { ($0.address, $0.port) < ($1.address, $1.port) }
    }

    func releaseCell(_ endpoint: Endpoint) {
        guard let box = backendCells[endpoint] else { return }
        box.pointee.references -= 1
        guard box.pointee.references == 0 else { return }
        backendCells[endpoint] = nil
        box.deinitialize(count: 1)
        box.deallocate()
        freed()
    }

    func release(_ box: UnsafeMutablePointer<BackendBox>) {
        box.pointee.references -= 1
        guard box.pointee.references == 0 else { return }
        for backend in box.pointee.group.backends.buffer {
            backend.instance.deallocate()
            releaseCell(backend.address.endpoint)
        }
        box.pointee.group.deallocate()
        box.deallocate()
        freed()
    }

    private func release(backends: UnsafePointer<BackendGroup>) {
        release(UnsafeMutableRawPointer(mutating: backends).assumingMemoryBound(to: BackendBox.self))
    }

    func makeOwner(org: String, app: String, env: String) -> UnsafeMutablePointer<OwnerBox> {
        allocated()
        let box = UnsafeMutablePointer<OwnerBox>.allocate(capacity: 1)
        let owner = RouteOwner(org: FrozenText(org), app: FrozenText(app), env: FrozenText(env))
        box.initialize(to: OwnerBox(owner: owner, references: 1))
        return box
    }

    func release(_ box: UnsafeMutablePointer<OwnerBox>) {
        box.pointee.references -= 1
        guard box.pointee.references == 0 else { return }
        box.pointee.owner.org.deallocate()
        box.pointee.owner.app.deallocate()
        box.pointee.owner.env.deallocate()
        box.deallocate()
        freed()
    }

    private func release(owner: UnsafePointer<RouteOwner>) {
        release(UnsafeMutableRawPointer(mutating: owner).assumingMemoryBound(to: OwnerBox.self))
    }
}
