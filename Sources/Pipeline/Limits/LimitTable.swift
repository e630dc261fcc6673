import Glibc
import Pipeline
import Synchronization

/// Statistics of a table. Threading: any; relaxed.
struct LimitCounters: ~Copyable {
    /// Slots that were ever used, which is what the table has touched of its memory.
    let touched = Atomic<UInt64>(0)
    let inserted = Atomic<UInt64>(0)
    let refused = Atomic<UInt64>(0)
}

/// A `limit` block with its table: bounded, allocated once, shared by all workers, without a lock (docs/adr/0009).
///
/// Threading: any number of threads may ask ``handle`` at once. Ownership: the program, through the stages that name
/// the block, and the next program after a reload that left the block as it was.
public final class LimitTable: ConfigBlock, Sendable {
    public let name: String
    public let settings: LimitSettings
    /// What the data path reads. Valid as long as this object.
    public let handle: LimitHandle

    /// Nil if there is not enough memory. Address space is reserved here, and pages are used as entries are.
    public init?(name: String, settings: LimitSettings, seed: HashSeed = .random()) {
        guard let handle = LimitHandle.allocate(settings, seed) else { return nil }
        self.name = name
        self.settings = settings
        self.handle = handle
    }

    deinit { handle.deallocate() }

    /// The most entries: what the block says, rounded up to whole buckets.
    public var capacity: Int { handle.slotCount }
    /// Connections that a full table has refused.
    public var refusedInserts: UInt64 { handle.counters.pointee.refused.load(ordering: .relaxed) }
    /// Keys that were given an entry, ever.
    public var inserts: UInt64 { handle.counters.pointee.inserted.load(ordering: .relaxed) }
    /// Slots used so far, whether or not they are free again.
    public var touched: UInt64 { handle.counters.pointee.touched.load(ordering: .relaxed) }

    /// The approximate number of entries that can't be reused at `now`. Walks the table: not for workers.
    public func entriesInUse(at now: Instant) -> Int {
        (0..<handle.slotCount).reduce(0) { sum, index in
            let slot = handle.slot(index)
            let word = slot.word
            return sum + (LimitWord.isLive(word) && !handle.isFree(slot, word, now.nanoseconds) ? 1 : 0)
        }
    }
}

/// A ``LimitTable`` as the data path holds it: trivially copyable, valid as long as the table.
public struct LimitHandle: @unchecked Sendable {
    static let ways = 8
    private static let tagBytes = ways * MemoryLayout<UInt64>.size
    private static let lineBytes = 64

    private let allocation: UnsafeMutableRawPointer
    private let buckets: UnsafeMutableRawPointer
    let counters: UnsafePointer<LimitCounters>
    let bucketCount: UInt64
    private let bucketBytes: Int
    private let entryBytes: Int
    private let seed: HashSeed
    private let bytesUp: ByteRate?
    private let bytesDown: ByteRate?

    /// GCRA: from one connection to the next, and how far a key's time may run ahead of the clock; 0: no rate.
    let interval: UInt64
    let tolerance: UInt64
    let concurrent: UInt32
    public let isHeld: Bool
    let isPaced: Bool
    public let key: LimitKey

    fileprivate static func allocate(_ settings: LimitSettings, _ seed: HashSeed) -> LimitHandle? {
        let count = max(1, min(settings.entries, LimitSettings.entryLimit))
        let bucketCount = (Int(count) + ways - 1) / ways
        let entryBytes = LimitSlot.bytes + (settings.isPaced ? MemoryLayout<ByteBuckets>.stride : 0)
        let bytes = bucketCount * (tagBytes + ways * entryBytes) + lineBytes
        // Fresh pages of the system are zero, and zero is an empty table: nothing is touched before it is used.
        guard let allocation = calloc(bytes, 1) else { return nil }
        return LimitHandle(settings, seed, allocation, bucketCount: bucketCount, entryBytes: entryBytes)
    }

    private init(
        _ settings: LimitSettings, _ seed: HashSeed, _ allocation: UnsafeMutableRawPointer, bucketCount: Int,
        entryBytes: Int
    ) {
        self.allocation = allocation
        buckets = allocation.alignedUp(toMultipleOf: LimitHandle.lineBytes)
        let counters = UnsafeMutablePointer<LimitCounters>.allocate(capacity: 1)
        counters.initialize(to: LimitCounters())
        self.counters = UnsafePointer(counters)
        self.bucketCount = UInt64(bucketCount)
        self.entryBytes = entryBytes
        bucketBytes = LimitHandle.tagBytes + LimitHandle.ways * entryBytes
        self.seed = seed
        bytesUp = settings.bytesUp
        bytesDown = settings.bytesDown
        interval = settings.rate?.interval ?? 0
        tolerance = min(settings.rate?.refill.nanoseconds ?? 0, LimitWord.timeLimit / 2)
        concurrent = settings.concurrent ?? .max
        isHeld = settings.isHeld
        isPaced = settings.isPaced
        key = settings.key
    }

    fileprivate func deallocate() {
        free(allocation)
        UnsafeMutablePointer(mutating: counters).deinitialize(count: 1).deallocate()
    }

    // MARK: Where things are

    public var slotCount: Int { Int(bucketCount) * LimitHandle.ways }

    @inline(__always) func slot(_ index: Int) -> LimitSlot {
        let (bucket, way) = (index / LimitHandle.ways, index % LimitHandle.ways)
        let base = buckets + bucket &* bucketBytes
        return LimitSlot(
            index: index,
            tag: UnsafePointer(base.assumingMemoryBound(to: Atomic<UInt64>.self) + way),
            entry: UnsafeRawPointer(base + LimitHandle.tagBytes + way &* entryBytes))
    }

    /// A slot's bucket before its first key; later keys find it full.
    func makeBuckets(_ slot: LimitSlot) {
        UnsafeMutablePointer(mutating: slot.bucket).initialize(
            to: ByteBuckets(
                up: ByteBucket(bytesPerSecond: bytesUp?.bytesPerSecond ?? 0, burst: bytesUp?.burst ?? 0),
                down: ByteBucket(bytesPerSecond: bytesDown?.bytesPerSecond ?? 0, burst: bytesDown?.burst ?? 0)))
    }

    @inline(__always) func place(of key: LimitKeyBits) -> LimitPlace {
        let (one, two) = SipHash.wideHash(key.high, key.low, seed: seed)
        return LimitPlace(
            first: Int(truncatingIfNeeded: one.multipliedFullWidth(by: bucketCount).high),
            second: Int(truncatingIfNeeded: two.multipliedFullWidth(by: bucketCount).high),
            // Low bits: the high ones are the same for all of a bucket.
            tag: (one &<< 32 | two & 0xFFFF_FFFF) | 1)
    }

    /// The key of a text: 128 bits of keyed hash, whose collisions are infeasible.
    public func bits(of text: FrozenText) -> LimitKeyBits {
        let (high, low) = SipHash.wideHash(text.buffer, seed: seed)
        return LimitKeyBits(high: high, low: low)
    }

    /// The key of an env, or of something of it that has an id there: the same only if all are.
    public func bits(
        org: FrozenText, app: FrozenText, env: FrozenText, id: FrozenText? = nil
    ) -> LimitKeyBits {
        var row = SipHash.Row(seed: seed)
        row.add(org.buffer)
        row.add(app.buffer)
        row.add(env.buffer)
        if let id { row.add(id.buffer) }
        let (high, low) = row.result()
        return LimitKeyBits(high: high, low: low)
    }
}
