import Pipeline

/// What changed since a snapshot: a hash table over records in memory that does not move.
///
/// Threading: one writer; once it is written no more, any number of readers.
final class Overlay: @unchecked Sendable {
    let seed: HashSeed
    private var chunks: [UnsafeMutableRawBufferPointer] = []
    private var used = 0
    private var slots: UnsafeMutableBufferPointer<UnsafeRawPointer?>
    private(set) var count = 0
    /// With what replaced records left behind.
    private(set) var byteCount = 0

    private static let firstChunk = 16 << 10
    private static let laterChunk = 1 << 20

    init(_ seed: HashSeed) {
        self.seed = seed
        slots = .allocate(capacity: 16)
        slots.initialize(repeating: nil)
    }

    deinit {
        slots.deallocate()
        for chunk in chunks { chunk.deallocate() }
    }

    func find(_ kind: UInt8, _ id: UnsafeBufferPointer<UInt8>, hash: UInt64) -> Record? {
        guard let base = slots[place(kind, id, hash)] else { return nil }
        return Record(known: base)
    }

    /// Keeps a copy.
    func set(_ record: Record, hash: UInt64) {
        if (count + 1) * 2 > slots.count { grow() }
        let place = place(record.kind, record.id, hash)
        if slots[place] == nil { count += 1 }
        slots[place] = copy(record)
    }

    /// In no order.
    func visit(_ body: (Record) -> Void) {
        for slot in slots { if let slot { body(Record(known: slot)) } }
    }

    /// Where a key is, or would go. There is always a free slot.
    private func place(_ kind: UInt8, _ id: UnsafeBufferPointer<UInt8>, _ hash: UInt64) -> Int {
        let mask = slots.count - 1
        var place = Int(truncatingIfNeeded: hash) & mask
        while let base = slots[place], Record(known: base).compare(kind, id) != 0 { place = (place + 1) & mask }
        return place
    }

    private func grow() {
        let old = slots
        slots = .allocate(capacity: old.count * 2)
        slots.initialize(repeating: nil)
        for slot in old {
            guard let slot else { continue }
            let record = Record(known: slot)
            slots[place(record.kind, record.id, record.hash(seed))] = slot
        }
        old.deallocate()
    }

    private func copy(_ record: Record) -> UnsafeRawPointer {
        let size = record.byteCount
        if chunks.last.map({ $0.count - used < size }) ?? true {
            let room = max(size, chunks.isEmpty ? Overlay.firstChunk : Overlay.laterChunk)
            chunks.append(.allocate(byteCount: room, alignment: 8))
            used = 0
        }
        let chunk = chunks[chunks.count - 1]
        let to = UnsafeMutableRawBufferPointer(rebasing: chunk[used..<(used + size)])
        to.copyMemory(from: UnsafeRawBufferPointer(start: record.base, count: size))
        used += size
        byteCount += size
        return UnsafeRawPointer(to.baseAddress ?? UnsafeMutableRawPointer(mutating: record.base))
    }
}
