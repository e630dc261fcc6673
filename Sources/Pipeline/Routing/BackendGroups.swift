import Pipeline

/// A pool: the instances of one process type of an env (env << 32 | process type).
typealias PoolKey = UInt64

/// The ready instances of each pool, by instance id (R10).
struct InstanceTable {
    struct Ready: Equatable {
        let id: String
        let address: IPAddress
        let weight: UInt16
        let maxConnections: UInt32
        let priority: UInt8
    }
    struct Record: Equatable {
        let pool: PoolKey
        let address: IPAddress
        let status: InstanceStatus
        let graceSeconds: UInt32
        let weight: UInt16
        let maxConnections: UInt32
        let priority: UInt8
        /// It runs on this node (R19).
        let isHere: Bool
        let ipv4: IPAddress?
        /// Ready, and its env owns the address: a backend.
        var isServing: Bool
        /// Its env owned the address before: a contested address stays there.
        var isHolder: Bool

        var env: UInt32 { UInt32(truncatingIfNeeded: pool >> 32) }
    }

    private(set) var records: [String: Record] = [:]
    private var pools: [PoolKey: [Ready]] = [:]
    /// By address: instances that are ready. Mostly it is one. Made for the first change that asks.
    private var firstReady: [IPAddress: String] = [:]
    private var moreReady: [IPAddress: Set<String>] = [:]
    private var isIndexed = false
    /// Of this node (R19).
    private(set) var here: Set<String> = []
    /// Ids of several objects that differ, with the addresses of those that are ready.
    var twins: [String: Set<IPAddress>] = [:]

    func ready(_ pool: PoolKey) -> [Ready] { pools[pool] ?? [] }

    /// Replaces all instances; returns the changed pools.
    mutating func replace(_ new: [String: Record]) -> Set<PoolKey> {
        var fresh: [PoolKey: [Ready]] = [:]
        for (id, record) in new where record.isServing {
            fresh[record.pool, default: []].append(Ready(id, record))
        }
        var changed: Set<PoolKey> = []
        for (pool, list) in fresh {
            // One order on every node and after every restart: round robin is deterministic (R11).
            let sorted = list.sorted { $0.id.utf8.lexicographicallyPrecedes($1.id.utf8) }
            fresh[pool] = sorted
            if pools[pool] != sorted { changed.insert(pool) }
        }
        for pool in pools.keys where fresh[pool] == nil { changed.insert(pool) }
        records = new
        pools = fresh
        (firstReady, moreReady, here, isIndexed) = ([:], [:], [], false)
        for (id, record) in new where record.isHere { here.insert(id) }
        return changed
    }

    // MARK: Some of them

    /// Ids of instances that are ready at an address, whoever has it.
    mutating func ready(at address: IPAddress) -> Set<String> {
        if !isIndexed { index() }
        return (moreReady[address] ?? []).union(firstReady[address].map { [$0] } ?? [])
    }

    /// Replaces the instances `ids`: those without a record go. Returns the changed pools.
    mutating func update(_ new: [String: Record], of ids: Set<String>) -> Set<PoolKey> {
        var touched: Set<PoolKey> = []
        for id in ids {
            let (before, after) = (records[id], new[id])
            guard before != after else { continue }
            for record in [before, after] { if let record { touched.insert(record.pool) } }
            if let before { forget(id, before) }
            if let after { note(id, after) }
            records[id] = after
        }
        return touched.filter { refill($0, ids) }
    }

    /// True if the pool has changed.
    private mutating func refill(_ pool: PoolKey, _ ids: Set<String>) -> Bool {
        let before = pools[pool] ?? []
        var list = before.filter { !ids.contains($0.id) }
        for id in ids {
            if let record = records[id], record.pool == pool, record.isServing { list.append(Ready(id, record)) }
        }
        list.sort { $0.id.utf8.lexicographicallyPrecedes($1.id.utf8) }
        pools[pool] = list.isEmpty ? nil : list
        return list != before
    }

    private mutating func index() {
        isIndexed = true
        firstReady.reserveCapacity(records.count)
        for (id, record) in records { note(id, record) }
    }

    private mutating func note(_ id: String, _ record: Record) {
        if record.isHere { here.insert(id) }
        guard isIndexed, record.status == .ready else { return }
        if firstReady[record.address] == nil {
            firstReady[record.address] = id
        } else {
            moreReady[record.address, default: []].insert(id)
        }
    }

    private mutating func forget(_ id: String, _ record: Record) {
        if record.isHere { here.remove(id) }
        guard isIndexed, record.status == .ready else { return }
        if firstReady[record.address] == id { firstReady[record.address] = nil }
        moreReady[record.address]?.remove(id)
        if moreReady[record.address]?.isEmpty ?? false { moreReady[record.address] = nil }
    }
}

extension InstanceTable.Ready {
    init(_ id: String, _ record: InstanceTable.Record) {
        self.init(
            id: id, address: record.address, weight: record.weight, maxConnections: record.maxConnections,
            priority: record.priority)
    }
}

