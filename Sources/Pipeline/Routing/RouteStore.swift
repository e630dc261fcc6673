import Pipeline

/// The memory behind tables: entries, shards, backends, owners and identities, with their reference counts.
///
/// Objects that connections pin by count (``RouteCell/users``, ``BackendCell/active``, …) outlive their last table:
/// they wait in ``pinned`` until ``freeUnpinned()`` finds a count of zero. Without a table no new connection can pin
/// them, since workers look up in tables alone.
///
/// Threading: control side only. Ownership: each snapshot and the routing state keep it alive; workers have ended before.
public final class RouteStore {
    let entries = EntryTable()
    /// Nobody has the number 0: bytes of a mapped table that are lost read as zeros.
    var used: UInt32 = 1
    /// Where most routes lie since the start; nil: nowhere. Its numbers are 1...``mappedLast``.
    var mapped: MappedTable?
    var mappedLast: UInt32 = 0
    /// How many tables hold each of its shards.
    var mappedReferences: [UInt32] = []
    /// There is no memory for more. For tests.
    var mostNumbers = UInt32.max
    private let texts = FrozenTexts()
    private var free = RouteEntry.none
    private var backendCells: [Endpoint: UnsafeMutablePointer<BackendCellBox>] = [:]
    private var routeCells: [RouteCellKey: UnsafeMutablePointer<RouteCellBox>] = [:]
    private var groupCells: [TurnKey: UnsafeMutablePointer<GroupCellBox>] = [:]
    private(set) var policies = RoutePolicies()
    /// The group of numbers that are not in use, which has no backend, and its owner.
    let nobody: UnsafeMutablePointer<BackendBox>
    let nobodysOwner: UnsafeMutablePointer<OwnerBox>
    private let nobodysTurns: UnsafeMutablePointer<GroupCell>
    /// The box that was shared last: a map's million entries have one.
    private var lastShared: UnsafeMutablePointer<RouteCellBox>?
    /// Blocks allocated and not freed yet: what tests hold to find leaks. Entries count one each.
    public private(set) var liveBlocks = 0

    private enum Pinned {
        case entry(UInt32)
        case route(UnsafeMutablePointer<RouteCellBox>)
        case backend(UnsafeMutablePointer<BackendCellBox>)
        case group(UnsafeMutablePointer<GroupCellBox>)
        case owner(UnsafeMutablePointer<OwnerBox>)
        case identity(UnsafeMutablePointer<InstanceIdentity>)
    }
    private var pinned: [Pinned] = []
    /// How many things wait for the last connection that pins them.
    public var pinnedCount: Int { pinned.count }

    /// Backends without a table that still have connections. Valid until the next change.
    var pinnedBackends: [UnsafePointer<BackendCell>] {
        pinned.compactMap { item in
            guard case .backend(let box) = item else { return nil }
            return UnsafeRawPointer(box).assumingMemoryBound(to: BackendCell.self)
        }
    }

    init() {
        nobodysTurns = .allocate(capacity: 1)
        nobodysTurns.initialize(to: GroupCell())
        nobody = .allocate(capacity: 1)
        let group = BackendGroup(backends: FrozenArray([]), cell: nobodysTurns)
        nobody.initialize(to: BackendBox(group: group, references: 1))
        nobodysOwner = .allocate(capacity: 1)
        nobodysOwner.initialize(to: OwnerBox(org: "", app: "", env: "", .unknown))
        guard entries.grow(to: 0) else { preconditionFailure("no memory for routes") }
        entries.entry(0).initialize(to: RouteEntry(ownsID: false))
        entries.name(0).initialize(to: texts.append(Bytes(start: nil, count: 0)))
    }

