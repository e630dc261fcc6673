import CLinux
import Pipeline

/// Small numbers for a bounded set of keys in use: fixed memory, mapped once and touched as keys come. The owner keeps
/// data of a key in a separate array. The hash is keyed, because strangers choose addresses.
struct KeyTable: ~Copyable {
    /// 1...; 0: none, as in freshly mapped memory.
    typealias Name = Int32

    private struct Entry {
        var key: UInt64
        var kind: UInt8
        /// The next one of the same hash, or the next free one.
        var next: Name
    }

    private let memory: UnsafeMutableRawPointer
    private let size: Int
    private let entries: UnsafeMutablePointer<Entry>
    private let heads: UnsafeMutablePointer<Name>
    private let mask: Int
    private let seed: HashSeed
    private var free: Name = 0
    private var touched: Name = 0
    private(set) var count = 0

    /// Nil if the address space can't be had.
    init?(capacity: Int, seed: HashSeed) {
        var buckets = 1
        while buckets < capacity { buckets *= 2 }
        mask = buckets - 1
        self.seed = seed
        // Place 0 is unused.
        let entryBytes = (capacity + 1) * MemoryLayout<Entry>.stride
        size = entryBytes + buckets * MemoryLayout<Name>.stride
        guard let memory = cl_map(size) else { return nil }
        self.memory = memory
        entries = memory.bindMemory(to: Entry.self, capacity: capacity + 1)
        heads = (memory + entryBytes).bindMemory(to: Name.self, capacity: buckets)
    }

    deinit { cl_unmap(memory, size) }

    /// 0: the key is not in use.
    func find(_ key: UInt64, _ kind: UInt8) -> Name {
        guard count > 0 else { return 0 }
        var name = heads[bucket(key, kind)]
        while name != 0, !isOf(name, key, kind) { name = entries[Int(name)].next }
        return name
    }

    func isOf(_ name: Name, _ key: UInt64, _ kind: UInt8) -> Bool {
        entries[Int(name)].key == key && entries[Int(name)].kind == kind
    }

    /// Assigns a number to a key that is not in use. There must be room.
    mutating func make(_ key: UInt64, _ kind: UInt8) -> Name {
        var name = free
        if name != 0 {
            free = entries[Int(name)].next
        } else {
            touched += 1
            name = touched
        }
        let bucket = bucket(key, kind)
        entries[Int(name)] = Entry(key: key, kind: kind, next: heads[bucket])
        heads[bucket] = name
        count += 1
        return name
    }

    mutating func remove(_ name: Name) {
        let bucket = bucket(entries[Int(name)].key, entries[Int(name)].kind)
        if heads[bucket] == name {
            heads[bucket] = entries[Int(name)].next
        } else {
            var other = heads[bucket]
            while entries[Int(other)].next != name { other = entries[Int(other)].next }
            entries[Int(other)].next = entries[Int(name)].next
        }
        entries[Int(name)].next = free
        free = name
        count -= 1
    }

    private func bucket(_ key: UInt64, _ kind: UInt8) -> Int {
        let hash = withUnsafeBytes(of: key) {
            SipHash.hash($0.assumingMemoryBound(to: UInt8.self), domain: kind, seed: seed)
        }
        return Int(truncatingIfNeeded: hash) & mask
    }
}
