import Pipeline

/// The route table that workers read: a directory of shards, the one possible route of each port, and the groups of backends.
/// Flat memory, immutable; ``RouteTableSnapshot`` owns it.
struct RouteTable: RouteLookup {
    /// One port that routes listen on.
    struct PortSlot {
        let port: UInt16
        let isUsed: Bool
        /// Nil: several routes are possible.
        let sole: UnsafePointer<TableRoute>?
    }

    let seed: HashSeed
    /// log2 of the number of shards.
    let shardBits: UInt64
    let shards: UnsafeMutableBufferPointer<RouteShard.Pointer>
    let ports: UnsafeMutableBufferPointer<PortSlot>
    let groups: SlotLookup
    let entries: EntryTable
    let patterns: NamePatterns
    /// Some route asks for more than a name.
    let hasConditions: Bool
    let dedicated: DedicatedTable
    /// R30: numbers of suspended envs, in order.
    let suspended: FrozenArray<UInt32>

    static let noneSuspended = FrozenArray<UInt32>(viewing: UnsafeMutableBufferPointer(start: nil, count: 0))

    static func hash(_ name: Bytes, _ kind: KeyKind, port: UInt16, seed: HashSeed) -> UInt64 {
        // A raw route has no name: its port is its key. A name's ports share one hash, see ``Claims/portsPerName``.
        guard kind == .raw else { return SipHash.hash(name, domain: kind.rawValue, seed: seed) }
        return withUnsafeBytes(of: port.bigEndian) { raw in
            raw.withMemoryRebound(to: UInt8.self) { SipHash.hash($0, domain: kind.rawValue, seed: seed) }
        }
    }

    @inline(__always) static func shard(of hash: UInt64, bits: UInt64) -> Int {
        bits == 0 ? 0 : Int(truncatingIfNeeded: hash &>> (64 &- bits))
    }

    /// A route of this table, with its backends in it.
    @inline(__always) func found(_ route: UnsafePointer<TableRoute>) -> FoundRoute {
        let (record, slot) = (route.pointee, groups[route.pointee.group])
        return FoundRoute(
            Route(
                owner: slot.owner, slot: record.group, cell: entries.cell(of: record),
                name: record.isShared ? nil : entries.name(record.entry), port: record.port, flags: record.flags,
                balance: record.options.balance, maxConnections: record.maxConnections),
            slot.group)
    }

    @inline(__always) private func find(_ name: Bytes, _ kind: KeyKind, _ port: UInt16) -> UnsafePointer<TableRoute>? {
        let hash = SipHash.hash(name, domain: kind.rawValue, seed: seed)
        return shards[RouteTable.shard(of: hash, bits: shardBits)].find(
            name, hash: hash, kind: kind, port: port)
    }