    deinit {
        nobody.pointee.group.deallocate()
        nobody.deinitialize(count: 1).deallocate()
        nobodysTurns.deinitialize(count: 1).deallocate()
        nobodysOwner.deinitialize(count: 1).deallocate()
        for item in pinned where !isNamedAgain(item) { free(item) }
        for index in 0..<used where isMade(index) && entries.entry(index).pointee.ownsID {
            entries.name(index).pointee.deallocate()
        }
        for box in routeCells.values { box.deinitialize(count: 1).deallocate() }
        entries.deallocate(used)
        policies.deallocate()
    }

    func allocated() { liveBlocks += 1 }
    func freed() { liveBlocks -= 1 }

    // MARK: Entries

    func cell(_ index: UInt32) -> UnsafePointer<RouteCell> { sharedCell(index) ?? UnsafePointer(entries.cell(index)) }

    /// Nil: it counts in a cell of its own.
    func sharedCell(_ index: UInt32) -> UnsafePointer<RouteCell>? {
        entry(index).pointee.shared.map { UnsafeRawPointer($0).assumingMemoryBound(to: RouteCell.self) }
    }

    /// The id by which an entry is known.
    @inline(__always) func id(_ index: UInt32) -> Bytes { entries.name(index).pointee.bytes }

    /// Has the entry count with all others of this key.
    func share(_ key: RouteCellKey, by index: UInt32) {
        guard entry(index).pointee.shared == nil else { return }
        let box =
            lastShared.flatMap { $0.pointee.key == key ? $0 : nil } ?? box(key, in: &routeCells) { RouteCellBox(key) }
        lastShared = box
        box.pointee.references += 1
        entry(index).pointee.shared = box
    }

    func makeEntry(id: Bytes) -> UInt32 { makeEntry(CountedText(copying: id), ownsID: true) }

    /// The same for one of very many: its text goes only with the store.
    func makeEntry(ofMany id: Bytes) -> UInt32 { makeEntry(texts.append(id), ownsID: false) }

    private func makeEntry(_ id: CountedText, ownsID: Bool) -> UInt32 {
        allocated()
        let index: UInt32
        if free != RouteEntry.none {
            index = free
            let old = entry(index).pointee
            free = old.candidate
            if old.ownsID { entries.name(index).pointee.deallocate() }
            entries.cell(index).initialize(to: RouteCell())
        } else {
            index = used
            used += 1
            guard entries.grow(to: index) else { preconditionFailure("no memory for routes") }
        }
        entries.entry(index).initialize(to: RouteEntry(ownsID: ownsID))
        entries.name(index).initialize(to: id)
        return index
    }

    func retain(entry index: UInt32) { entry(index).pointee.references += 1 }
    func release(entry index: UInt32) {
        entry(index).pointee.references -= 1
        freeIfUnused(index)
    }

    /// Frees an entry once nothing refers to it.
    func freeIfUnused(_ index: UInt32) {
        let entry = entry(index)
        guard !entry.pointee.isLive, entry.pointee.references == 0, !entry.pointee.isFree, !entry.pointee.isPinned
        else { return }
        entry.pointee.isPinned = true
        freeWhenUnpinned(.entry(index))
    }

    // MARK: What outlives tables

    /// The box of the key: the one that is there, or a new one.
    private func box<Box: SharedBox & ~Copyable>(
        _ key: Box.Key, in boxes: inout [Box.Key: UnsafeMutablePointer<Box>], make: () -> Box
    ) -> UnsafeMutablePointer<Box> {
        if let known = boxes[key] { return known }
        allocated()
        let box = UnsafeMutablePointer<Box>.allocate(capacity: 1)
        box.initialize(to: make())
        boxes[key] = box
        return box
    }

    private func release<Box: SharedBox & ~Copyable>(_ box: UnsafeMutablePointer<Box>, as item: Pinned) {
        box.pointee.references -= 1
        guard box.pointee.references == 0, !box.pointee.isPinned else { return }
        box.pointee.isPinned = true
        freeWhenUnpinned(item)
    }

