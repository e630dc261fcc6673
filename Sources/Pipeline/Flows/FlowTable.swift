import Glibc
import Pipeline

/// Flow counters of one worker: growth since the last records. Bounded and allocated once.
///
/// When the table is full, new keys are aggregated by source (the instance's address), under destination `::`, port 0;
/// with too many sources, under source `::`. Sums therefore stay exact (R27).
///
/// Threading: one thread. Ownership: the creator calls ``deallocate()``; a copy is the same table.
public struct FlowTable: @unchecked Sendable {
    struct Entry {
        var key: FlowKey
        var hash: UInt64
        var connections: UInt32
        var bytesOut: UInt64
        var bytesIn: UInt64
        var firstSeen: UInt64
        var lastSeen: UInt64

        var isAggregated: Bool { key.destination == .unspecified && key.port == 0 }

        var record: FlowRecord {
            FlowRecord(
                key: key, connections: connections, bytesOut: bytesOut, bytesIn: bytesIn, firstSeen: firstSeen,
                lastSeen: lastSeen, origin: 0, sequence: 0)
        }
    }

    /// Growth of one flow.
    public struct Growth: Sendable {
        public var connections: UInt32
        public var bytesOut: UInt64
        public var bytesIn: UInt64
        /// Wall clock, nanoseconds since 1970.
        public var firstSeen: UInt64
        public var lastSeen: UInt64
        public init(connections: UInt32, bytesOut: UInt64, bytesIn: UInt64, firstSeen: UInt64, lastSeen: UInt64) {
            self.connections = connections
            self.bytesOut = bytesOut
            self.bytesIn = bytesIn
            self.firstSeen = firstSeen
            self.lastSeen = lastSeen
        }
    }

    /// The most keys with their own entry.
    public let capacity: Int
    private let aggregatedCapacity: Int
    /// Dense: `count` of them are in use.
    private let entries: UnsafeMutablePointer<Entry>
    /// Open addressing with linear probing, at most half full: 0 is free, else the entry's place plus one.
    private let index: UnsafeMutablePointer<UInt32>
    private let mask: Int
    private let seed: HashSeed
    public private(set) var count = 0
    private var aggregatedCount = 0
    /// Where ``drain(into:limit:)`` continues, so that no entry starves while the ring has little room.
    private var cursor = 0

    /// - Returns: nil if the system has no memory for it. It is touched as keys come.
    public init?(capacity: Int = 16384, seed: HashSeed = .random()) {
        self.capacity = max(1, capacity)
        aggregatedCapacity = max(1, capacity / 16)
        let total = self.capacity + aggregatedCapacity + 1
        var size = 4
        while size < total * 2 { size *= 2 }
        guard let index = calloc(size, MemoryLayout<UInt32>.stride),
            let entries = malloc(total * MemoryLayout<Entry>.stride)
        else { return nil }
        self.index = index.bindMemory(to: UInt32.self, capacity: size)
        self.entries = entries.bindMemory(to: Entry.self, capacity: total)
        mask = size - 1
        self.seed = seed
    }

    public func deallocate() {
        free(index)
        free(entries)
    }

    /// Adds growth to the key's entry. False if it was aggregated.
    @discardableResult public mutating func add(_ key: FlowKey, _ growth: Growth) -> Bool {
        if merge(key, growth, mayInsert: count - aggregatedCount < capacity) { return true }
        var aggregated = key
        aggregated.destination = .unspecified
        aggregated.port = 0
        if !merge(aggregated, growth, mayInsert: aggregatedCount < aggregatedCapacity) {
            aggregated.instance = .max
            aggregated.source = .unspecified
            _ = merge(aggregated, growth, mayInsert: aggregatedCount <= aggregatedCapacity)
        }
        return false
    }

    private mutating func merge(_ key: FlowKey, _ growth: Growth, mayInsert: Bool) -> Bool {
        let hash = SipHash.hash(key, seed: seed)
        var position = Int(truncatingIfNeeded: hash) & mask
        while index[position] != 0 {
            let entry = entries + (Int(index[position]) - 1)
            if entry.pointee.hash == hash, entry.pointee.key == key {
                entry.pointee.add(growth)
                return true
            }
            position = (position &+ 1) & mask
        }
        guard mayInsert else { return false }
        let entry = Entry(
            key: key, hash: hash, connections: growth.connections, bytesOut: growth.bytesOut, bytesIn: growth.bytesIn,
            firstSeen: growth.firstSeen, lastSeen: growth.lastSeen)
        (entries + count).initialize(to: entry)
        count += 1
        if entry.isAggregated { aggregatedCount += 1 }
        index[position] = UInt32(truncatingIfNeeded: count)
        return true
    }

    /// Moves entries into the queue.
    /// - Parameter limit: the most entries, so that an iteration stays short. - Returns: false if the queue is full:
    ///   the rest stays, keeps growing, and is moved later.
    public mutating func drain(into queue: UnsafeMutablePointer<FlowQueue>, limit: Int) -> Bool {
        var left = limit
        while count > 0, left > 0 {
            if cursor >= count { cursor = 0 }
            guard queue.pointee.push(entries[cursor].record) else { return false }
            remove(cursor)
            cursor += 1
            left -= 1
        }
        return true
    }

    /// Removes and returns all entries.
    public mutating func takeAll() -> [FlowRecord] {
        let records = (0..<count).map { entries[$0].record }
        while count > 0 { remove(count - 1) }
        return records
    }

    private mutating func remove(_ place: Int) {
        unlink(position(of: place))
        if entries[place].isAggregated { aggregatedCount -= 1 }
        count -= 1
        guard place != count else { return }
        index[position(of: count)] = UInt32(truncatingIfNeeded: place + 1)
        entries[place] = entries[count]
    }

    /// Where the index names that entry.
    private func position(of place: Int) -> Int {
        var position = Int(truncatingIfNeeded: entries[place].hash) & mask
        while index[position] != UInt32(truncatingIfNeeded: place + 1) { position = (position &+ 1) & mask }
        return position
    }

    /// Frees a position and closes the gap: displaced entries behind it move up.
    private func unlink(_ position: Int) {
        var gap = position
        var next = (position &+ 1) & mask
        while index[next] != 0 {
            let home = Int(truncatingIfNeeded: entries[Int(index[next]) - 1].hash) & mask
            // It may move if its home is not behind the gap, seen around the end.
            if (next &- home) & mask >= (next &- gap) & mask {
                index[gap] = index[next]
                gap = next
            }
            next = (next &+ 1) & mask
        }
        index[gap] = 0
    }
}

extension FlowTable.Entry {
    mutating func add(_ growth: FlowTable.Growth) {
        connections = connections.addingSaturating(growth.connections)
        bytesOut = bytesOut.addingSaturating(growth.bytesOut)
        bytesIn = bytesIn.addingSaturating(growth.bytesIn)
        firstSeen = min(firstSeen, growth.firstSeen)
        lastSeen = max(lastSeen, growth.lastSeen)
    }
}

extension FixedWidthInteger {
    @inline(__always) fileprivate func addingSaturating(_ other: Self) -> Self {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