/// What a route points to: a pool at a port, or addresses of a config file.
struct GroupKey: Hashable {
    /// With addresses: the env and the name of the `backends` block.
    let pool: PoolKey
    let port: UInt16
    let addresses: [BackendSpec]
    /// It is a `backends` block.
    let isNamed: Bool
    /// Over all its routes; 0: no limit.
    let maxConnections: UInt32
    /// Nil: as the `backend` stage says.
    let health: RouteHealth?
    let policy: RoutePolicySpec?
    /// Some route of it uses consistent hashing, so the group has the table for it.
    let isHashed: Bool
    var env: UInt32 { UInt32(truncatingIfNeeded: pool >> 32) }

    static let nobodys = GroupKey(
        pool: .max, port: 0, addresses: [], isNamed: false, maxConnections: 0, health: nil, policy: nil,
        isHashed: false)

    /// A `backends` block is one for all envs that use it, whatever addresses it has today.
    var turns: TurnKey {
        if isNamed { return .block(UInt32(truncatingIfNeeded: pool)) }
        return addresses.isEmpty ? .instances(pool, port: port) : .addresses(pool, addresses)
    }
}

/// Whose routes take turns together (R11): each has one ``GroupCell``.
enum TurnKey: Hashable {
    case instances(PoolKey, port: UInt16)
    /// The backends of a `route` block.
    case addresses(PoolKey, [BackendSpec])
    /// A `backends` block, by the symbol of its name.
    case block(UInt32)
}

/// The distinct backend sets of routes: routes that point to the same instances share one.
struct GroupTable {
    typealias Box = UnsafeMutablePointer<BackendBox>

    struct Group {
        let key: GroupKey
        /// Its current backends; nil: the group is free.
        var box: UnsafeMutablePointer<BackendBox>?
        /// First of its routes' entries, but for those of a mapped table.
        var head = RouteEntry.none
        /// The places of those among the table's members.
        var range: Range<UInt32> = 0..<0
    }

    /// What is noted beside a group, apart from what is copied with it.
    private struct Notes {
        var identity: UInt64 = 0
        var uses = GroupUses()
        /// How many of its range are its own still.
        var inRange: UInt32 = 0
        /// Some table has, or is to have it: its routes came.
        var isLinked = false
        /// Another group is behind the number than the newest table has.
        var isStale = false
        /// Followers are to look at it.
        var isNews = false
    }

    /// Nobody has the number 0: bytes of a mapped table that are lost read as zeros.
    private var groups = [Group(key: .nobodys, box: nil)]
    private var notes = [Notes()]
    private var stale: [UInt32] = []
    private var news: [UInt32] = []
    private var nextIdentity: UInt64 = 0
    private var index: [GroupKey: UInt32] = [:]
    /// Of instances.
    private var byPool: [PoolKey: Set<UInt32>] = [:]
    private var free: [UInt32] = []
    private var last: UInt32?

    subscript(_ number: UInt32) -> Group { groups[Int(number)] }
    /// None was there yet.
    var isUnused: Bool { groups.count == 1 }
    /// No route leads to it.
    func isEmpty(_ number: UInt32) -> Bool {
        groups[Int(number)].head == RouteEntry.none && notes[Int(number)].inRange == 0
    }
    /// The entries of its routes.
    func entries(_ number: UInt32, _ store: RouteStore) -> GroupEntries {
        GroupEntries(number: number, range: groups[Int(number)].range, head: groups[Int(number)].head, store: store)
    }
    /// Numbers in use and free ones.
    var count: Int { groups.count }
    /// Nil: the number is free.
    func box(_ number: UInt32) -> Box? {
        Int(number) < groups.count ? groups[Int(number)].box : nil
    }
    func identity(_ number: UInt32) -> UInt64 { notes[Int(number)].identity }
    func uses(_ number: UInt32) -> [RoutesOfUse] { notes[Int(number)].uses.list }

    func visit(_ body: (UInt32, Group) -> Void) {
        for (number, group) in groups.enumerated() where group.box != nil { body(UInt32(number), group) }
    }

    /// The group's number; `make` gives the backends of a new one.
    mutating func number(_ key: GroupKey, make: () -> UnsafeMutablePointer<BackendBox>) -> UInt32 {
        if let last, groups[Int(last)].box != nil, groups[Int(last)].key == key { return last }
        let number: UInt32
        if let found = index[key] {
            number = found
        } else {
            let group = Group(key: key, box: make())
            if let reused = free.popLast() {
                number = reused
                groups[Int(number)] = group
            } else {
                number = UInt32(groups.count)
                groups.append(group)
                notes.append(Notes())
            }
            identify(number, key)
        }
        last = number
        return number
    }