    private func forget<Box: SharedBox & ~Copyable>(
        _ box: UnsafeMutablePointer<Box>, in boxes: inout [Box.Key: UnsafeMutablePointer<Box>]
    ) {
        boxes[box.pointee.key] = nil
        box.deinitialize(count: 1)
        box.deallocate()
    }

    // MARK: What connections pin

    private func freeWhenUnpinned(_ item: Pinned) {
        if isPinned(item) { pinned.append(item) } else { free(item) }
    }

    /// Frees objects without a table and without a pin.
    public func freeUnpinned() {
        guard !pinned.isEmpty else { return }
        var rest: [Pinned] = []
        for item in pinned {
            if isNamedAgain(item) { continue }
            if isPinned(item) { rest.append(item) } else { free(item) }
        }
        pinned = rest
    }

    private func isPinned(_ item: Pinned) -> Bool {
        switch item {
        case .entry(let index): entries.cell(index).pointee.users.current > 0
        case .route(let box): box.pointee.cell.users.current > 0
        case .backend(let box): box.pointee.cell.active.current > 0
        case .group(let box): box.pointee.cell.active.current > 0
        case .owner(let box): box.pointee.owner.users.current > 0
        case .identity(let identity): identity.pointee.users.current > 0
        }
    }

    /// A route, an address or a group may return while old connections exist: it reuses the cell.
    private func isNamedAgain(_ item: Pinned) -> Bool {
        switch item {
        case .route(let box) where box.pointee.references > 0: box.pointee.isPinned = false
        case .backend(let box) where box.pointee.references > 0: box.pointee.isPinned = false
        case .group(let box) where box.pointee.references > 0: box.pointee.isPinned = false
        default: return false
        }
        return true
    }

    private func free(_ item: Pinned) {
        switch item {
        case .entry(let index):
            entry(index).pointee.isFree = true
            entry(index).pointee.isPinned = false
            entry(index).pointee.candidate = free
            free = index
            if let box = entry(index).pointee.shared { release(box, as: .route(box)) }
            entry(index).pointee.shared = nil
        case .route(let box):
            if box == lastShared { lastShared = nil }
            forget(box, in: &routeCells)
        case .backend(let box):
            forget(box, in: &backendCells)
        case .group(let box):
            forget(box, in: &groupCells)
        case .owner(let box):
            box.deinitialize(count: 1)
            box.deallocate()
        case .identity(let identity):
            identity.pointee.deallocate()
            identity.deinitialize(count: 1)
            identity.deallocate()
        }
        freed()
    }

    // MARK: Boxes

    /// - Parameters:
    ///   - name: of a `backends` block; empty: none.
    ///   - cursor: where round robin begins, if nobody has taken turns under this key yet.
    func makeBackends(
        _ list: [(backend: BackendSpec, instance: String)], _ key: GroupKey, name: String = "", cursor: UInt64 = 0
    ) -> UnsafeMutablePointer<BackendBox> {
        allocated()
        let box = UnsafeMutablePointer<BackendBox>.allocate(capacity: 1)
        let backends = RouteStore.byPriority(list).map { item in
            Backend(
                address: BackendAddress(item.backend.endpoint), instance: FrozenText(item.instance),
                cell: retainCell(item.backend.endpoint), weight: item.backend.weight,
                maxConnections: item.backend.maxConnections, priority: item.backend.priority)
        }
        let group = BackendGroup(
            backends: FrozenArray(backends), cell: retainCell(key.turns, name: name, cursor: cursor),
            maxConnections: key.maxConnections, health: key.health.map(GroupHealth.interned),
            policy: key.policy.map { policies.policy($0) }
        ) { tier in
            let weights = tier.buffer.map(\.weight)
            let specs = tier.buffer.map { BackendSpec($0.address.endpoint, weight: $0.weight) }
            return BalanceTables(schedule: TurnSchedule.make(weights), maglev: key.isHashed ? Maglev.table(specs) : [])
        }
        box.initialize(to: BackendBox(group: group, references: 1))
        return box
    }

