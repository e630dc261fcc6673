import Pipeline

/// The parts of a ``MappedTable``, made from the shards of a table one after the other.
struct TableWriter {
    /// The shard that was added last, as it is to be written.
    private(set) var scratch: [UInt8] = []

    private let image: TableImage
    private let entries: EntryTable
    private var shardBytes = 0
    /// Two words a shard.
    private var places = MappedWords()
    private var slots: [UInt32]
    /// By number - 1: the group.
    private var memberships: [UInt32] = []
    /// By number in the image's table: in this one; 0: none yet.
    private var groupNumbers: [UInt32]
    private var groups: [(from: Int, uses: [Use])] = []
    private var others = MappedWords()
    private var otherCount = 0
    private var otherTexts: [UInt8] = []
    private var verdicts: [UInt32: Bool] = [:]
    private var items: [Item] = []

    private struct Use {
        let port: UInt16
        let flags: Route.Flags
        var count: UInt32
    }
    private struct Item {
        let route: UnsafePointer<TableRoute>
        let hash: UInt64
        let group: UInt32
    }

    init(_ image: TableImage) {
        self.image = image
        entries = image.snapshot.store.entries
        let routes = image.snapshot.routeCount
        memberships.reserveCapacity(routes)
        slots = Array(repeating: 0, count: routes + routes / 2 + 8)
        groupNumbers = Array(repeating: 0, count: image.groups.count)
    }

    var isWorthKeeping: Bool { !memberships.isEmpty && otherCount <= TableImage.mostOthers }

    // MARK: Shards

    mutating func add(_ shard: RouteShard.Pointer) {
        items.removeAll(keepingCapacity: true)
        shard.visit { take($0) }
        let first = UInt32(memberships.count + 1)
        places.put(UInt32(truncatingIfNeeded: shardBytes / 8), first)
        let place = UInt32(truncatingIfNeeded: places.bytes.count / 8 - 1)
        layOut(place: place, first: first)
        shardBytes += scratch.count
        for item in items { note(item) }
    }

    private mutating func take(_ route: UnsafePointer<TableRoute>) {
        let record = route.pointee
        guard !record.isShared, record.alpnLength == 0, record.nameLength > 0, isClean(record.options, record.port),
            let group = number(record.group)
        else { return noteOther(record.entry) }
        let hash = RouteTable.hash(route.name, .exact, port: record.port, seed: image.seed)
        items.append(Item(route: route, hash: hash, group: group))
    }

    /// The rules have nothing to say of it.
    private mutating func isClean(_ options: RouteOptions, _ port: UInt16) -> Bool {
        guard TableRoute.isMappable(options) else { return false }
        let key = UInt32(options.rawValue) << 16 | UInt32(port)
        if let known = verdicts[key] { return known }
        let isClean = image.rules.isClean(options, port: port)
        verdicts[key] = isClean
        return isClean
    }

    private mutating func number(_ group: UInt32) -> UInt32? {
        guard Int(group) < image.groups.count, image.groups[Int(group)] != nil else { return nil }
        if groupNumbers[Int(group)] == 0 {
            groups.append((Int(group), []))
            groupNumbers[Int(group)] = UInt32(groups.count)
        }
        return groupNumbers[Int(group)]
    }

    private mutating func noteOther(_ entry: UInt32) {
        let id = entries.name(entry).pointee.bytes
        // Among the texts they stand behind those of groups.
        others.put(UInt32(image.texts.count + otherTexts.count), UInt32(id.count))
        otherTexts.append(contentsOf: id)
        otherCount += 1
    }

    /// Header, routes, slots, and names with their ids.
    private mutating func layOut(place: UInt32, first: UInt32) {
        let slotCount = RouteShard.slots(for: items.count)
        let slotsAt = MemoryLayout<RouteShard>.stride + items.count * MemoryLayout<TableRoute>.stride
        let textAt = slotsAt + slotCount * MemoryLayout<UInt32>.stride
        let entries = entries
        let size = items.reduce(textAt) {
            $0 + Int($1.route.pointee.nameLength)
                + CountedText.byteCount(of: entries.name($1.route.pointee.entry).pointee.bytes.count)
        }
        scratch = [UInt8](repeating: 0, count: MappedLayout.padded(size))
        scratch.withUnsafeMutableBytes { bytes in
            bytes.storeBytes(
                of: RouteShard(
                    references: RouteShard.mappedMark | place, routeCount: UInt32(items.count),
                    slotMask: UInt32(slotCount - 1), size: UInt32(truncatingIfNeeded: size)), as: RouteShard.self)
            var text = textAt
            for (index, item) in items.enumerated() {
                let at = MemoryLayout<RouteShard>.stride + index * MemoryLayout<TableRoute>.stride
                let route = TableRoute(
                    of: item.route, entry: first + UInt32(index), group: item.group, nameDistance: UInt32(text - at))
                bytes.storeBytes(of: route, toByteOffset: at, as: TableRoute.self)
                text = TableWriter.write(item.route.name, entries.name(item.route.pointee.entry).pointee, bytes, text)
                var slot = Int(truncatingIfNeeded: item.hash) & (slotCount - 1)
                while bytes.load(fromByteOffset: slotsAt + slot * 4, as: UInt32.self) != 0 {
                    slot = (slot + 1) & (slotCount - 1)
                }
                bytes.storeBytes(
                    of: RouteShard.tag(item.hash) | UInt32(index + 1), toByteOffset: slotsAt + slot * 4, as: UInt32.self
                )
            }
        }
    }

