import Pipeline

/// A table as an earlier process wrote it, served where it lies (ADR 0116). Each byte that leads somewhere was looked at when
/// it was opened; where what it lies in is cut since, it reads as zeros, which lead nowhere.
///
/// Threading: immutable; any number of readers. Ownership: keeps what it lies in.
public final class MappedTable: @unchecked Sendable {
    /// What it lies in.
    private let owner: AnyObject
    let layout: MappedLayout
    private let base: UnsafeRawPointer
    /// Of its routes, whose numbers are 1...``count``.
    let count: UInt32
    let groups: [MappedGroup]
    /// As ``PortUses`` counts them.
    let ports: [(port: UInt16, count: UInt32, mix: UInt32)]
    /// Of each shard where it begins, and its first number; of the end. In memory, since the control side goes by them whatever
    /// becomes of what is mapped.
    private let places: [(start: Int, first: UInt32)]

    /// Of what is written now.
    public static let version = MappedLayout.version

    var shardCount: Int { layout[.places].count }

    /// - Parameters:
    ///   - content: begins at a multiple of 8, as long as `owner` lives.
    ///   - info: what was noted with it.
    /// - Returns: nil: it makes no sense.
    public init?(_ content: UnsafeRawBufferPointer, info: [UInt8], owner: AnyObject) {
        guard let base = content.baseAddress, Int(bitPattern: base) % 8 == 0,
            let layout = MappedLayout(info: info, byteCount: content.count)
        else { return nil }
        (self.owner, self.layout, self.base) = (owner, layout, base)
        let (shards, members, texts) = (layout[.places].count, layout[.members].count, layout[.texts].count)
        let uses = layout[.uses].count
        guard shards > 0, shards & (shards - 1) == 0, shards <= 1 << 24, members > 0,
            members <= MappedLayout.mostRoutes, layout[.slots].count > members
        else { return nil }
        count = UInt32(members)
        var groups: [MappedGroup] = []
        let (start, groupCount) = layout[.groups]
        guard groupCount > 0, groupCount <= members else { return nil }
        groups.reserveCapacity(groupCount)
        var usesEnd = uses
        for index in (0..<groupCount).reversed() {
            guard
                let group = MappedGroup(
                    base + start + index * MappedGroup.stride, usesEnd: usesEnd, members: members, texts: texts)
            else { return nil }
            usesEnd = group.uses.lowerBound
            groups.append(group)
        }
        groups.reverse()
        self.groups = groups
        var counts = MappedCounts(groups: groupCount)
        guard usesEnd == 0, let places = MappedTable.places(base, layout, &counts) else { return nil }
        (self.places, ports) = (places, counts.ports)
        guard hasRightCounts(counts.groups) else { return nil }
    }

    /// What is counted down later begins as high as it should.
    /// - Parameter counts: of the routes of each group, by number.
    private func hasRightCounts(_ counts: [UInt32]) -> Bool {
        for (index, group) in groups.enumerated() {
            let uses = uses(group)
            let sum = uses.reduce(UInt64(0)) { $0 + UInt64($1.count) }
            guard group.members.count == Int(counts[index + 1]), sum == UInt64(counts[index + 1]),
                uses.allSatisfy({ $0.count > 0 })
            else { return false }
        }
        return true
    }

    /// Every shard lies in its part, and whatever its bytes lead to lies in it.
    private static func places(
        _ base: UnsafeRawPointer, _ layout: MappedLayout, _ counts: inout MappedCounts
    ) -> [(start: Int, first: UInt32)]? {
        let (start, shards) = layout[.places]
        let (shardsAt, end) = layout[.shards]
        let word = { (index: Int) in
            UInt32(littleEndian: base.load(fromByteOffset: start + index * 4, as: UInt32.self))
        }
        var places: [(start: Int, first: UInt32)] = []
        places.reserveCapacity(shards + 1)
        var (next, at) = (1, 0)
        for index in 0..<shards {
            let offset = Int(word(index * 2)) * 8
            guard Int(word(index * 2 + 1)) == next, offset >= at, offset <= end,
                let (routes, size) = RouteShard.checkMapped(
                    base + shardsAt + offset, limit: end - offset, place: UInt32(index), first: UInt32(next),
                    &counts)
            else { return nil }
            places.append((shardsAt + offset, UInt32(next)))
            (next, at) = (next + routes, offset + size)
            guard next <= layout[.members].count + 1 else { return nil }
        }
        guard next == layout[.members].count + 1 else { return nil }
        return places + [(shardsAt + end, UInt32(next))]
    }

    // MARK: Parts