    /// In a stable order, so that turns stay deterministic (R11).
    private static func byPriority(
        _ list: [(backend: BackendSpec, instance: String)]
    ) -> [(backend: BackendSpec, instance: String)] {
        guard list.contains(where: { $0.backend.priority != list[0].backend.priority }) else { return list }
        return list.enumerated()
            .sorted { ($0.element.backend.priority, $0.offset) < ($1.element.backend.priority, $1.offset) }
            .map(\.element)
    }

    /// So many are to come.
    func reserveBackends(_ count: Int) { backendCells.reserveCapacity(count) }

    /// One cell per address across groups and snapshots: knowledge of a backend outlives an apply.
    func retainCell(_ endpoint: Endpoint) -> UnsafePointer<BackendCell> {
        let box = box(endpoint, in: &backendCells) { BackendCellBox(endpoint) }
        box.pointee.references += 1
        return UnsafeRawPointer(box).assumingMemoryBound(to: BackendCell.self)
    }

    /// One cell per key across groups and snapshots: a change of backends starts no turns anew (R11).
    private func retainCell(_ key: TurnKey, name: String, cursor: UInt64) -> UnsafePointer<GroupCell> {
        let box = box(key, in: &groupCells) { GroupCellBox(key, name: name, cursor: cursor) }
        box.pointee.references += 1
        return UnsafeRawPointer(box).assumingMemoryBound(to: GroupCell.self)
    }

    private func releaseCell(_ cell: UnsafePointer<GroupCell>) {
        let box = UnsafeMutableRawPointer(mutating: cell).assumingMemoryBound(to: GroupCellBox.self)
        release(box, as: .group(box))
    }

    /// The known endpoints of some addresses, in order.
    func endpoints(of addresses: Set<IPAddress>) -> [Endpoint] {
        backendCells.keys.filter { addresses.contains($0.address) }
            .sorted { ($0.address, $0.port) < ($1.address, $1.port) }
    }

    func releaseCell(_ endpoint: Endpoint) {
        guard let box = backendCells[endpoint] else { return }
        release(box, as: .backend(box))
    }

    func release(_ box: UnsafeMutablePointer<BackendBox>) {
        box.pointee.references -= 1
        guard box.pointee.references == 0 else { return }
        for backend in box.pointee.group.backends.buffer {
            backend.instance.deallocate()
            releaseCell(backend.address.endpoint)
        }
        releaseCell(box.pointee.group.cell)
        box.pointee.group.deallocate()
        box.deallocate()
        freed()
    }

    func makeOwner(
        org: String, app: String, env: String, _ tenant: TenantNumbers
    ) -> UnsafeMutablePointer<OwnerBox> {
        allocated()
        let box = UnsafeMutablePointer<OwnerBox>.allocate(capacity: 1)
        box.initialize(to: OwnerBox(org: org, app: app, env: env, tenant))
        return box
    }

    func release(_ box: UnsafeMutablePointer<OwnerBox>) {
        box.pointee.references -= 1
        if box.pointee.references == 0 { freeWhenUnpinned(.owner(box)) }
    }

    // MARK: Identities

    func makeIdentity(_ instance: LocalInstance, number: UInt32) -> UnsafeMutablePointer<InstanceIdentity> {
        allocated()
        let identity = UnsafeMutablePointer<InstanceIdentity>.allocate(capacity: 1)
        identity.initialize(
            to: InstanceIdentity(
                number: number, id: FrozenText(instance.id), env: FrozenText(instance.env),
                app: FrozenText(instance.app), org: FrozenText(instance.org), tenant: instance.tenant,
                isSuspended: instance.isSuspended))
        return identity
    }

    /// No directory names it any more.
    func release(_ identity: UnsafeMutablePointer<InstanceIdentity>) { freeWhenUnpinned(.identity(identity)) }
}