    public static func named(
        _ name: UnsafeBufferPointer<UInt8>, at destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> FoundRoute? {
        let table = table.assumingMemoryBound(to: RouteTable.self)
        return table.pointee.route(name, at: destination).map { table.pointee.found($0) }
    }

    /// The route as the table has it.
    @inline(__always) func route(_ name: Bytes, at destination: DestinationAddress) -> UnsafePointer<TableRoute>? {
        if !dedicated.isEmpty, let place = dedicated.find(destination.endpoint) {
            return route(name, dedicated: place)
        }
        let port = destination.endpoint.port
        if let found = find(name, .exact, port) { return found }
        guard !patterns.isEmpty else { return nil }
        return patterns.first(over: name) { find($0, KeyKind($1), port) }
    }

    public static func named(
        _ name: UnsafeBufferPointer<UInt8>, offering protocols: ALPNList, at destination: DestinationAddress,
        in table: UnsafeRawPointer
    ) -> FoundRoute? {
        let it = table.assumingMemoryBound(to: RouteTable.self)
        guard it.pointee.hasConditions, !protocols.isEmpty else { return named(name, at: destination, in: table) }
        let port = destination.endpoint.port
        let place = it.pointee.dedicated.find(destination.endpoint)
        if let found = it.pointee.find(name, .exact, port, protocols, place) { return it.pointee.found(found) }
        guard !it.pointee.patterns.isEmpty else { return nil }
        let found = it.pointee.patterns.first(over: name) {
            it.pointee.find($0, KeyKind($1), port, protocols, place)
        }
        return found.map { it.pointee.found($0) }
    }

    /// Of one name or wildcard: the route of the first protocol that has one, else the route of all.
    private func find(
        _ name: Bytes, _ kind: KeyKind, _ port: UInt16, _ protocols: ALPNList, _ place: DedicatedTable.Place?
    ) -> UnsafePointer<TableRoute>? {
        let hash = SipHash.hash(name, domain: kind.rawValue, seed: seed)
        let shard = shards[RouteTable.shard(of: hash, bits: shardBits)]
        let chosen = protocols.first { alpn in
            served(shard.find(name, alpn: alpn, hash: hash, kind: kind, port: port), place)
        }
        return chosen ?? served(shard.find(name, hash: hash, kind: kind, port: port), place)
    }

    /// R9: nil also for a route that a dedicated address does not serve.
    @inline(__always) private func served(
        _ route: UnsafePointer<TableRoute>?, _ place: DedicatedTable.Place?
    ) -> UnsafePointer<TableRoute>? {
        guard let route, let place else { return route }
        return place.serves(route, groups) ? route : nil
    }

    public static func speaking(
        _ client: ClientProtocol, at destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> FoundRoute? {
        let table = table.assumingMemoryBound(to: RouteTable.self)
        guard table.pointee.hasConditions else { return nil }
        let port = destination.endpoint.port
        let found = ClientKey(client, at: port).withBytes { table.pointee.find($0, .client, port) }
        let route = table.pointee.served(found, table.pointee.dedicated.find(destination.endpoint))
        return route.map { table.pointee.found($0) }
    }

    /// R9: lookup among the routes of this dedicated address alone.
    private func route(_ name: Bytes, dedicated place: DedicatedTable.Place) -> UnsafePointer<TableRoute>? {
        if let exact = served(find(name, .exact, place.port), place) { return exact }
        guard !patterns.isEmpty else { return nil }
        return patterns.first(over: name) { suffix, kind in served(find(suffix, KeyKind(kind), place.port), place) }
    }

    public static func sole(
        at destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> FoundRoute? {
        let table = table.assumingMemoryBound(to: RouteTable.self)
        if !table.pointee.dedicated.isEmpty, let place = table.pointee.dedicated.find(destination.endpoint) {
            return place.sole.map { table.pointee.found($0) }
        }
        let ports = table.pointee.ports
        let mask = ports.count &- 1
        var position = RouteTable.home(destination.endpoint.port) & mask
        while ports[position].isUsed {
            if ports[position].port == destination.endpoint.port {
                return ports[position].sole.map { table.pointee.found($0) }
            }
            position = (position &+ 1) & mask
        }
        return nil
    }

    public static func isSuspended(_ tenant: TenantNumbers, in table: UnsafeRawPointer) -> Bool {
        let suspended = table.assumingMemoryBound(to: RouteTable.self).pointee.suspended
        return !suspended.isEmpty && suspended.hasSorted(tenant.env)
    }

    public static func owner(
        ofDedicated destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> UnsafePointer<RouteOwner>? {
        let table = table.assumingMemoryBound(to: RouteTable.self)
        return table.pointee.dedicated.isEmpty ? nil : table.pointee.dedicated.find(destination.endpoint)?.owner
    }

    /// Spreads neighbouring ports; no key needed, there are only 65,535 of them.
    @inline(__always) static func home(_ port: UInt16) -> Int { Int((UInt32(port) &* 0x9E37_79B1) &>> 12) }

    /// A directory of ports, at most half full.
    static func makePorts(
        _ used: [(port: UInt16, sole: UnsafePointer<TableRoute>?)]
    ) -> UnsafeMutableBufferPointer<PortSlot> {
        var size = 2
        while size < used.count * 2 { size *= 2 }
        let slots = UnsafeMutableBufferPointer<PortSlot>.allocate(capacity: size)
        slots.initialize(repeating: PortSlot(port: 0, isUsed: false, sole: nil))
        for (port, sole) in used {
            var position = home(port) & (size - 1)
            while slots[position].isUsed { position = (position + 1) & (size - 1) }
            slots[position] = PortSlot(port: port, isUsed: true, sole: sole)
        }
        return slots
    }
}

/// One consistent version of the route table: every lookup in it sees the same routes (R22).
///
/// Threading: made and released on the control side, which keeps it until no worker and no connection uses its
/// ``handle``; lookups through that from any thread. Releasing the last reference frees what no other snapshot shares.
public final class RouteTableSnapshot {
    let store: RouteStore
    let table: UnsafeMutablePointer<RouteTable>
    public let routeCount: Int
    let routes: RouteDirectory
    let groups: GroupSlots
    private let directory: InstanceDirectoryBox?
    private let suspended: SuspendedEnvs?

    init(
        store: RouteStore, seed: HashSeed, routes: RouteDirectory, groups: GroupSlots, routeCount: Int,
        patterns: NamePatterns = NamePatterns(), hasConditions: Bool = false, directory: InstanceDirectoryBox? = nil,
        suspended: SuspendedEnvs? = nil
    ) {
        self.directory = directory
        self.suspended = suspended
        self.store = store
        self.routes = routes
        self.groups = groups
        self.routeCount = routeCount
        let shards = routes.shards.shards
        table = .allocate(capacity: 1)
        table.initialize(
            to: RouteTable(
                seed: seed, shardBits: UInt64(shards.count.trailingZeroBitCount), shards: shards, ports: routes.ports,
                groups: groups.lookup, entries: store.entries, patterns: patterns, hasConditions: hasConditions,
                dedicated: routes.dedicated,
                suspended: suspended?.numbers ?? RouteTable.noneSuspended))
        store.allocated()
    }

    deinit {
        table.deallocate()
        store.freed()
    }

    /// The lookup handle of workers; valid as long as this snapshot.
    public var handle: RouteTableHandle { RouteTableHandle(RouteTable.self, table: table) }

    /// R19: this node's instances by address; valid as long as this snapshot.
    public var instances: InstanceDirectory { directory?.directory ?? .empty }

    /// Bytes of the table itself: directory, shards, names, groups' numbers; without backends, cells and the control side's
    /// indexes.
    public var byteCount: Int {
        let table = table.pointee
        let directory = table.shards.count * MemoryLayout<RouteShard.Pointer>.stride
        let ports = table.ports.count * MemoryLayout<RouteTable.PortSlot>.stride
        return table.shards.reduce(directory + ports + groups.byteCount) { $0 + $1.byteCount }
    }
}
