import Pipeline

/// The kind of a table key. Equal bytes of different kinds are different keys.
enum KeyKind: UInt8 {
    /// A whole hostname.
    case exact
    /// What follows `*.`: any one label in front.
    case wildcard
    /// No name: the port alone.
    case raw
    /// What follows `.`: the name itself, and any labels in front.
    case suffix
    /// No name: a port and a ``ClientProtocol``.
    case client

    @inline(__always) init(_ kind: NamePatterns.Kind) { self = kind == .wildcard ? .wildcard : .suffix }

    init(_ options: RouteOptions) { self = options.contains(.raw) ? .raw : options.nameKind }

    /// What people write in front of the bytes.
    var mark: String {
        switch self {
        case .wildcard: "*."
        case .suffix: "."
        case .exact, .raw, .client: ""
        }
    }

    /// By the ``mark`` in front of a text. A mark alone is none.
    init(markOf text: some RandomAccessCollection<UInt8>) {
        let begins = { (kind: KeyKind) in text.count > 1 && text.starts(with: kind.mark.utf8) }
        self = begins(.wildcard) ? .wildcard : begins(.suffix) ? .suffix : .exact
    }

    /// A text in canonical form, and its kind.
    static func split(_ text: String) -> (kind: KeyKind, bytes: [UInt8]) {
        let bytes = Array(text.utf8)
        let kind = KeyKind(markOf: bytes)
        return (kind, Array(bytes.dropFirst(kind.mark.utf8.count)))
    }
}

/// One route in a shard, 24 bytes. Where its name, its owner and its counters are it says by numbers and distances, so that
/// it is the same at any address: see docs/adr/0106. Read it where it lies.
struct TableRoute {
    /// Its group, in the ``GroupTable``.
    let group: UInt32
    /// Its ``RouteEntry``.
    let entry: UInt32
    /// 0: no limit.
    let maxConnections: UInt32
    /// How far behind this record its name begins.
    let nameDistance: UInt32
    let port: UInt16
    let options: RouteOptions
    let flags: Route.Flags
    let nameLength: UInt8
    /// Of ``alpn``, which stands behind the name.
    let alpnLength: UInt8
    /// It counts in a ``RouteCellBox``.
    let isShared: Bool

    var use: RouteUse { RouteUse(port: port, options) }
    /// It asks for more than a name: never the only possible route (R6).
    var isConditional: Bool { alpnLength > 0 || options.contains(.byClient) }
}

extension UnsafePointer<TableRoute> {
    @inline(__always) private var nameStart: UnsafePointer<UInt8> {
        (UnsafeRawPointer(self) + Int(pointee.nameDistance)).assumingMemoryBound(to: UInt8.self)
    }
    @inline(__always) var name: Bytes { Bytes(start: nameStart, count: Int(pointee.nameLength)) }
    /// The protocol that a hello must offer; empty: any, or none.
    @inline(__always) var alpn: Bytes {
        Bytes(start: nameStart + Int(pointee.nameLength), count: Int(pointee.alpnLength))
    }
}

/// What a shard's route is built from.
struct ShardItem {
    let name: Bytes
    let alpn: Bytes
    let options: RouteOptions
    let port: UInt16
    let entry: UInt32
    let group: UInt32
    let maxConnections: UInt32
    /// Its entry counts in a ``RouteCellBox``.
    let isShared: Bool
    let hash: UInt64
}

/// A shard of the table: the routes whose name hashes share their first bits, in one block of memory: this header, routes,
/// slots, text. Immutable once built, and the same at any address; shared by snapshots through ``references``.
///
/// Threading: ``find(_:hash:kind:port:)`` from any; everything else on the control side only.
struct RouteShard {
    /// How many tables hold it. Control side only. Of one that lies in a ``MappedTable``: ``mappedMark`` and its place there.
    var references: UInt32
    let routeCount: UInt32
    let slotMask: UInt32
    let size: UInt32

    static let mappedMark: UInt32 = 1 << 31

    typealias Pointer = UnsafeMutablePointer<RouteShard>