    @inline(__always) private func word(_ part: MappedLayout.Part, _ index: Int) -> UInt32 {
        UInt32(littleEndian: base.load(fromByteOffset: layout.starts[part.rawValue] + index * 4, as: UInt32.self))
    }

    func text(_ range: Range<Int>) -> Bytes {
        let start = base + layout[.texts].start + range.lowerBound
        return Bytes(start: start.assumingMemoryBound(to: UInt8.self), count: range.count)
    }

    /// The number at a place among the members of groups; nil: there is none.
    func member(_ place: UInt32) -> UInt32? {
        guard place < count else { return nil }
        let number = word(.members, Int(place))
        return number > 0 && number <= count ? number : nil
    }

    func uses(_ group: MappedGroup) -> [(use: RouteUse, count: UInt32)] {
        group.uses.map { index in
            let what = word(.uses, index * 2 + 1)
            let flags = Route.Flags(rawValue: UInt8(truncatingIfNeeded: what >> 16))
            return (RouteUse(port: UInt16(truncatingIfNeeded: what), flags), word(.uses, index * 2))
        }
    }

    /// Ids of routes that were in force and are not among its own.
    func visitOthers(_ body: (Bytes) -> Void) {
        let texts = layout[.texts].count
        for index in 0..<layout[.others].count {
            let (start, length) = (Int(word(.others, index * 2)), Int(word(.others, index * 2 + 1)))
            if start + length <= texts { body(text(start..<start + length)) }
        }
    }

    // MARK: Shards

    func shard(_ index: Int) -> RouteShard.Pointer {
        UnsafeMutableRawPointer(mutating: base + places[index].start).assumingMemoryBound(to: RouteShard.self)
    }

    /// Which of its shards that is; nil: none of them.
    func place(of shard: RouteShard.Pointer) -> Int? {
        let offset = UnsafeRawPointer(shard) - base
        guard offset >= places[0].start, offset < layout[.shards].count else { return nil }
        return last { places[$0].start <= offset }
    }

    /// The last shard for which that holds, as for all before it.
    private func last(where isReached: (Int) -> Bool) -> Int {
        var (low, high) = (0, shardCount)
        while high - low > 1 {
            let middle = (low + high) / 2
            if isReached(middle) { low = middle } else { high = middle }
        }
        return low
    }

    /// The numbers of a shard's routes.
    func numbers(ofShard index: Int) -> Range<UInt32> { places[index].first..<places[index + 1].first }

    /// It is a text of its own.
    func has(_ text: CountedText) -> Bool {
        let offset = UnsafeRawPointer(text.bytes.baseAddress.unsafelyUnwrapped) - base
        return offset >= 0 && offset < layout.end
    }

    /// Where the route of a number lies; nil: it has none.
    func route(_ number: UInt32) -> UnsafePointer<TableRoute>? {
        guard number > 0, number <= count else { return nil }
        let index = last { places[$0].first <= number }
        return shard(index).routes + Int(number - places[index].first)
    }

    /// The number of a route's id that `matches`.
    /// - Parameter hash: of the id, in the domain 3.
    func find(_ hash: UInt64, where matches: (UInt32) -> Bool) -> UInt32? {
        let slots = layout[.slots].count
        var slot = Int(UInt64(slots).multipliedFullWidth(by: hash).high)
        // As many looks as there are slots, for a table that has no free one.
        for _ in 0..<slots {
            let number = word(.slots, slot)
            if number == 0 { return nil }
            if number <= count, matches(number) { return number }
            slot += 1
            if slot == slots { slot = 0 }
        }
        return nil
    }

    /// Each number with its id.
    func visitIDs(_ body: (UInt32, CountedText) -> Void) {
        for index in 0..<shardCount { shard(index).visit { body($0.pointee.entry, $0.mappedID) } }
    }
}

/// What is counted as the routes of a mapped table are looked at.
struct MappedCounts {
    /// By number.
    fileprivate(set) var groups: [UInt32]
    private var byPort = [(count: UInt32, mix: UInt32)](repeating: (0, 0), count: 65536)

    init(groups: Int) { self.groups = Array(repeating: 0, count: groups + 1) }

    fileprivate mutating func add(_ group: UInt32, _ port: UInt16, _ number: UInt32) {
        groups[Int(group)] += 1
        byPort[Int(port)] = (byPort[Int(port)].count + 1, byPort[Int(port)].mix ^ (number &+ 1))
    }

    var ports: [(port: UInt16, count: UInt32, mix: UInt32)] {
        byPort.indices.filter { byPort[$0].count > 0 }.map { (UInt16($0), byPort[$0].count, byPort[$0].mix) }
    }
}

