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

/// One route in a shard: what the data path reads first, then what only the control side needs. 48 bytes.
/// The name stands in the shard's text, the id with the route's cell.
struct TableRoute {
    let route: Route
    let nameStart: UnsafePointer<UInt8>
    let nameLength: UInt8
    /// Of ``alpn``, which stands behind the name.
    let alpnLength: UInt8
    let options: RouteOptions
    /// Its ``RouteEntry``.
    let entry: UInt32

    /// In the ``GroupTable``.
    var group: UInt32 { route.slot }
    var name: Bytes { Bytes(start: nameStart, count: Int(nameLength)) }
    /// The protocol that a hello must offer; empty: any, or none.
    @inline(__always) var alpn: Bytes { Bytes(start: nameStart + Int(nameLength), count: Int(alpnLength)) }
    var use: RouteUse { RouteUse(port: route.port, options) }
    /// It asks for more than a name: never the only possible route (R6).
    var isConditional: Bool { alpnLength > 0 || options.contains(.byClient) }
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
    let hash: UInt64
}

/// A shard of the table: the routes whose name hashes share their first bits, in one block of memory: header, slots,
/// routes, text. Immutable once built; shared by snapshots through ``references``.
///
/// Threading: ``find(_:hash:kind:port:)`` from any; everything else on the control side only.
struct RouteShard {
    /// How many tables hold it. Control side only.
    var references: Int
    let count: Int
    private let slotMask: Int
    private let slots: UnsafeMutablePointer<UInt32>
    private let routes: UnsafeMutablePointer<TableRoute>
    let byteCount: Int

    typealias Pointer = UnsafeMutablePointer<RouteShard>

    // A slot is 0, or 12 bits of hash over 20 bits of index + 1. Shards hold about a hundred routes: a keyed hash
    // over names puts no million into one.
    static let countLimit = 0xF_FFFE
    private static func tag(_ hash: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: hash &>> 20) & 0xFFF0_0000 }

    /// Makes a shard of `items`. `finish` gives each route's pointers, and is told where it now lives.
    static func make(
        _ items: [ShardItem], owner: (ShardItem) -> UnsafePointer<RouteOwner>,
        cell: (ShardItem) -> UnsafePointer<RouteCell>,
        placed: (ShardItem, UnsafePointer<TableRoute>) -> Void
    ) -> Pointer {
        precondition(items.count <= countLimit)
        var slotCount = 1
        // At most 3/4 full: a lookup that finds nothing must meet an empty slot soon.
        while slotCount * 3 < items.count * 4 || slotCount == items.count { slotCount *= 2 }
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
            let name = UnsafePointer(text)
            if let base = item.name.baseAddress { text.update(from: base, count: item.name.count) }
            text += item.name.count
            if let base = item.alpn.baseAddress { text.update(from: base, count: item.alpn.count) }
            text += item.alpn.count
            let route = Route(
                owner: owner(item), slot: item.group, cell: cell(item),
                port: item.port, flags: item.options.flags, balance: item.options.balance,
                maxConnections: item.maxConnections)
            (routes + index).initialize(
                to: TableRoute(
                    route: route, nameStart: name, nameLength: UInt8(truncatingIfNeeded: item.name.count),
                    alpnLength: UInt8(truncatingIfNeeded: item.alpn.count), options: item.options,
                    entry: item.entry))
            var position = Int(truncatingIfNeeded: item.hash) & (slotCount - 1)
            while slots[position] != 0 { position = (position + 1) & (slotCount - 1) }
            slots[position] = tag(item.hash) | UInt32(index + 1)
            placed(item, routes + index)
        }
        let shard = memory.bindMemory(to: RouteShard.self, capacity: 1)
        shard.initialize(
            to: RouteShard(
                references: 0, count: items.count, slotMask: slotCount - 1, slots: slots, routes: routes,
                byteCount: size))
        return shard
    }

    var all: UnsafeBufferPointer<TableRoute> { UnsafeBufferPointer(start: routes, count: count) }

    /// Each route with this name, at whichever port. Control side.
    func forEach(_ name: Bytes, hash: UInt64, kind: KeyKind, _ body: (UnsafePointer<TableRoute>) -> Void) {
        let tag = RouteShard.tag(hash)
        var position = Int(truncatingIfNeeded: hash) & slotMask
        while slots[position] != 0 {
            if slots[position] & 0xFFF0_0000 == tag {
                let route = UnsafePointer<TableRoute>(routes + (Int(slots[position] & 0x000F_FFFF) &- 1))
                if KeyKind(route.pointee.options) == kind, sameBytes(route.pointee.name, name) { body(route) }
            }
            position = (position &+ 1) & slotMask
        }
    }

    /// The route of this key and port. No allocation, no reference counting; one probe run over flat memory.
    /// - Parameter alpn: empty: the route that asks for none.
    @inline(__always)
    func find(
        _ name: Bytes, alpn: Bytes = Bytes(start: nil, count: 0), hash: UInt64, kind: KeyKind, port: UInt16
    ) -> UnsafePointer<TableRoute>? {
        let tag = RouteShard.tag(hash)
        var position = Int(truncatingIfNeeded: hash) & slotMask
        while true {
            let slot = slots[position]
            if slot == 0 { return nil }
            if slot & 0xFFF0_0000 == tag {
                let index = Int(slot & 0x000F_FFFF) &- 1
                let candidate = UnsafePointer<TableRoute>(routes + index)
                if candidate.pointee.route.port == port, KeyKind(candidate.pointee.options) == kind,
                    sameBytes(candidate.pointee.name, name), Int(candidate.pointee.alpnLength) == alpn.count,
                    alpn.isEmpty || sameBytes(candidate.pointee.alpn, alpn)
                {
                    return candidate
                }
            }
            position = (position &+ 1) & slotMask
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
        return flags
    }
}