    private mutating func identify(_ number: UInt32, _ key: GroupKey) {
        notes[Int(number)].identity = nextIdentity
        nextIdentity += 1
        index[key] = number
        if key.addresses.isEmpty { byPool[key.pool, default: []].insert(number) }
    }

    /// Takes the next group of a mapped table, before any other.
    mutating func adopt(_ key: GroupKey, _ box: Box, range: Range<UInt32>, _ uses: GroupUses) {
        let number = UInt32(groups.count)
        groups.append(Group(key: key, box: box, range: range))
        notes.append(Notes(uses: uses, inRange: UInt32(range.count), isLinked: true))
        identify(number, key)
        noteStale(number)
    }

    /// Forgets a group that no route points to; what it held must be released.
    mutating func remove(_ number: UInt32) -> UnsafeMutablePointer<BackendBox>? {
        guard let box = groups[Int(number)].box else { return nil }
        let key = groups[Int(number)].key
        index[key] = nil
        byPool[key.pool]?.remove(number)
        if byPool[key.pool]?.isEmpty ?? false { byPool[key.pool] = nil }
        groups[Int(number)].box = nil
        groups[Int(number)].range = 0..<0
        free.append(number)
        // One whose routes were all refused was never anywhere.
        if notes[Int(number)].isLinked { noteStale(number) }
        notes[Int(number)].isLinked = false
        return box
    }

    /// Gives a group other backends; what it held must be released.
    mutating func replace(_ number: UInt32, _ box: Box) -> Box? {
        defer { groups[Int(number)].box = box }
        if notes[Int(number)].isLinked { noteStale(number) }
        return groups[Int(number)].box
    }

    // MARK: What has changed

    var hasStale: Bool { !stale.isEmpty }

    /// Numbers behind which is another group than the newest table has: for the next one.
    mutating func takeStale() -> [UInt32] {
        defer { stale = [] }
        for number in stale { notes[Int(number)].isStale = false }
        return stale
    }

    /// Numbers of groups with other backends or routes than when this was asked last.
    mutating func takeNews() -> [UInt32] {
        defer { news = [] }
        for number in news { notes[Int(number)].isNews = false }
        return news
    }

    /// The next table is to have it anew: its owner is another one.
    mutating func renew(_ number: UInt32) {
        if notes[Int(number)].isLinked { noteStale(number) }
    }

    private mutating func noteStale(_ number: UInt32) {
        note(number)
        guard !notes[Int(number)].isStale else { return }
        notes[Int(number)].isStale = true
        stale.append(number)
    }

    /// It is news to followers.
    mutating func note(_ number: UInt32) {
        guard !notes[Int(number)].isNews else { return }
        notes[Int(number)].isNews = true
        news.append(number)
    }

    func numbers(ofEnvs envs: Set<UInt32>) -> [UInt32] {
        groups.indices.filter { groups[$0].box != nil && envs.contains(groups[$0].key.env) }.map { UInt32($0) }
    }

    /// The groups of these pools' instances, in order.
    func numbers(of pools: Set<PoolKey>) -> [UInt32] { pools.flatMap { byPool[$0] ?? [] }.sorted() }

    // MARK: Routes of a group

    /// No group has any; all are to be linked again.
    mutating func forgetRoutes() {
        for number in groups.indices where groups[number].box != nil {
            (groups[number].head, groups[number].range) = (RouteEntry.none, 0..<0)
            (notes[number].uses, notes[number].inRange) = (GroupUses(), 0)
            note(UInt32(number))
        }
    }

    mutating func link(_ entry: UInt32, to number: UInt32, _ use: RouteUse, _ store: RouteStore) {
        notes[Int(number)].uses.add(use, store.sharedCell(entry))
        note(number)
        if !notes[Int(number)].isLinked {
            notes[Int(number)].isLinked = true
            noteStale(number)
        }
        let head = groups[Int(number)].head
        store.entry(entry).pointee.previousInGroup = RouteEntry.none
        store.entry(entry).pointee.nextInGroup = head
        if head != RouteEntry.none { store.entry(head).pointee.previousInGroup = entry }
        groups[Int(number)].head = entry
    }

    /// - Parameter route: as the newest table has it.
    mutating func unlink(_ route: UnsafePointer<TableRoute>, _ store: RouteStore) {
        let (entry, number) = (route.pointee.entry, route.pointee.group)
        notes[Int(number)].uses.remove(
            route.pointee.use, route.pointee.isShared ? store.sharedCell(entry) : nil)
        note(number)
        guard !store.entry(entry).pointee.isInRange else {
            store.entry(entry).pointee.isInRange = false
            notes[Int(number)].inRange -= 1
            return
        }
        let (previous, next) = (store.entry(entry).pointee.previousInGroup, store.entry(entry).pointee.nextInGroup)
        if previous == RouteEntry.none {
            groups[Int(number)].head = next
        } else {
            store.entry(previous).pointee.nextInGroup = next
        }
        if next != RouteEntry.none { store.entry(next).pointee.previousInGroup = previous }
    }
}