    private static func write(
        _ name: Bytes, _ id: CountedText, _ bytes: UnsafeMutableRawBufferPointer, _ offset: Int
    ) -> Int {
        let idAt = offset + name.count
        let end = idAt + CountedText.byteCount(of: id.bytes.count)
        UnsafeMutableRawBufferPointer(rebasing: bytes[offset..<idAt]).copyBytes(from: name)
        let room = UnsafeMutableRawBufferPointer(rebasing: bytes[idAt..<end])
        if let base = room.baseAddress { CountedText.write(id.bytes, to: base.assumingMemoryBound(to: UInt8.self)) }
        return end
    }

    /// What other parts have of a route.
    private mutating func note(_ item: Item) {
        let record = item.route.pointee
        memberships.append(item.group)
        let number = UInt32(memberships.count)
        let id = entries.name(record.entry).pointee.bytes
        let hash = SipHash.hash(id, domain: 3, seed: image.seed)
        var slot = Int(UInt64(slots.count).multipliedFullWidth(by: hash).high)
        while slots[slot] != 0 {
            slot += 1
            if slot == slots.count { slot = 0 }
        }
        slots[slot] = number
        let (group, use) = (Int(item.group) - 1, record.use)
        if let known = groups[group].uses.firstIndex(where: { $0.port == use.port && $0.flags == use.flags }) {
            groups[group].uses[known].count += 1
        } else {
            groups[group].uses.append(Use(port: use.port, flags: use.flags, count: 1))
        }
    }

    // MARK: The other parts

    var layout: MappedLayout {
        MappedLayout(counts: [
            shardBytes, places.bytes.count / 8, slots.count, memberships.count, groups.count,
            groups.reduce(0) { $0 + $1.uses.count }, otherCount, image.texts.count + otherTexts.count,
        ])
    }

    /// Those behind the shards, in order, each filled up to a multiple of 8.
    func parts() -> [[UInt8]] {
        let (starts, members) = members()
        var (groupBytes, uses) = ([UInt8](), MappedWords())
        var useCount = 0
        for (index, group) in groups.enumerated() {
            guard let known = image.groups[group.from] else { continue }
            let mapped = MappedGroup(
                env: known.env, process: known.process, port: known.port, isHashed: known.isHashed,
                members: starts[index]..<starts[index + 1], uses: useCount..<useCount + group.uses.count)
            groupBytes += mapped.bytes
            useCount += group.uses.count
            for use in group.uses { uses.put(use.count, UInt32(use.port) | UInt32(use.flags.rawValue) << 16) }
        }
        let words = [places.bytes, TableWriter.bytes(slots), TableWriter.bytes(members), groupBytes, uses.bytes]
        return (words + [others.bytes, image.texts + otherTexts]).map(TableWriter.padded)
    }

    /// Numbers by group, and where each group's begin.
    private func members() -> (starts: [UInt32], members: [UInt32]) {
        var starts = [UInt32](repeating: 0, count: groups.count + 1)
        for group in memberships { starts[Int(group)] += 1 }
        for index in 1..<starts.count { starts[index] += starts[index - 1] }
        var next = starts
        var members = [UInt32](repeating: 0, count: memberships.count)
        for (index, group) in memberships.enumerated() {
            members[Int(next[Int(group) - 1])] = UInt32(index + 1)
            next[Int(group) - 1] += 1
        }
        return (starts, members)
    }

    private static func bytes(_ words: [UInt32]) -> [UInt8] { words.withUnsafeBytes { Array($0) } }

    private static func padded(_ bytes: [UInt8]) -> [UInt8] {
        bytes + [UInt8](repeating: 0, count: MappedLayout.padded(bytes.count) - bytes.count)
    }
}

extension RouteRules {
    /// Nothing is to be said of a route by name with these options, whatever else there is.
    func isClean(_ options: RouteOptions, port: UInt16) -> Bool {
        fault(options, port: port, hasName: true) == nil && mismatch(options, port: port) == nil
            && warnings(options, port: port, hasIPv4: false).isEmpty
    }
}

extension TableRoute {
    /// The same route in a mapped table.
    fileprivate init(of route: UnsafePointer<TableRoute>, entry: UInt32, group: UInt32, nameDistance: UInt32) {
        let record = route.pointee
        self.init(
            ShardItem(
                name: route.name, alpn: Bytes(start: nil, count: 0), options: record.options, port: record.port,
                entry: entry, group: group, maxConnections: record.maxConnections, isShared: false, hash: 0),
            nameDistance: nameDistance)
    }
}
