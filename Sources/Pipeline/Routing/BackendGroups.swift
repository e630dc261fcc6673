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

    func ready(_ pool: PoolKey) -> [Ready] { pools[pool] ?? [] }

    /// Replaces all instances; returns the changed pools.
    mutating func replace(_ new: [String: Record]) -> Set<PoolKey> {
        var fresh: [PoolKey: [Ready]] = [:]
        for (id, record) in new where record.isServing {
            fresh[record.pool, default: []].append(
                Ready(
                    id: id, address: record.address, weight: record.weight, maxConnections: record.maxConnections,
                    priority: record.priority))
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
        return changed
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
    struct Group {
        let key: GroupKey
        /// Its current backends; nil: the group is free.
        var box: UnsafeMutablePointer<BackendBox>?
        /// First of its routes' entries.
        var head = RouteEntry.none
    }

    private var groups: [Group] = []
    private var index: [GroupKey: UInt32] = [:]
    private var free: [UInt32] = []
    private var last: UInt32?

    subscript(_ number: UInt32) -> Group {
        get { groups[Int(number)] }
        set { groups[Int(number)] = newValue }
    }

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
            }
            index[key] = number
        }
        last = number
        return number
    }

    /// Forgets a group that no route points to; what it held must be released.
    mutating func remove(_ number: UInt32) -> UnsafeMutablePointer<BackendBox>? {
        guard let box = groups[Int(number)].box else { return nil }
        index[groups[Int(number)].key] = nil
        groups[Int(number)].box = nil
        free.append(number)
        return box
    }

    // MARK: Routes of a group

    mutating func link(_ entry: UInt32, to number: UInt32, _ store: RouteStore) {
        let head = groups[Int(number)].head
        store.entry(entry).pointee.previousInGroup = RouteEntry.none
        store.entry(entry).pointee.nextInGroup = head
        if head != RouteEntry.none { store.entry(head).pointee.previousInGroup = entry }
        groups[Int(number)].head = entry
    }

    mutating func unlink(_ entry: UInt32, from number: UInt32, _ store: RouteStore) {
        let (previous, next) = (store.entry(entry).pointee.previousInGroup, store.entry(entry).pointee.nextInGroup)
        if previous == RouteEntry.none {
            groups[Int(number)].head = next
        } else {
            store.entry(previous).pointee.nextInGroup = next
        }
        if next != RouteEntry.none { store.entry(next).pointee.previousInGroup = previous }
    }
}