extension UnsafePointer<TableRoute> {
    /// The id of a route that lies in a mapped table, behind its name.
    var mappedID: CountedText {
        let name = name
        return CountedText(at: UnsafePointer<UInt8>(name.baseAddress.unsafelyUnwrapped + name.count))
    }
}

extension RouteShard {
    /// Looks at one that lies in a mapped table.
    /// - Parameters:
    ///   - limit: bytes until the end of its part.
    ///   - first: the number of its first route.
    ///   - counts: its routes are added.
    /// - Returns: how many routes it has, and bytes; nil: something in it leads out of it.
    static func checkMapped(
        _ base: UnsafeRawPointer, limit: Int, place: UInt32, first: UInt32, _ counts: inout MappedCounts
    ) -> (routes: Int, size: Int)? {
        let headerBytes = MemoryLayout<RouteShard>.stride
        guard limit >= headerBytes, Int(bitPattern: base) % MemoryLayout<RouteShard>.alignment == 0 else { return nil }
        let shard = base.load(as: RouteShard.self)
        let (routes, slots, size) = (Int(shard.routeCount), Int(shard.slotMask) + 1, Int(shard.size))
        guard shard.references == mappedMark | place, routes <= countLimit, slots & (slots - 1) == 0, size <= limit,
            slots <= limit
        else { return nil }
        let slotsAt = headerBytes + routes * MemoryLayout<TableRoute>.stride
        let textAt = slotsAt + slots * MemoryLayout<UInt32>.stride
        guard textAt <= size, checkSlots(base + slotsAt, slots, routes: shard.routeCount) else { return nil }
        for index in 0..<routes {
            let offset = headerBytes + index * MemoryLayout<TableRoute>.stride
            let number = first &+ UInt32(index)
            guard
                TableRoute.checkMapped(
                    base + offset, text: textAt - offset, end: size - offset, number: number, &counts)
            else { return nil }
        }
        return (routes, size)
    }

    private static func checkSlots(_ base: UnsafeRawPointer, _ count: Int, routes: UInt32) -> Bool {
        var free = 0
        for index in 0..<count {
            let slot = base.load(fromByteOffset: index * 4, as: UInt32.self)
            if slot == 0 { free += 1 }
            guard slot == 0 || (1...max(1, routes)).contains(slot & 0x000F_FFFF) && routes > 0 else { return false }
        }
        // A lookup that finds nothing ends there.
        return free > 0
    }
}

extension TableRoute {
    /// Of an exact name, and nothing about it that a table has to know besides: see ``TableImage``.
    static func isMappable(_ options: RouteOptions) -> Bool {
        options.isDisjoint(with: [.raw, .wildcard, .suffix, .byClient, .ipv4Required, .proxyMismatch])
    }

    /// Looks at the bytes of one.
    /// - Parameters:
    ///   - text: how far behind it its shard's text begins, and `end` where that ends.
    fileprivate static func checkMapped(
        _ base: UnsafeRawPointer, text: Int, end: Int, number: UInt32, _ counts: inout MappedCounts
    ) -> Bool {
        let word = { (offset: Int) in base.load(fromByteOffset: offset, as: UInt32.self) }
        let byte = { (offset: Int) in base.load(fromByteOffset: offset, as: UInt8.self) }
        let group = word(Offsets.group)
        let options = RouteOptions(rawValue: base.load(fromByteOffset: Offsets.options, as: UInt16.self))
        let (name, length) = (Int(word(Offsets.nameDistance)), Int(byte(Offsets.nameLength)))
        guard group > 0, Int(group) < counts.groups.count, word(Offsets.entry) == number, isMappable(options),
            byte(Offsets.flags) == options.flags.rawValue, length > 0, byte(Offsets.alpnLength) == 0,
            byte(Offsets.isShared) == 0, name >= text, name + length + 2 <= end
        else { return false }
        let id = Int(byte(name + length)) | Int(byte(name + length + 1)) << 8
        guard id > 0, name + length + 2 + id <= end else { return false }
        counts.add(group, base.load(fromByteOffset: Offsets.port, as: UInt16.self), number)
        return true
    }

    private enum Offsets {
        static let group = offset(\.group)
        static let entry = offset(\.entry)
        static let nameDistance = offset(\.nameDistance)
        static let options = offset(\.options)
        static let port = offset(\.port)
        static let flags = offset(\.flags)
        static let nameLength = offset(\.nameLength)
        static let alpnLength = offset(\.alpnLength)
        static let isShared = offset(\.isShared)

        private static func offset<Field>(_ path: KeyPath<TableRoute, Field>) -> Int {
            MemoryLayout<TableRoute>.offset(of: path) ?? MemoryLayout<TableRoute>.stride
        }
    }
}