    // A slot is 0, or 12 bits of hash over 20 bits of index + 1. Shards hold about a hundred routes: a keyed hash
    // over names puts no million into one.
    static let countLimit = 0xF_FFFE
    static func tag(_ hash: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: hash &>> 20) & 0xFFF0_0000 }

    /// At most 3/4 full: a lookup that finds nothing must meet an empty slot soon.
    static func slots(for routes: Int) -> Int {
        var count = 1
        while count * 3 < routes * 4 || count == routes { count *= 2 }
        return count
    }

    /// Makes a shard of `items`. `placed` is told where each route now lives.
    static func make(_ items: [ShardItem], placed: (ShardItem, UnsafePointer<TableRoute>) -> Void) -> Pointer {
        precondition(items.count <= countLimit)
        let slotCount = slots(for: items.count)
        let routesAt = MemoryLayout<RouteShard>.stride
        let slotsAt = routesAt + items.count * MemoryLayout<TableRoute>.stride
        let textAt = slotsAt + slotCount * MemoryLayout<UInt32>.stride
        let size = items.reduce(textAt) { $0 + $1.name.count + $1.alpn.count }
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
        let slots = (memory + slotsAt).bindMemory(to: UInt32.self, capacity: slotCount)
        slots.initialize(repeating: 0, count: slotCount)
        let routes = (memory + routesAt).bindMemory(to: TableRoute.self, capacity: items.count)
        var text = (memory + textAt).bindMemory(to: UInt8.self, capacity: max(1, size - textAt))
        for (index, item) in items.enumerated() {
            let distance = UnsafeMutableRawPointer(text) - UnsafeMutableRawPointer(routes + index)
            if let base = item.name.baseAddress { text.update(from: base, count: item.name.count) }
            text += item.name.count
            if let base = item.alpn.baseAddress { text.update(from: base, count: item.alpn.count) }
            text += item.alpn.count
            (routes + index).initialize(to: TableRoute(item, nameDistance: UInt32(truncatingIfNeeded: distance)))
            var position = Int(truncatingIfNeeded: item.hash) & (slotCount - 1)
            while slots[position] != 0 { position = (position + 1) & (slotCount - 1) }
            slots[position] = tag(item.hash) | UInt32(index + 1)
            placed(item, routes + index)
        }
        let shard = memory.bindMemory(to: RouteShard.self, capacity: 1)
        shard.initialize(
            to: RouteShard(
                references: 0, routeCount: UInt32(items.count), slotMask: UInt32(slotCount - 1),
                size: UInt32(truncatingIfNeeded: size)))
        return shard
    }
}

extension TableRoute {
    init(_ item: ShardItem, nameDistance: UInt32) {
        group = item.group
        entry = item.entry
        maxConnections = item.maxConnections
        self.nameDistance = nameDistance
        port = item.port
        options = item.options
        flags = item.options.flags
        nameLength = UInt8(truncatingIfNeeded: item.name.count)
        alpnLength = UInt8(truncatingIfNeeded: item.alpn.count)
        isShared = item.isShared
    }
}

extension UnsafeMutablePointer<RouteShard> {
    @inline(__always) var routes: UnsafePointer<TableRoute> {
        (UnsafeRawPointer(self) + MemoryLayout<RouteShard>.stride).assumingMemoryBound(to: TableRoute.self)
    }
    @inline(__always) private var slots: UnsafePointer<UInt32> {
        UnsafeRawPointer(routes + Int(pointee.routeCount)).assumingMemoryBound(to: UInt32.self)
    }

    var count: Int { Int(pointee.routeCount) }
    var byteCount: Int { Int(pointee.size) }
    func visit(_ body: (UnsafePointer<TableRoute>) -> Void) {
        for index in 0..<count { body(routes + index) }
    }

    /// Each route with this name, at whichever port. Control side.
    func visit(_ name: Bytes, hash: UInt64, kind: KeyKind, _ body: (UnsafePointer<TableRoute>) -> Void) {
        let tag = RouteShard.tag(hash)
        let mask = Int(pointee.slotMask)
        var position = Int(truncatingIfNeeded: hash) & mask
        while slots[position] != 0 {
            if slots[position] & 0xFFF0_0000 == tag {
                let route = routes + (Int(slots[position] & 0x000F_FFFF) &- 1)
                if KeyKind(route.pointee.options) == kind, sameBytes(route.name, name) { body(route) }
            }
            position = (position &+ 1) & mask
        }
    }

    /// The route of this key and port. No allocation, no reference counting; one probe run over flat memory.
    /// - Parameter alpn: empty: the route that asks for none.
    @inline(__always)
    func find(
        _ name: Bytes, alpn: Bytes = Bytes(start: nil, count: 0), hash: UInt64, kind: KeyKind, port: UInt16
    ) -> UnsafePointer<TableRoute>? {
        let tag = RouteShard.tag(hash)
        let (routes, slots, mask) = (routes, slots, Int(pointee.slotMask))
        var position = Int(truncatingIfNeeded: hash) & mask
        while true {
            let slot = slots[position]
            if slot == 0 { return nil }
            if slot & 0xFFF0_0000 == tag {
                let candidate = routes + (Int(slot & 0x000F_FFFF) &- 1)
                if candidate.pointee.port == port, KeyKind(candidate.pointee.options) == kind,
                    sameBytes(candidate.name, name), Int(candidate.pointee.alpnLength) == alpn.count,
                    alpn.isEmpty || sameBytes(candidate.alpn, alpn)
                {
                    return candidate
                }
            }
            position = (position &+ 1) & mask
        }
    }
}

extension RouteOptions {
    /// What the data path needs of them.
    var flags: Route.Flags {
        var flags: Route.Flags = []
        if contains(.raw) { flags.insert(.raw) }
        if contains(.proxyHeader) { flags.insert(.proxyHeader) }
        if contains(.proxyText) { flags.insert(.proxyText) }
        if contains(.allowNonTLS) { flags.insert(.allowNonTLS) }
        if contains(.proxyMismatch) { flags.insert(.proxyMismatch) }
        if contains(.withdrawn) { flags.insert(.withdrawn) }
        return flags
    }
}
